// Why the server cannot listen, in the words of its settings. The runtime's own error names neither, and says of a host
// that nobody knows only that some argument is invalid.

import { systemErrorCode } from '../embedded/embedded-error.ts';
import { SettingsError, type Settings } from '../settings/settings.ts';

/** Of the machine, whatever the settings say. For a host that is not there the codes are many, or there is none. */
const exhausted = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']);

const otherPort = (port: number): string => `PORT: ${port} is taken by another program; set another one`;
const lowPort = (port: number): string => `PORT: ${port} may not be opened by this user; set one from 1024 on`;

/** The `SettingsError` for what a call to listen threw; what the machine lacks stays as it is. */
export function listenFault(error: unknown, { host, port }: Pick<Settings, 'host' | 'port'>): unknown {
  const code = systemErrorCode(error);
  if (code === 'EADDRINUSE') return new SettingsError([otherPort(port)]);
  if (code === 'EACCES') return new SettingsError([lowPort(port)]);
  if (code !== undefined && exhausted.has(code)) return error;
  return new SettingsError([
    `HOST: the server cannot listen on "${host}", which is no address of this machine; 0.0.0.0 stands for all of them`,
  ]);
}
