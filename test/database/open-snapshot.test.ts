// A snapshot that is open anywhere in the database, as that of a dump of an hour, keeps every version of every row. With
// one open, 6,000 rows a second for a minute made a delivery 30 times slower: each took a look through all dead versions
// of the channel's head, and each second one through all dead rows of the outbox. Here on a real PostgreSQL: what a
// delivery costs does not grow. LONG=1 writes as many rows as that minute did, and measures deliveries in turn with those
// of another database without a snapshot, on the same machine in the same seconds; LIFE_MINUTES as well, for so long, at
// 500 rows a second.

import { expect, test } from 'bun:test';
import type postgres from 'postgres';
import { database, startRelay, until, type TestRelay } from './support.ts';
import { patient } from '../support/patience.ts';

patient();

const { sql, superuser, url } = await database();
const other = await database();
const isLong = process.env['LONG'] !== undefined;
const minutes = isLong ? Number(process.env['LIFE_MINUTES'] ?? 0) : 0;
/** Of each writer in a round. */
const turns = 1_500;
const writers = 8;
const turnMs = minutes > 0 ? (writers * 1_000) / 500 : 0;
const rounds = minutes > 0 ? Math.ceil((minutes * 60_000) / (turns * turnMs)) : isLong ? 30 : 2;
const median = (values: readonly number[]): number => values.toSorted((x, y) => x - y)[values.length >> 1] ?? 0;

test(
  'a delivery is as fast after many others while a snapshot is open',
  async () => {
    for (const each of [sql, other.sql]) {
      await each`create table item (id int)`;
      await each`select realtime.watch('item')`;
    }
    const [holder, looker] = [await sql.reserve(), await sql.reserve()];
    await holder`begin isolation level repeatable read`;
    await holder`select count(*) from realtime.outbox`;
    const [ours, theirs] = [await startRelay(url), await startRelay(other.url)];
    const { rows, errors } = ours;

    /** Milliseconds from the statement to the hand-over. */
    async function deliver(into: postgres.Sql, { rows: handed }: TestRelay): Promise<number> {
      const before = handed.length;
      const startedAt = performance.now();
      await into`insert into item values (1)`;
      await until(() => handed.length > before);
      return performance.now() - startedAt;
    }

    /** Medians of some at 50 a second, here and beside it. */
    async function deliveries(): Promise<{ readonly here: number; readonly beside: number }> {
      const [here, beside]: [number[], number[]] = [[], []];
      for (let count = 0; count < 60; count++) {
        here.push(await deliver(sql, ours));
        beside.push(await deliver(other.sql, theirs));
        await Bun.sleep(10);
      }
      return { here: median(here), beside: median(beside) };
    }

    /**
     * Pages that the database looks at for a statement: what it costs, on a machine that is busy too. The least of some: an
     * autovacuum or an analyze between two of them makes a session plan anew, which looks at hundreds.
     */
    async function pages(statement: string): Promise<number> {
      const counts: number[] = [];
      for (let count = 0; count < 5; count++) {
        const [row] = await looker.unsafe(`explain (analyze, buffers, format json) ${statement}`);
        const [{ Plan: plan }] = row!['QUERY PLAN'] as [{ Plan: Record<string, number> }];
        counts.push(plan['Shared Hit Blocks']! + plan['Shared Read Blocks']!);
      }
      return Math.min(...counts);
    }

    async function costs(): Promise<Record<string, number>> {
      const [{ lowest }] = (await looker`select lowest from realtime.outbox_stats()`) as unknown as [
        { lowest: string },
      ];
      const [{ state }] = (await looker`select pg_current_snapshot()::text as state`) as unknown as [{ state: string }];
      // Without a transaction since, the database would not look at all.
      await sql`select pg_current_xact_id()`;
      return {
        append: await pages(`select from realtime.append_one(1000, 3600, null, 'item', '1', null, null, null)`),
        read: await pages(`select from realtime.relay(1000, '[]', '${state}')`),
        // While more than a batch waits.
        readOn: await pages(`select from realtime.relay(1000, '[]', '${state}|F/FFFFFFFF|0')`),
        count: await pages(`select from realtime.outbox_stats('${lowest}')`),
        head: await pages(`select from realtime.channels where channel = 'item'`),
      };
    }

    /**
     * Pages of the outbox's indexes that all sessions look at for a delivery. The least of some: a session counts up to a
     * second late, and autovacuum looks at all.
     */
    async function indexPages(): Promise<number> {
      const hits = async (): Promise<number> => {
        const [row] = await superuser`select sum(idx_blks_hit)::int as hits from pg_statio_user_indexes
          where schemaname = 'realtime' and relname = 'outbox'`;
        return row!['hits'] as number;
      };
      const counts: number[] = [];
      while (counts.length < 4) {
        const before = await hits();
        const startedAt = performance.now();
        let count = 0;
        for (; count < 20 || performance.now() - startedAt < 1_200; count++) await deliver(sql, ours);
        counts.push(((await hits()) - before) / count);
      }
      return Math.min(...counts.slice(1));
    }

    await deliveries();
    const first = { delivery: await deliveries(), pages: await costs() };
    let written = rows.length;
    for (let round = 0; round < rounds; round++) {
      // Each transaction of its own, in batches of few rows: as many versions of a head as can be.
      const startedAt = performance.now();
      await Promise.all(
        Array.from({ length: writers }, async () => {
          for (let count = 0; count < turns; count++) {
            await sql`insert into item values (2)`;
            if (turnMs > 0) await Bun.sleep(Math.max(0, startedAt + count * turnMs - performance.now()));
          }
        }),
      );
      if (turnMs > 0 && round % 5 === 4) {
        await until(() => rows.length === written + (round + 1) * writers * turns, 60_000);
        const between = { round, of: rounds, ...(await deliveries()) };
        written += 60;
        process.stdout.write(`${JSON.stringify(between)}\n`);
        expect(between.here).toBeLessThan(between.beside * 2 + 1);
      }
    }
    await until(() => rows.length === written + rounds * writers * turns, 60_000);
    // After this the planner takes the outbox for empty, and one index for as good as the other.
    await superuser`vacuum realtime.outbox`;
    const looked = await indexPages();
    const last = { delivery: await deliveries(), pages: await costs() };
    const report = JSON.stringify({ rows: rows.length, looked, first, last });
    process.stdout.write(`${report}\n`);
    for (const [what, count] of Object.entries(last.pages)) {
      if (count > first.pages[what]! * 2 + 20) throw new Error(`${what} costs more and more: ${report}`);
    }
    // It was 91 after 24,000 rows.
    if (looked > 20) throw new Error(`a delivery looks through what was taken: ${report}`);
    if (isLong) expect(last.delivery.here).toBeLessThan(last.delivery.beside * 2 + 1);
    expect(errors).toEqual([]);
    await holder`commit`;
    for (const session of [holder, looker]) session.release();
    await Promise.all([ours.relay.close(), theirs.relay.close()]);
  },
  900_000 + minutes * 90_000,
);
