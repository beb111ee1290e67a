// How many PostgreSQL sessions a node opens: what deploy/README.md says, and no more. The document once said half of it.

import { expect, test } from 'bun:test';
import postgres from 'postgres';
import { WebSocketClient } from '../support/clients.ts';
import { readDocument } from '../support/documents.ts';
import { createDatabase } from '../support/postgres.ts';
import { startServer } from '../support/process.ts';
import { startRedis } from '../support/redis.ts';
import { patient } from '../support/patience.ts';

patient();

const [, ownText, askingText] =
  /up to (\d+) PostgreSQL sessions, and up to (\d+) more/.exec(readDocument('deploy/README.md').text) ?? [];

test.each(['postgres', 'redis'] as const)(
  'SYNC=%s: a busy node opens no more than the document says',
  async (sync) => {
    const { url } = await createDatabase({ migrated: true });
    const sql = postgres(url, { max: 1 });
    const redis = sync === 'redis' ? await startRedis() : undefined;
    const server = await startServer({
      SYNC: sync,
      DATABASE_URL: url,
      RATE_LIMIT_PER_MINUTE: '0',
      SHUTDOWN_TIMEOUT: '0',
      ...(redis === undefined ? {} : { REDIS_URL: redis.url }),
    });
    let most = 0;
    const count = async (): Promise<void> => {
      const [row] = await sql`SELECT count(*)::int AS sessions FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`;
      most = Math.max(most, row?.['sessions'] as number);
    };
    const load = async (): Promise<void> => {
      most = 0;
      let busy = true;
      const watching = (async () => {
        while (busy) await count();
      })();
      const sockets = await Promise.all(Array.from({ length: 20 }, () => WebSocketClient.open(server.url)));
      await Promise.all(
        sockets.map(async (socket, number) => {
          for (let round = 0; round < 20; round++) {
            const channel = `c:${number}-${round}`;
            await socket.request({ type: 'subscribe', channel, since: { epoch: 'x', offset: 3 } });
            await socket.request({ type: 'publish', channel, data: round });
            await socket.request({ type: 'history', channel });
          }
          await socket.close();
        }),
      );
      busy = false;
      await watching;
    };
    try {
      await load();
      expect(most).toBeGreaterThan(0);
      expect(most).toBeLessThanOrEqual(Number(ownText));
      await sql`CREATE FUNCTION realtime.authorize(channel text, action text, claims jsonb) RETURNS boolean
      LANGUAGE sql AS $$ SELECT true FROM pg_sleep(0.01) $$`;
      await load();
      expect(most).toBeLessThanOrEqual(Number(ownText) + Number(askingText));
    } finally {
      await server.stop();
      await redis?.close();
      await sql.end({ timeout: 1 });
    }
  },
  60_000,
);
