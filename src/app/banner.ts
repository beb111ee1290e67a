// The first lines that a newcomer sees: the page, the database, and a line to try.

import { redactUrl } from './logger.ts';
import type { Settings } from './settings.ts';

export interface BannerParts {
  readonly url: string;
  readonly settings: Settings;
  readonly psql: string | undefined;
  readonly databaseUrl: string | undefined;
}

export function banner({ url, settings, psql, databaseUrl }: BannerParts): string {
  const lines = ['', `  Sobranie ${settings.nodeId} is listening on ${url}`, ''];
  const page = settings.production ? undefined : `${url}/`;
  const rows: [string, string | undefined][] = [
    ['page', page],
    ['WebSocket', settings.role.has('ws') ? `${url.replace(/^http/, 'ws')}/realtime/ws` : undefined],
    ['EventSource', settings.role.has('sse') ? `${url}/realtime/events?channels=posts` : undefined],
    ['API', settings.role.has('api') ? `${url}/swagger` : undefined],
    // The embedded database is this machine's own and its URL is meant to be used; any other's password is not shown.
    ['database', databaseUrl && (settings.databaseUrl === undefined ? databaseUrl : redactUrl(databaseUrl))],
  ];
  for (const [name, value] of rows) if (value !== undefined) lines.push(`  ${name.padEnd(12)} ${value}`);
  if (psql !== undefined && settings.databaseUrl === undefined) {
    lines.push('', '  Try it: open the page, then', '', `    ${psql} -c "insert into posts (title) values ('Hello')"`);
  }
  return [...lines, ''].join('\n');
}
