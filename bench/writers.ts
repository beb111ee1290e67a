// What a trigger costs the writers: one-row inserts by pgbench at 1, 16 and 64 clients into three tables of one shape:
// without a trigger, with the plain row trigger, and watched by us. Both listening servers run throughout, so that the
// path behind the trigger takes its share of the machine as it does in life. Then statements of many rows (bulk.ts).
import { bulkUpdates } from './bulk.ts';
import type { BenchOptions } from './options.ts';
import { runPgbench, startDatabase, until, type BenchDatabase } from './postgres.ts';
import { oursPath, plainPath, type RowPath } from './row-paths.ts';
import type { ServerProcess } from './server-process.ts';
import { median, printTable, ratio, ratios, thousands } from './table.ts';

interface Target {
  readonly name: string;
  readonly table: string;
}

const clientCounts = [1, 16, 64];
const settleSeconds = 60;

export async function writers(options: BenchOptions): Promise<void> {
  const paths = options.baselinesOnly ? [plainPath] : [plainPath, oursPath];
  const rounds = options.quick ? 1 : 3;
  const seconds = options.quick ? 2 : 6;
  const database = await startDatabase();
  const servers: ServerProcess[] = [];
  try {
    for (const path of paths) servers.push(await path.start(database));
    await database.sql`create table plain.bench_bare (like plain.bench_rows including all)`;
    const bare = { name: 'no trigger', table: 'plain.bench_bare' };
    const targets: readonly Target[] = [bare, ...paths];
    // The first commits of a new cluster write its first segments and fill its caches: they are nobody's measurement.
    for (const { table } of targets)
      await runPgbench(database, { script: insertScript(table), clients: 4, seconds: 1 });
    for (const clients of clientCounts) {
      const speeds = new Map<Target, number[]>(targets.map((target) => [target, []]));
      for (let round = 0; round < rounds; round++) {
        for (const target of targets) {
          const script = insertScript(target.table);
          const { perSecond } = await runPgbench(database, { script, clients, seconds });
          speeds.get(target)?.push(perSecond);
          await settle(database, paths);
        }
      }
      printClients(clients, speeds, bare);
    }
    if (!options.baselinesOnly) await bulkUpdates(database, options);
  } finally {
    for (const server of servers) await server.stop();
    await database.close();
  }
}

const insertScript = (table: string): string =>
  `insert into ${table} (run, writer, number, sent_at, body) values (0, :client_id, 0, 0, repeat('x', 100));\n`;

async function settle(database: BenchDatabase, paths: readonly RowPath[]): Promise<void> {
  for (const path of paths) await until(`${path.name}: settled`, settleSeconds, () => path.settled(database));
}

function printClients(clients: number, speeds: ReadonlyMap<Target, readonly number[]>, bare: Target): void {
  const reference = speeds.get(bare) ?? [];
  const plain = speeds.get(plainPath) ?? [];
  printTable(
    `One-row inserts, ${clients} client(s)`,
    ['', 'commits/s', 'of no trigger', 'each round', 'of the row trigger'],
    [...speeds].map(([target, values]) => {
      const perRound = values.map((value, round) => value / (reference[round] ?? Number.NaN));
      const overPlain = values.map((value, round) => value / (plain[round] ?? Number.NaN));
      return [
        target.name,
        thousands(median(values)),
        ratio(median(perRound)),
        ratios(perRound),
        ratio(median(overPlain)),
      ];
    }),
  );
}
