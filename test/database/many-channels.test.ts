// Each batch of the relay read the whole of `realtime.channels`, and all publications with a key if one of its rows had
// one: its joins were planned for a thousand rows. With half a million channels, such as one for each user, each batch took
// 200 ms. Index entries that a statement reads are counted by the database, so no time is measured here.

import { beforeAll, expect, test } from 'bun:test';
import type postgres from 'postgres';
import { patient } from '../support/patience.ts';
import { database, leave, rules, takenOver } from './support.ts';

patient();

const { sql } = await database();
const many = 3_000;

beforeAll(async () => {
  await sql`
    insert into realtime.channels (channel, epoch, "offset", history_size, history_seconds, used_at)
    select 'user:' || i, 'epoch', 1, 1000, 3600, 0 from generate_series(1, ${many}::int) i`;
  await sql`
    insert into realtime.publications (channel, "offset", data, at, key)
    select 'user:' || i, 1, '1', (extract(epoch from now()) * 1000)::bigint, 'key' from generate_series(1, ${many}::int) i`;
  await sql`analyze realtime.channels, realtime.publications`;
});

/** Index entries of channels and publications that it reads. */
async function readsOf(work: (tx: postgres.TransactionSql) => Promise<unknown>): Promise<number> {
  return sql.begin(async (tx) => {
    await work(tx);
    const [counted] = await tx<{ reads: number }[]>`
      select sum(pg_stat_get_xact_tuples_returned(i.indexrelid))::int as reads from pg_index i
      where i.indrelid in ('realtime.channels'::regclass, 'realtime.publications'::regclass)`;
    return counted?.reads ?? 0;
  });
}

const relay = (tx: postgres.TransactionSql) =>
  tx`select * from realtime.relay(1000, ${JSON.stringify(rules)}::text::jsonb)`;

test('a batch reads as much with thousands of channels as with a few', async () => {
  await leave(sql, [
    ['user:7', '"a"'],
    ['user:8', '"b"', 'fresh'],
    ['user:9', '"c"', 'key'],
    ['new', '"d"', 'key'],
  ]);
  expect(await readsOf(relay)).toBeLessThan(60);
  const kept =
    await sql`select channel, "offset"::int, data from realtime.publications where data like '"%' order by seq`;
  // The third one's key was used.
  expect(kept.map(({ channel, offset, data }) => [channel, offset, data])).toEqual([
    ['user:7', 2, '"a"'],
    ['user:8', 2, '"b"'],
    ['new', 1, '"d"'],
  ]);
});

test('so does what clients publish, and a row that is parked', async () => {
  const entries = [
    { channel: 'user:10', data: '1', key: 'key', size: 1000, seconds: 3600 },
    { channel: 'user:11', data: '1', key: 'other', size: 1000, seconds: 3600 },
    { channel: 'user:11', data: '2', key: 'other', size: 1000, seconds: 3600 },
  ];
  const reads = await readsOf(async (tx) => {
    const appended = await tx`
      select channel, "offset"::int, data, fresh from realtime.append(${JSON.stringify(entries)}::text::jsonb)`;
    expect(appended.map(({ channel, offset, data, fresh }) => [channel, offset, data, fresh])).toEqual([
      ['user:10', 1, '1', false],
      ['user:11', 2, '1', true],
      ['user:11', 2, '1', false],
    ]);
  });
  expect(reads).toBeLessThan(60);

  await leave(
    sql,
    Array.from({ length: many }, (_, index) => [`user:${index + 1}`, '1'] as const),
  );
  await leave(sql, [['large', JSON.stringify('x'.repeat(1_000))]]);
  const read = await sql.begin(async (tx) => {
    const places = tx`array(select o.ctid from realtime.outbox o order by o.lsn desc limit 5)`;
    const [parked] = await tx`select parked::int from realtime.park_large(${places}, 500)`;
    expect(parked).toEqual({ parked: 1 });
    const [counted] = await tx<{ reads: number }[]>`
      select sum(pg_stat_get_xact_tuples_returned(i.indexrelid))::int as reads from pg_index i
      where i.indrelid = 'realtime.outbox'::regclass`;
    return counted?.reads ?? 0;
  });
  expect(read).toBeLessThan(60);
}, 60_000);

// A virtual column whose expression fails makes each statement of its table a fault, which all channels of the table's
// templates are told of. A hundred statements and 100,000 channels were ten million gaps, and the relay carried nothing else.
test('faults of one batch are one gap for each channel of a template', async () => {
  await sql`create table faulty (id int)`;
  await sql`select realtime.watch('faulty', array['faulty:{id}', 'all'])`;
  await sql`insert into faulty select generate_series(1, 50)`;
  await takenOver(sql);
  await sql.begin(async (tx) => {
    for (let count = 0; count < 100; count++) {
      await tx`select realtime.capture_fault('faulty'::regclass, 'it failed')`;
      if (count === 50) await tx`insert into faulty values (7)`;
    }
  });
  const seen = await takenOver(sql);
  const of7 = seen.filter(({ channel }) => channel === 'faulty:7').map(({ data }) => data['gap'] ?? data['action']);
  expect(of7).toEqual(['INSERT', true]);
  expect(seen.filter(({ channel, data }) => channel.startsWith('faulty:') && data['gap'] === true).length).toBe(50);
  const [watch] = await sql`select fault_count::int as count from realtime.watches where "table" = 'faulty'::regclass`;
  expect(watch?.['count']).toBeGreaterThan(0);
});
