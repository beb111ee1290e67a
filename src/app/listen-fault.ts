// Why the server cannot listen, in the words of its settings. The runtime's own error names neither, and says of a host
// that nobody knows only that some argument is invalid.

import { systemErrorCode } from '../embedded/embedded-error.ts';
import { SettingsError, type Settings } from '../settings/settings.ts';

/** A host that is not there: which of these it is depends on how its name is looked up. */
const hostCodes = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EAI_AGAIN', 'EINVAL', 'ENODEV', 'ENOTFOUND']);
/** All that the runtime's `node:net` says of a name that resolves to nothing. */
const unresolved = /^Failed to listen at /;

const otherPort = (port: number): string => `PORT: ${port} is taken by another program; set another one`;
const lowPort = (port: number): string => `PORT: ${port} may not be opened by this user; set one from 1024 on`;

/** The `SettingsError` for what a call to listen threw; what no setting mends stays as it is. */
export function listenFault(error: unknown, { host, port }: Pick<Settings, 'host' | 'port'>): unknown {
  const code = systemErrorCode(error);
  if (code === 'EADDRINUSE') return new SettingsError([otherPort(port)]);
  if (code === 'EACCES') return new SettingsError([lowPort(port)]);
  const isHost = code === undefined ? error instanceof Error && unresolved.test(error.message) : hostCodes.has(code);
  if (!isHost) return error;
  return new SettingsError([
    `HOST: the server cannot listen on "${host}", which is no address of this machine; 0.0.0.0 stands for all of them`,
  ]);
}
