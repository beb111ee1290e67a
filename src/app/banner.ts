// What start-up prints: where the server is, its addresses, the database, and a line to try.

import { shownDatabaseUrl } from '../database/url.ts';
import type { Logger } from './logger.ts';
import type { Settings } from '../settings/settings.ts';

export interface BannerParts {
  readonly url: string;
  readonly settings: Settings;
  readonly psql: string | undefined;
  readonly databaseUrl: string | undefined;
}

/** Says once where the server is: as a banner for people, or as one line of the JSON log. */
export function announce(parts: BannerParts, log: Logger): void {
  const { settings, url } = parts;
  if (settings.logFormat === 'pretty') console.log(banner(parts));
  else log.info({ sync: settings.sync, workers: settings.workers }, `listening on ${url} as ${settings.nodeId}`);
}

/** An address that this machine can open. */
export function listeningUrl(settings: Settings, port: number | undefined): string {
  return `http://${shownHost(settings.host)}:${port}`;
}

function shownHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return 'localhost';
  return host.includes(':') ? `[${host}]` : host;
}

function banner({ url, settings, psql, databaseUrl }: BannerParts): string {
  const lines = ['', `  Sobranie ${settings.nodeId} is listening on ${url}`, ''];
  const page = settings.production ? undefined : `${url}/`;
  const rows: [string, string | undefined][] = [
    ['page', page],
    ['WebSocket', settings.role.has('ws') ? `${url.replace(/^http/, 'ws')}/realtime/ws` : undefined],
    ['EventSource', settings.role.has('sse') ? `${url}/realtime/events?channels=posts` : undefined],
    ['API', settings.role.has('api') ? `${url}/swagger` : undefined],
    // People need the embedded database's URL, password included. The password of any other database is hidden.
    ['database', databaseUrl && (settings.databaseUrl === undefined ? databaseUrl : shownDatabaseUrl(databaseUrl))],
  ];
  for (const [name, value] of rows) if (value !== undefined) lines.push(`  ${name.padEnd(12)} ${value}`);
  if (psql !== undefined && settings.databaseUrl === undefined) {
    lines.push('', '  Try it: open the page, then', '', `    ${psql} -c "insert into posts (title) values ('Hello')"`);
  }
  return [...lines, ''].join('\n');
}
