// What users call and attach themselves: realtime.send and public.notify_realtime_event, on a real PostgreSQL.

import { beforeEach, expect, test } from 'bun:test';
import { database, takenOver, relayed } from './support.ts';

const { sql } = await database();

beforeEach(async () => {
  await takenOver(sql);
  await sql`drop table if exists item cascade`;
});

async function message(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'it did not fail',
    (error: unknown) => (error as Error).message,
  );
}

test('send publishes when the transaction commits, and not otherwise', async () => {
  await sql`select realtime.send('a', '{"x": 1}')`;
  await message(
    sql.begin(async (tx) => {
      await tx`select realtime.send('a', '2')`;
      throw new Error('roll back');
    }),
  );
  expect(await takenOver(sql)).toEqual([{ channel: 'a', data: { x: 1 } }] as never);
});

test('send refuses what is no channel, no data, or no key', async () => {
  for (const channel of ['', 'a b', '$system', 'a%2', 'x'.repeat(257), 'ж', 'a\n']) {
    expect(await message(sql`select realtime.send(${channel}, '1')`)).toContain('is not a channel');
  }
  expect(await message(sql`select realtime.send(null, '1')`)).toContain('is not a channel');
  expect(await message(sql`select realtime.send('a', null)`)).toContain('data is NULL');
  expect(await message(sql`select realtime.send('a', '1', '')`)).toContain('1 to 64');
  expect(await message(sql`select realtime.send('a', '1', ${'k'.repeat(65)})`)).toContain('1 to 64');
  expect(await message(sql`select realtime.send('a', '1', ${'😀'.repeat(65)})`)).toContain('1 to 64');
  for (const mark of ['k', '😀']) await sql`select realtime.send('A-z_0.9:@/%c3%BC', 'null', ${mark.repeat(64)})`;
  const sent = { channel: 'A-z_0.9:@/%c3%BC', data: null };
  expect(await takenOver(sql)).toEqual([sent, sent] as never);
});

test('a key is good once per channel, within a batch and between batches', async () => {
  for (const n of [1, 2]) await sql`select realtime.send('k1', ${String(n)}::text::jsonb, 'key')`;
  await sql`select realtime.send('k2', '3', 'key')`;
  expect((await takenOver(sql)).map(({ channel, data }) => [channel, data] as unknown)).toEqual([
    ['k1', 1],
    ['k2', 3],
  ]);
  await sql`select realtime.send('k1', '4', 'key')`;
  await sql`select realtime.send('k1', '5', 'other')`;
  const { rows, taken, dropped } = await relayed(sql);
  expect(rows.map(({ data, offset }) => [data, offset])).toEqual([['5', 2]]);
  expect([taken, dropped]).toEqual([2, 0]);
});

test('large data passes whole', async () => {
  const text = 'ü'.repeat(1_000_000);
  await sql`select realtime.send('a', ${JSON.stringify({ text })}::text::jsonb)`;
  expect((await takenOver(sql))[0]!.data['text']).toBe(text);
});

test('the row trigger tells inserts, updates and deletes to the channel of the table', async () => {
  await sql`create table item (id int primary key, title text, doc json)`;
  await sql`create trigger own after insert or update or delete on item for each row
    execute function notify_realtime_event()`;
  await sql`create trigger own_truncate after truncate on item for each statement
    execute function public.notify_realtime_event()`;
  await sql`insert into item values (1, 'a', ${'{"x":\n1}'}::text::json)`;
  await sql`update item set title = 'b'`;
  await sql`delete from item`;
  await sql`truncate item`;
  const row = { id: 1, title: 'a', doc: { x: 1 } };
  const common = { schema: 'public', table: 'item' };
  expect(await takenOver(sql)).toEqual([
    { channel: 'item', data: { ...common, action: 'INSERT', data: row, old: null } },
    {
      channel: 'item',
      data: { ...common, action: 'UPDATE', data: { ...row, title: 'b' }, old: { id: 1, title: 'a' } },
    },
    { channel: 'item', data: { ...common, action: 'DELETE', data: null, old: { ...row, title: 'b' } } },
    { channel: 'item', data: { ...common, action: 'TRUNCATE', data: null, old: null } },
  ] as never);
});

test('the row trigger tells a partition by the name of its table, also when written directly', async () => {
  await sql`create table item (id int, region text) partition by list (region)`;
  await sql`create table item_a partition of item for values in ('a')`;
  await sql`create trigger own after insert on item for each row execute function notify_realtime_event()`;
  await sql`insert into item_a values (1, 'a')`;
  expect((await takenOver(sql)).map(({ channel, data }) => [channel, data['table']])).toEqual([['item', 'item']]);
});

test('the row trigger refuses to be attached in a way that loses rows', async () => {
  await sql`create table item (id int)`;
  await sql`create trigger own before insert on item for each row execute function notify_realtime_event()`;
  expect(await message(sql`insert into item values (1)`)).toContain('must be AFTER ... FOR EACH ROW');
  await sql`drop trigger own on item`;
  await sql`create trigger own after insert on item for each statement execute function notify_realtime_event()`;
  expect(await message(sql`insert into item values (1)`)).toContain('must be AFTER ... FOR EACH ROW');
});
