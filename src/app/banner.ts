// What start-up prints: where the server is, its addresses, the database, and a line to try.

import type { Logger } from './logger.ts';
import type { Settings } from '../settings/settings.ts';

export interface BannerParts {
  readonly url: string;
  readonly settings: Settings;
  /** A shell line that opens the embedded database. */
  readonly psql: string | undefined;
  /** As it may be printed. */
  readonly databaseUrl: string | undefined;
}

/** Says once where the server is: as a banner for people, or as one line of the JSON log. */
export function announce(parts: BannerParts, log: Logger): void {
  const { settings, url } = parts;
  if (settings.logFormat === 'pretty') {
    console.log(banner(parts));
    return;
  }
  const { databaseUrl: database } = parts;
  if (database !== undefined && settings.databaseUrl === undefined && log.isLevelEnabled('info')) {
    // Not through the log, which takes passwords out of URLs.
    const time = new Date().toISOString();
    const msg = 'the embedded database can be reached from this machine';
    console.log(JSON.stringify({ level: 'info', time, node: settings.nodeId, database, msg }));
  }
  log.info({ sync: settings.sync, workers: settings.workers }, `listening on ${url} as ${settings.nodeId}`);
}

/** An address that this machine can open. */
export function listeningUrl(settings: Settings, port: number | undefined): string {
  return `http://${shownHost(settings.host)}:${port}`;
}

function shownHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return 'localhost';
  return host.includes(':') ? `[${host}]` : host;
}

function banner(parts: BannerParts): string {
  const { url, settings, psql, databaseUrl } = parts;
  const lines = ['', `  Sobranie ${settings.nodeId} is listening on ${url}`, ''];
  const page = settings.production ? undefined : `${url}/`;
  const rows: [string, string | undefined][] = [
    ['page', page],
    ['WebSocket', settings.role.has('ws') ? `${url.replace(/^http/, 'ws')}/realtime/ws` : undefined],
    ['EventSource', settings.role.has('sse') ? `${url}/realtime/events?channels=posts` : undefined],
    ['API', settings.role.has('api') ? `${url}/swagger` : undefined],
    ['database', databaseUrl],
  ];
  for (const [name, value] of rows) if (value !== undefined) lines.push(`  ${name.padEnd(12)} ${value}`);
  if (psql !== undefined && page !== undefined) {
    lines.push('', '  Try it: open the page, then', '', `    ${psql} -c "insert into posts (title) values ('Hello')"`);
  }
  return [...lines, ''].join('\n');
}
