// What the trigger costs a statement of many rows, and the statements after it: an UPDATE of 100,000 and of a million rows,
// in a fresh session and in one that has run many small statements, beside the same table without a watch; and an
// UPDATE of one row before and after. A plan that is right for one row once made the large statement quadratic, and what
// the large one left behind made each small one slow.
import postgres from 'postgres';
import type { BenchOptions } from './options.ts';
import type { BenchDatabase } from './postgres.ts';
import { median, printTable, ratio } from './table.ts';

const smallUpdates = 50;

export async function bulkUpdates(database: BenchDatabase, options: BenchOptions): Promise<void> {
  const many = options.quick ? 20_000 : 100_000;
  const most = options.quick ? 100_000 : 1_000_000;
  const { sql } = database;
  await sql.unsafe(`
    create schema bulk;
    create table bulk.bare (id int primary key, n int default 0, body text default repeat('x', 100))
      with (autovacuum_enabled = off);
    create table bulk.watched (like bulk.bare including all);
    insert into bulk.bare select g from generate_series(1, ${most}) g;
    insert into bulk.watched select g from generate_series(1, ${most}) g;
    select realtime.watch('bulk.watched', array['ephemeral:bulk'])`);
  const rows: string[][] = [];
  const measure = async (
    name: string,
    count: number,
    work: (session: postgres.Sql) => Promise<void>,
  ): Promise<void> => {
    const times = { bare: [] as number[], watched: [] as number[] };
    for (let round = 0; round < (options.quick || count === most ? 1 : 3); round++) {
      for (const table of ['bare', 'watched'] as const) {
        await sql
          .unsafe('vacuum bulk.bare, bulk.watched; checkpoint')
          .simple()
          .catch(() => undefined);
        const session = postgres(database.url, { max: 1, onnotice: () => undefined });
        await work(session);
        const start = performance.now();
        await session.unsafe(`update bulk.${table} set n = n + 1 where id <= ${count}`);
        times[table].push(performance.now() - start);
        await session.end();
        await settled(sql);
      }
    }
    const [bare, watched] = [median(times.bare), median(times.watched)];
    const ratios = times.watched.map((time, round) => time / (times.bare[round] ?? Number.NaN));
    rows.push([name, bare.toFixed(0), watched.toFixed(0), ratio(median(ratios))]);
  };
  const small = async (session: postgres.Sql): Promise<void> => {
    for (let id = 1; id <= smallUpdates; id++) {
      for (const table of ['bare', 'watched'])
        await session.unsafe(`update bulk.${table} set n = n + 1 where id = ${id}`);
    }
  };
  await measure(`${many} rows, fresh session`, many, async () => undefined);
  await measure(`${many} rows, after ${2 * smallUpdates} small statements`, many, small);
  await measure(`${most} rows`, most, small);
  printTable('One UPDATE', ['', 'no watch, ms', 'watched, ms', 'times'], rows);

  const session = postgres(database.url, { max: 1, onnotice: () => undefined });
  const one = async (): Promise<number> => {
    const times: number[] = [];
    for (let id = 1; id <= 200; id++) {
      const start = performance.now();
      await session.unsafe(`update bulk.watched set n = n + 1 where id = ${id}`);
      times.push(performance.now() - start);
    }
    return median(times);
  };
  await one();
  const before = await one();
  await session.unsafe(`update bulk.watched set n = n + 1 where id <= ${many}`);
  const after = await one();
  await session.end();
  printTable(
    'UPDATE of one watched row in one session',
    ['before a bulk one, ms', 'after it, ms', 'difference, ms'],
    [[before.toFixed(2), after.toFixed(2), (after - before).toFixed(2)]],
  );
}

/** No round shall pay for what the one before left to the relay. */
async function settled(sql: postgres.Sql): Promise<void> {
  for (;;) {
    const [row] = await sql`select exists (select from realtime.outbox) as waiting`;
    if (row?.['waiting'] !== true) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
