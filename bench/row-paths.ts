// The two ways from a row to a browser that are compared: ours (the outbox and its relay) and the plain one (a row
// trigger with pg_notify). Both run in one database, each with a table of the same shape and a server of its own.
import { join } from 'node:path';
import { startOurs } from './contenders.ts';
import type { BenchDatabase } from './postgres.ts';
import { repositoryRoot, startServer, type ServerProcess } from './server-process.ts';

export interface RowPath {
  readonly name: string;
  readonly table: string;
  readonly channel: string;
  readonly socketPath: string;
  start(database: BenchDatabase): Promise<ServerProcess>;
  // True once nothing that was written is still on its way.
  settled(database: BenchDatabase): Promise<boolean>;
}

const columns = `(id bigint generated always as identity primary key, run int not null, writer int not null,
  number int not null, sent_at double precision not null, body text not null)`;

async function createTable(database: BenchDatabase, schema: string): Promise<void> {
  await database.sql.unsafe(`create schema ${schema}; create table ${schema}.bench_rows ${columns}`);
}

export const plainPath: RowPath = {
  name: 'row trigger with pg_notify',
  table: 'plain.bench_rows',
  channel: 'bench_rows',
  socketPath: '/',
  async start(database) {
    await createTable(database, 'plain');
    await database.sql.unsafe(await Bun.file(join(repositoryRoot, 'bench/baselines/row-notify.sql')).text());
    return startServer([process.execPath, 'bench/baselines/row-notify.ts', database.url]);
  },
  async settled(database) {
    const [row] = await database.sql<{ settled: boolean }[]>`select pg_notification_queue_usage() = 0 as settled`;
    return row?.settled === true;
  },
};

export const oursPath: RowPath = pathOf('sobranie', repositoryRoot);

// By the server of a checkout.
export function pathOf(name: string, root: string): RowPath {
  return {
    name,
    table: 'ours.bench_rows',
    channel: 'bench_rows',
    socketPath: '/realtime/ws',
    async start(database) {
      const server = await startOurs({ SYNC: 'postgres', DATABASE_URL: database.url }, { root });
      await createTable(database, 'ours');
      await database.sql`select realtime.watch('ours.bench_rows', array['bench_rows'])`;
      return server;
    },
    async settled(database) {
      const [row] = await database.sql<{ settled: boolean }[]>`
      select not exists (select from realtime.outbox) as settled`;
      return row?.settled === true;
    },
  };
}
