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

// A table with a type of somebody's own is told by a statement that is written for it, any other by what is at hand.
test.each([
  ['a key', 'id int primary key', ''],
  ['a key of two', 'id int generated always as (length(b)) stored', ', primary key (a, id)'],
  ['no key', 'id int', ''],
])('the row trigger tells a table with %s alike, whatever types it has', async (_name, id, key) => {
  const tables = ['item', 'item_special'];
  await sql`drop table if exists item_special`;
  await sql`drop type if exists mood`;
  await sql`create type mood as enum ('x')`;
  for (const table of tables) {
    await sql.unsafe(`create table ${table} (b text, ${id}, "näme ""x""" varchar(20), c bigint, d numeric, e float8,
      f timestamptz, g interval, h bytea, i jsonb, j int[], k uuid, l bool, m date, n money, o inet, p point, q char(3),
      a int, r tstzrange, s xml, t time ${key});
      create trigger own after insert or update or delete on ${table} for each row
        execute function notify_realtime_event()`);
  }
  await sql`alter table item_special add mood mood default 'x'`;
  const isGiven = !id.includes('generated');
  const row = `(b, "näme ""x""", c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, a, r, s, t ${isGiven ? ', id' : ''})
    values (E'"\\\\\\n\\tü', 'x', 9007199254740993, 1.50, 'NaN', '2026-01-02 03:04:05.678+02', '1 day 02:00', '\\x00ff',
      '{"z": [1, null], "a": "😀"}', '{{1,2},{3,4}}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', true, 'infinity', '12.34',
      '10.0.0.1/8', '(1,2)', 'q', 7, '[2026-01-01,)', '<a>&amp;</a>', '04:05' ${isGiven ? ', 1' : ''})`;
  const second = isGiven ? `(a, b, id) values (0, 'second', 2)` : `(a, b) values (0, 'second')`;
  for (const settings of [
    ['timezone', 'Asia/Tokyo', 'bytea_output', 'escape'],
    ['extra_float_digits', '-5'],
  ]) {
    for (const isolation of ['read committed', 'serializable']) {
      await sql.begin(async (tx) => {
        await tx.unsafe(`set transaction isolation level ${isolation}`);
        for (let i = 0; i < settings.length; i += 2) await tx.unsafe(`set local ${settings[i]} = '${settings[i + 1]}'`);
        for (const table of tables) {
          await tx.unsafe(`insert into ${table} ${row}`);
          await tx.unsafe(`insert into ${table} ${second}`);
          await tx.unsafe(`update ${table} set c = c, b = b || 'é', e = -0.0, d = 1.5, l = null, q = 'q ' where a = 7`);
          await tx.unsafe(`update ${table} set i = i || '{"n": 1}', h = null, "näme ""x""" = 'X', a = a + 1`);
          await tx.unsafe(`update ${table} set f = f + '1 microsecond', j = j || j, m = '-infinity'`);
          await tx.unsafe(`delete from ${table}`);
        }
      });
    }
  }
  const seen = await takenOver(sql);
  const told = tables.map((table) =>
    seen
      .filter(({ channel }) => channel === table)
      .map(({ data }) => JSON.stringify(data).replaceAll(/,"mood":"x"|_special/g, '')),
  );
  expect(told[0]).toHaveLength(4 * 9);
  expect(told[0]!.join()).not.toContain('gap');
  expect(told[0]).toEqual(told[1]);
  await sql`drop table item_special`;
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
