// Table changes on their way into the outbox, on a real PostgreSQL: realtime.watch, as its users meet it.

import { beforeEach, describe, expect, test } from 'bun:test';
import type postgres from 'postgres';
import { database, takenOver, relayed } from './support.ts';

const { sql, superuser, version } = await database();

beforeEach(async () => {
  await takenOver(sql);
  await sql.unsafe('drop table if exists item cascade; drop schema if exists "Odd Place" cascade').simple();
});

async function rejection(promise: Promise<unknown>): Promise<postgres.PostgresError> {
  try {
    await promise;
  } catch (error) {
    return error as postgres.PostgresError;
  }
  throw new Error('it did not fail');
}

function change(action: string, data: unknown, old: unknown, table = 'item', schema = 'public'): object {
  return { action, schema, table, data, old };
}

describe('what is published', () => {
  test('every insert, update and delete, to the channel of the table by default', async () => {
    await sql`create table item (id int primary key, title text, n int)`;
    await sql`select realtime.watch('item')`;
    await sql`insert into item values (1, 'a', 5), (2, 'b', 6)`;
    await sql`update item set title = 'c' where id = 1`;
    await sql`delete from item where id = 2`;
    expect(await takenOver(sql)).toEqual([
      { channel: 'item', data: change('INSERT', { id: 1, title: 'a', n: 5 }, null) },
      { channel: 'item', data: change('INSERT', { id: 2, title: 'b', n: 6 }, null) },
      { channel: 'item', data: change('UPDATE', { id: 1, title: 'c', n: 5 }, { id: 1, title: 'a' }) },
      { channel: 'item', data: change('DELETE', null, { id: 2, title: 'b', n: 6 }) },
    ] as never);
  });

  test('to each of several templates, and to none where a value is null', async () => {
    await sql`create table item (id int primary key, author text, room text)`;
    await sql`select realtime.watch('item', array['items', 'item:{id}', 'u:{author}/{room}'])`;
    await sql`insert into item values (1, 'ann', 'x'), (2, null, 'x')`;
    expect((await takenOver(sql)).map(({ channel }) => channel)).toEqual([
      'items',
      'item:1',
      'u:ann/x',
      'items',
      'item:2',
    ]);
  });

  test('a row whose templates give the same channel arrives there once', async () => {
    await sql`create table item (id int primary key, a text, b text)`;
    await sql`select realtime.watch('item', array['all', 'u:{a}', 'u:{b}', '{b}'])`;
    await sql`insert into item values (1, 'x', 'x'), (2, 'x', 'all')`;
    expect((await takenOver(sql)).map(({ channel }) => channel)).toEqual(['all', 'u:x', 'x', 'all', 'u:x', 'u:all']);
    await sql`update item set a = 'all', b = 'x' where id = 2`;
    const moves = (await takenOver(sql)).map(({ channel, data }) => [channel, data['action'], data['moved'] ?? false]);
    expect(moves.map((move) => move.join(' ')).toSorted()).toEqual([
      'all UPDATE false',
      'u:all UPDATE false',
      'u:x UPDATE false',
      'x INSERT true',
    ]);
  });

  test('a row that changes channel leaves the old one as DELETE and enters the new one as INSERT', async () => {
    await sql`create table item (id int primary key, room text, body text)`;
    await sql`select realtime.watch('item', array['items', 'room:{room}'])`;
    await sql`insert into item values (1, 'a', 'x'), (2, null, 'y')`;
    await takenOver(sql);
    await sql`update item set room = 'b' where id = 1`;
    expect(await takenOver(sql)).toEqual([
      { channel: 'items', data: change('UPDATE', { id: 1, room: 'b', body: 'x' }, { id: 1, room: 'a' }) },
      { channel: 'room:a', data: { ...change('DELETE', null, { id: 1, room: 'a', body: 'x' }), moved: true } },
      { channel: 'room:b', data: { ...change('INSERT', { id: 1, room: 'b', body: 'x' }, null), moved: true } },
    ] as never);
    await sql`update item set room = 'c' where id = 2`;
    expect((await takenOver(sql)).map(({ channel, data }) => [channel, data['action']])).toEqual([
      ['items', 'UPDATE'],
      ['room:c', 'INSERT'],
    ]);
    await sql`update item set room = null where id = 1`;
    expect((await takenOver(sql)).map(({ channel, data }) => [channel, data['action']])).toEqual([
      ['items', 'UPDATE'],
      ['room:b', 'DELETE'],
    ]);
    await sql`update item set body = 'z' where id = 2`;
    expect((await takenOver(sql)).map(({ channel, data }) => [channel, data['action']])).toEqual([
      ['items', 'UPDATE'],
      ['room:c', 'UPDATE'],
    ]);
  });

  test('an update that moves every row of a large set pairs the right old and new ones', async () => {
    await sql`create table item (id int primary key, n int)`;
    await sql`insert into item select g, g * 10 from generate_series(1, 5000) g`;
    await sql`select realtime.watch('item')`;
    await sql`update item set id = id + 100000`;
    const seen = await takenOver(sql);
    expect(seen).toHaveLength(5000);
    for (const { data } of seen) {
      const [after, before] = [data['data'] as { id: number; n: number }, data['old'] as { id: number }];
      expect(before).toEqual({ id: after.id - 100_000 });
      expect(after.n).toBe(before.id * 10);
    }
  });

  test('`columns` restricts new and old rows alike, and templates may name others', async () => {
    await sql`create table item (id int primary key, secret text, title text)`;
    await sql`select realtime.watch('item', array['item:{secret}'], array['title', 'id'])`;
    await sql`insert into item values (1, 's', 'a')`;
    await sql`update item set title = 'b'`;
    await sql`update item set secret = 't'`;
    await sql`delete from item`;
    expect(await takenOver(sql)).toEqual([
      { channel: 'item:s', data: change('INSERT', { title: 'a', id: 1 }, null) },
      { channel: 'item:s', data: change('UPDATE', { title: 'b', id: 1 }, { title: 'a', id: 1 }) },
      { channel: 'item:s', data: { ...change('DELETE', null, { title: 'b', id: 1 }), moved: true } },
      { channel: 'item:t', data: { ...change('INSERT', { title: 'b', id: 1 }, null), moved: true } },
      { channel: 'item:t', data: change('DELETE', null, { title: 'b', id: 1 }) },
    ] as never);
  });

  test('a table without a key tells the whole old row', async () => {
    await sql`create table item (a int, b text)`;
    await sql`select realtime.watch('item')`;
    await sql`insert into item values (1, 'x'), (1, 'x')`;
    await takenOver(sql);
    await sql`update item set b = 'y'`;
    expect((await takenOver(sql)).map(({ data }) => data['old'])).toEqual([
      { a: 1, b: 'x' },
      { a: 1, b: 'x' },
    ]);
  });

  // PostgreSQL shows a row that goes to such a partition as it was before: the value was null, and no channel was made of it.
  test('a computed value of a row that goes to a partition whose columns lie otherwise', async () => {
    await sql`create table item (id int, room text, twice int generated always as (id * 2) stored) partition by list (room)`;
    await sql`create table item_x (gone int, room text, id int, twice int generated always as (id * 2) stored)`;
    await sql`alter table item_x drop column gone`;
    await sql`alter table item attach partition item_x for values in ('x')`;
    await sql`create table item_y partition of item default`;
    await sql`select realtime.watch('item', array['item:{twice}'])`;
    await sql`insert into item (id, room) values (1, 'x'), (2, 'y'), (null, 'x')`;
    expect((await takenOver(sql)).map(({ channel, data }) => [channel, data['data']])).toEqual([
      ['item:2', { id: 1, room: 'x', twice: 2 }],
      ['item:4', { id: 2, room: 'y', twice: 4 }],
    ]);
  });

  test('one that a function of somebody computes is refused there, and right where columns lie alike', async () => {
    await sql`create or replace function twice(n int) returns int language sql immutable as 'select n * 2'`;
    await sql`create table item (id int, room text, twice int generated always as (twice(id)) stored) partition by list (room)`;
    await sql`create table item_y partition of item default`;
    await sql`select realtime.watch('item', array['item:{twice}'])`;
    await sql`insert into item (id, room) values (2, 'y')`;
    expect((await takenOver(sql)).map(({ channel }) => channel)).toEqual(['item:4']);
    await sql`select realtime.unwatch('item')`;
    await sql`create table item_x (gone int, room text, id int, twice int generated always as (twice(id)) stored)`;
    await sql`alter table item_x drop column gone`;
    await sql`alter table item attach partition item_x for values in ('x')`;
    const refusal = await sql`select realtime.watch('item')`.catch((error: unknown) => String(error));
    expect(refusal).toContain('column "twice" is computed by functions that are not PostgreSQL');
    expect(refusal).toContain('a partition has its columns in other places');
  });

  // Rows that exchange such keys share one on the way. Whoever applied the changes by key took the wrong row away.
  test('a deferrable key counts as none, and columns that a key only includes are no part of it', async () => {
    await sql`create table item (id int primary key deferrable, a text)`;
    await sql`select realtime.watch('item')`;
    await sql`insert into item values (1, 'x'), (2, 'y'), (3, 'z')`;
    await sql`update item set id = 4 - id`;
    await sql`drop table item`;
    await sql`create table item (id int, a text, b text, primary key (id) include (a))`;
    await sql`select realtime.watch('item')`;
    await sql`insert into item values (1, 'x', 'p')`;
    await sql`update item set b = 'q'`;
    const olds = (await takenOver(sql)).map(({ data }) => data['old']).filter((old) => old !== null);
    expect(olds).toEqual([
      { id: 1, a: 'x' },
      { id: 2, a: 'y' },
      { id: 3, a: 'z' },
      { id: 1, b: 'p' },
    ]);
  });

  test('truncate reaches fixed channels and those that the templates have made', async () => {
    await sql`create table item (id int primary key)`;
    await sql`select realtime.watch('item', array['items', 'item.{id}/x'])`;
    await sql`insert into item values (1), (2)`;
    await takenOver(sql);
    await sql`select realtime.send('item-1/x', '1')`;
    await sql`insert into item values (3)`;
    await sql`truncate item`;
    const seen = (await takenOver(sql)).filter(({ data }) => data['action'] === 'TRUNCATE');
    expect(seen.map(({ channel }) => channel).sort()).toEqual(['item.1/x', 'item.2/x', 'item.3/x', 'items']);
    expect(seen[0]!.data).toEqual(change('TRUNCATE', null, null) as never);
  });

  test('json columns with line breaks arrive on one line, unicode and large values unharmed', async () => {
    await sql`create table item (id int primary key, doc json, body text)`;
    await sql`select realtime.watch('item')`;
    const body = '"\\ ünï 日本 \u{1f600} \u2028 \t\r\n'.repeat(60_000);
    await sql`insert into item values (1, ${'{"a":\n 1,\r\n"b":"x\\ny"}'}::text::json, ${body})`;
    const text = (await relayed(sql)).rows[0]!.data;
    expect(text).not.toMatch(/[\r\n]/);
    const { data } = JSON.parse(text) as { data: { doc: unknown; body: string } };
    expect(data.doc).toEqual({ a: 1, b: 'x\ny' });
    expect(data.body).toBe(body);
  });

  test('types without an equality operator can change', async () => {
    await sql`create table item (id int primary key, j json, p point, x numeric)`;
    await sql`select realtime.watch('item')`;
    await sql`insert into item values (1, '{"a":1}', '(1,2)', 1.0)`;
    await takenOver(sql);
    await sql`update item set j = '{"a":2}'`;
    await sql`update item set p = '(1,3)'`;
    await sql`update item set x = 1.00`;
    expect((await takenOver(sql)).map(({ data }) => Object.keys(data['old'] as object))).toEqual([
      ['id', 'j'],
      ['id', 'p'],
      ['id', 'x'],
    ]);
  });
});

describe('statements of every kind', () => {
  test('insert on conflict do update, copy, and a statement that touches nothing', async () => {
    await sql`create table item (id int primary key, n int)`;
    await sql`select realtime.watch('item', array['item:{id}'])`;
    await sql`insert into item values (1, 1)`;
    await sql`insert into item values (1, 2), (2, 2) on conflict (id) do update set n = excluded.n`;
    await sql`update item set n = 0 where false`;
    const copy = await sql`copy item from stdin`.writable();
    await new Promise<void>((resolve, reject) => {
      copy.on('finish', resolve).on('error', reject);
      copy.end('3\t3\n4\t4\n');
    });
    const seen = (await takenOver(sql)).map(({ channel, data }) => `${channel} ${String(data['action'])}`);
    expect(seen.sort()).toEqual(['item:1 INSERT', 'item:1 UPDATE', 'item:2 INSERT', 'item:3 INSERT', 'item:4 INSERT']);
  });

  if (version >= 15) {
    test('merge', async () => {
      await sql`create table item (id int primary key, n int)`;
      await sql`select realtime.watch('item')`;
      await sql`insert into item values (1, 1), (2, 2)`;
      await takenOver(sql);
      await sql.unsafe(`merge into item i using (values (1), (2), (3)) v(id) on i.id = v.id
        when matched and v.id = 1 then delete when matched then update set n = 9
        when not matched then insert values (v.id, 7)`);
      const actions = (await takenOver(sql)).map(({ data }) => String(data['action']));
      expect(actions.toSorted()).toEqual(['DELETE', 'INSERT', 'UPDATE']);
    });
  }

  test('rows that go by a cascade', async () => {
    await sql`create table item (id int primary key)`;
    await sql`create table part (id int primary key, item int references item on delete cascade)`;
    await sql`select realtime.watch('part', array['part:{id}'])`;
    await sql`insert into item values (1), (2)`;
    await sql`insert into part values (1, 1), (2, 1), (3, 2)`;
    await takenOver(sql);
    await sql`delete from item`;
    expect((await takenOver(sql)).map(({ channel }) => channel).sort()).toEqual(['part:1', 'part:2', 'part:3']);
    await sql`drop table part`;
  });

  test('a partitioned table is watched whole; rows that move between partitions are updates', async () => {
    await sql`create table item (id int, region text, n int, primary key (id, region)) partition by list (region)`;
    await sql`create table item_a partition of item for values in ('a')`;
    await sql`create table item_b partition of item for values in ('b')`;
    await sql`select realtime.watch('item')`;
    await sql`insert into item values (1, 'a', 1), (2, 'b', 2)`;
    await sql`update item set region = 'b', n = 3 where id = 1`;
    await sql`delete from item where id = 2`;
    expect(await takenOver(sql)).toEqual([
      { channel: 'item', data: change('INSERT', { id: 1, region: 'a', n: 1 }, null) },
      { channel: 'item', data: change('INSERT', { id: 2, region: 'b', n: 2 }, null) },
      { channel: 'item', data: change('UPDATE', { id: 1, region: 'b', n: 3 }, { id: 1, region: 'a', n: 1 }) },
      { channel: 'item', data: change('DELETE', null, { id: 2, region: 'b', n: 2 }) },
    ] as never);
    const error = await rejection(sql`select realtime.watch('item_a')`);
    expect(error.message).toContain('is a partition');
    expect(error.hint).toContain('item');
  });
});

describe('transactions', () => {
  test('what rolls back, also to a savepoint, is not seen', async () => {
    await sql`create table item (id int primary key)`;
    await sql`select realtime.watch('item')`;
    await rejection(
      sql.begin(async (tx) => {
        await tx`insert into item values (1)`;
        throw new Error('roll back');
      }),
    );
    await sql.begin(async (tx) => {
      await tx`insert into item values (2)`;
      await rejection(
        tx.savepoint(async (sp) => {
          await sp`insert into item values (3)`;
          await sp`select 1 / 0`;
        }),
      );
      await tx`insert into item values (4)`;
    });
    expect((await takenOver(sql)).map(({ data }) => data['data'])).toEqual([{ id: 2 }, { id: 4 }]);
  });
});

describe('names', () => {
  test('odd names of schema, table and columns, with every sign that means something somewhere', async () => {
    await sql
      .unsafe(
        `create schema "Odd Place"; create table "Odd Place"."Ta'b""le %s $$" (
      "I d" int primary key, "per%s cent" text, "n" int, "o" int, "p" int, "data" text, "channel" text, "e" int)`,
      )
      .simple();
    const name = `"Odd Place"."Ta'b""le %s $$"`;
    await sql`select realtime.watch(${name}::text::regclass, array['odd', 'odd:{I d}:{per%s cent}'],
      array['I d', 'per%s cent', 'n', 'data', 'channel'])`;
    await sql.unsafe(`insert into ${name} values (1, 'x', 1, 2, 3, 'd', 'c', 4)`);
    await sql.unsafe(`update ${name} set n = 2`);
    await sql.unsafe(`delete from ${name}`);
    const row = { 'I d': 1, 'per%s cent': 'x', n: 1, data: 'd', channel: 'c' };
    const seen = await takenOver(sql);
    expect(seen.map(({ channel }) => channel)).toEqual(['odd', 'odd:1:x', 'odd', 'odd:1:x', 'odd', 'odd:1:x']);
    expect(seen[0]!.data).toEqual(change('INSERT', row, null, `Ta'b"le %s $$`, 'Odd Place') as never);
    expect(seen[2]!.data['old']).toEqual({ 'I d': 1, n: 1 });
    await sql.unsafe(`select realtime.watch('${name.replaceAll("'", "''")}', array['odd'])`);
    await sql.unsafe(`insert into ${name} values (1, 'x', 1, 2, 3, 'd', 'c', 4)`);
    expect(await takenOver(sql)).toHaveLength(1);
  });

  test('a date in a channel does not depend on how the writer prints dates', async () => {
    await sql`create table item (day date primary key)`;
    await sql`select realtime.watch('item', array['day:{day}'])`;
    await sql.begin(async (tx) => {
      await tx`set local datestyle = 'german'`;
      await tx`insert into item values ('2026-11-21')`;
    });
    expect((await takenOver(sql))[0]!.channel).toBe('day:2026-11-21');
  });

  test('a value is one part of a channel, whatever it holds', async () => {
    await sql`create table item (id text, at timestamptz, tags text[])`;
    await sql`select realtime.watch('item', array['i:{id}', '{at}', '{tags}'])`;
    await sql`insert into item values ('$system', null, null), ('a b', null, null), ('a:b/c%', null, null),
      ('ж', null, null), ('', '2026-11-21 12:00+02', '{a,"b c"}')`;
    const { rows } = await relayed(sql);
    expect(rows.map(({ channel }) => channel)).toEqual([
      'i:%24system',
      'i:a%20b',
      'i:a%3Ab/c%25',
      'i:%D0%B6',
      'i:',
      '2026-11-21%2010%3A00%3A00%2B00',
      '%7Ba%2C%22b%20c%22%7D',
    ]);
  });

  // A template over a column of such a collation made every insert and update of the table fail; and where patterns work,
  // a row that changes `Ab` to `aB` would have left no channel, as both are equal.
  test('a column whose collation takes different texts for equal ones', async () => {
    await sql.unsafe(
      `create collation if not exists alike (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
    );
    await sql`create table item (id int primary key, title text collate alike)`;
    await sql`select realtime.watch('item', array['items', 'of:{title}'])`;
    await sql`insert into item values (1, 'Ab c')`;
    await sql`update item set title = 'aB C' where id = 1`;
    await sql`update item set title = 'aB C' where id = 1`;
    await sql`delete from item`;
    expect((await takenOver(sql)).map(({ channel, data }) => `${data['action']} ${channel}`)).toEqual([
      'INSERT items',
      'INSERT of:Ab%20c',
      'UPDATE items',
      'DELETE of:Ab%20c',
      'INSERT of:aB%20C',
      'UPDATE items',
      'UPDATE of:aB%20C',
      'DELETE items',
      'DELETE of:aB%20C',
    ]);
    await sql`select realtime.send('a:' || realtime.part('B c' collate alike), '1')`;
    expect((await takenOver(sql)).map(({ channel }) => channel)).toEqual(['a:B%20c']);
  });

  test('values that make no channel are dropped and counted, and the writer does not notice', async () => {
    await sql`create table item (id text)`;
    await sql`select realtime.watch('item', array['{id}'])`;
    await sql`insert into item values (''), (${'x'.repeat(257)}), (${'ж'.repeat(100)}), ('fine'),
      (${'y'.repeat(5_000_000)})`;
    const { rows, dropped } = await relayed(sql);
    expect(rows.map(({ channel }) => channel)).toEqual(['fine']);
    expect(dropped).toBe(4);
  });
});

describe('what is refused', () => {
  const bad: [string, string, string][] = [
    ['an unknown column in a template', `array['a:{nope}']`, 'names column "nope"'],
    ['an unknown column in the list', `null, array['id', 'nope']`, 'names column "nope"'],
    ['a brace that is not closed', `array['a:{id']`, 'unbalanced or empty braces'],
    ['a brace that was not opened', `array['a:id}']`, 'unbalanced or empty braces'],
    ['empty braces', `array['a:{}']`, 'unbalanced or empty braces'],
    ['nested braces', `array['a:{{id}}']`, 'unbalanced or empty braces'],
    ['a space', `array['a b']`, 'is not a channel template'],
    ['a server channel', `array['$system']`, 'is not a channel template'],
    ['an empty template', `array['']`, 'is empty'],
    ['an empty list', `'{}'`, '1 to 32 channel templates'],
    ['a null template', `array['a', null]`, 'NULL or given twice'],
    ['a template twice', `array['a', 'a']`, 'NULL or given twice'],
    ['an empty list of columns', `null, '{}'`, 'list of columns is empty'],
  ];
  test.each(bad)('%s', async (_name, given, message) => {
    await sql`create table item (id int primary key)`;
    const error = await rejection(sql.unsafe(`select realtime.watch('item', ${given})`));
    expect(error.message).toContain(message);
  });

  test('views, system tables, the tables of this schema, temporary tables', async () => {
    await sql`create or replace view seen as select 1 as id`;
    for (const name of ['seen', 'pg_class', 'realtime.outbox']) {
      expect((await rejection(sql`select realtime.watch(${name}::text::regclass)`)).message).toContain(
        'realtime.watch:',
      );
    }
    const error = await rejection(
      sql.begin(async (tx) => {
        await tx`create temp table passing (id int)`;
        await tx`select realtime.watch('passing')`;
      }),
    );
    expect(error.message).toContain('cannot be watched');
  });
});

describe('the table changes', () => {
  const captures = async (): Promise<number> => {
    const [row] = await sql`select count(*)::int as n from pg_proc where proname like 'capture\_%'
      and pronamespace = 'realtime'::regnamespace and prorettype = 'trigger'::regtype`;
    return row!['n'] as number;
  };

  test('watching again replaces, unwatching ends, and neither leaves a function behind', async () => {
    await sql`create table item (id int primary key)`;
    await sql`select realtime.unwatch('item')`;
    // What earlier tests have dropped.
    await sql`select realtime.renew_captures(false)`;
    const before = await captures();
    await sql`select realtime.watch('item', array['one'])`;
    await sql`insert into item values (1)`;
    await sql`select realtime.watch('item', array['two'])`;
    await sql`insert into item values (2)`;
    expect((await takenOver(sql)).map(({ channel }) => channel)).toEqual(['one', 'two']);
    expect(await captures()).toBe(before + 1);
    await sql`select realtime.unwatch('item')`;
    await sql`insert into item values (3)`;
    expect(await takenOver(sql)).toEqual([]);
    expect(await captures()).toBe(before);
    await sql`select realtime.watch('item')`;
    await sql`drop table item`;
    await sql`create table item (id int primary key)`;
    await sql`select realtime.watch('item')`;
    expect(await captures()).toBe(before + 1);
  });

  // Up to PostgreSQL 13 this query failed until the server had noticed that the table is gone: the condition is evaluated
  // before the view looks whether the table exists.
  test('a dropped table is not among the faulty watches', async () => {
    await sql`create table item (id int primary key)`;
    await sql`select realtime.watch('item')`;
    await sql`drop table item`;
    const faulty: object[] = await sql`select * from realtime.watches where fault is not null`;
    expect(faulty).toEqual([]);
    const renewals: object[] = await sql`select realtime.renew_captures(false) as renewed`;
    expect(renewals).toEqual([{ renewed: 0 }]);
  });

  // It ended the watch without a word, where on a table that is not watched it is refused.
  test('watching again without a channel is refused, and the watch stays', async () => {
    await sql`create table item (id int primary key)`;
    await sql`select realtime.watch('item')`;
    const none = () => rejection(sql`select realtime.watch('item', '{}')`);
    expect(await none()).toMatchObject({ code: '22023', message: expect.stringContaining('0 given') as string });
    await sql`insert into item values (1)`;
    expect(await takenOver(sql)).toHaveLength(1);
    await sql`select realtime.unwatch('item')`;
    expect((await none()).message).toContain('0 given');
  });

  test('a watch that rolls back has not been', async () => {
    await sql`create table item (id int primary key)`;
    await rejection(
      sql.begin(async (tx) => {
        await tx`select realtime.watch('item')`;
        throw new Error('roll back');
      }),
    );
    await sql`insert into item values (1)`;
    expect(await takenOver(sql)).toEqual([]);
  });

  test('columns come, go and change their names, in sessions that wrote before', async () => {
    await sql`create table item (id int primary key, title text, gone text)`;
    await sql`select realtime.watch('item', array['item:{id}'])`;
    const writer = await sql.reserve();
    try {
      const insert = (id: number): Promise<unknown> => writer.unsafe(`insert into item (id) values (${id})`).simple();
      const touch = (): Promise<unknown> => writer.unsafe('update item set id = id where id = 1').simple();
      await insert(1);
      await touch();
      await sql`alter table item add column fresh int default 7`;
      await insert(2);
      await touch();
      await sql`alter table item drop column gone`;
      await sql`alter table item rename column title to headline`;
      await insert(3);
      await touch();
      const rows = (await takenOver(sql)).map(({ data }) => data['data']);
      expect(rows[2]).toEqual({ id: 2, title: null, gone: null, fresh: 7 });
      expect(rows[4]).toEqual({ id: 3, headline: null, fresh: 7 });
      await sql`alter table item drop constraint item_pkey`;
      await writer.unsafe('update item set fresh = 8 where id = 1').simple();
      expect((await takenOver(sql))[0]!.data['old']).toEqual({ id: 1, headline: null, fresh: 7 });
    } finally {
      writer.release();
    }
  });

  // A column that a list or a template named used to stop all writes once it was gone.
  test('a column that a template or the list names goes: writers go on, and it is told once', async () => {
    await sql`create table item (id int primary key, room text, body text)`;
    await sql`select realtime.watch('item', array['items', 'room:{room}'], array['id', 'body'])`;
    await sql`insert into item values (1, 'a', 'x')`;
    await takenOver(sql);
    await sql`alter table item rename column room to place`;
    await sql`alter table item drop column body`;
    const fault = 'the channel template "room:{room}" names column "room", which is gone; column "body" is gone';
    const watches = async (): Promise<unknown[]> =>
      (
        await sql`select channels, fault, fault_count::int as count from realtime.watches where "table" = 'item'::regclass`
      ).slice();
    for (const renewed of [false, true]) {
      await sql`insert into item values (2, 'b')`;
      await sql`update item set id = 3 where id = 2`;
      await sql`delete from item where id = 3`;
      const seen = (await takenOver(sql)).filter(({ channel }) => channel === 'items');
      expect(seen.map(({ data }) => data['action'])).toEqual(['INSERT', 'UPDATE', 'DELETE']);
      expect(seen[0]!.data['data']).toEqual({ id: 2 });
      if (!renewed) await sql`select realtime.renew_captures(false)`;
    }
    expect(await watches()).toEqual([{ channels: ['items', 'room:{room}'], fault, count: 1 }]);
    await sql`select realtime.watch('item', array['items', 'room:{place}'])`;
    await sql`insert into item values (4, 'd')`;
    expect((await takenOver(sql)).map(({ channel }) => channel)).toEqual(['items', 'room:d']);
    expect(await watches()).toMatchObject([{ fault: null }]);
  });

  // No statement could be written for such a table, and that kept all other watches from being renewed, and servers from
  // starting.
  test('the last column of a list goes, then that of the table', async () => {
    const renew = (): Promise<unknown> => sql`select realtime.renew_captures(true)`;
    await sql`create table item (id int primary key, title text)`;
    await sql`select realtime.watch('item', null, array['title'])`;
    await sql`insert into item values (1, 'a')`;
    await sql`alter table item drop column title`;
    await sql`update item set id = 2`;
    await renew();
    await sql`update item set id = 3`;
    await sql`alter table item drop column id`;
    await sql`insert into item default values`;
    await renew();
    await sql`insert into item default values`;
    await sql`delete from item`;
    const seen = (await takenOver(sql)).map(({ data }) => data);
    const emptied = [change('UPDATE', {}, {}), change('UPDATE', {}, {}), change('INSERT', {}, null)];
    const deleted = [1, 2, 3].map(() => change('DELETE', null, {}));
    expect(seen).toEqual([change('INSERT', { title: 'a' }, null), ...emptied, emptied[2]!, ...deleted] as never);
  });

  test('a watch that cannot be renewed does not keep another from it', async () => {
    await sql`create table item (id int primary key)`;
    await sql`create table beside (id int primary key)`;
    await sql`select realtime.watch('item'), realtime.watch('beside')`;
    await sql`alter table item add column a text`;
    await sql`alter table beside add column a text`;
    const faults = async (): Promise<unknown[]> =>
      (
        await sql`select fault from realtime.watches where "table"::text in ('item', 'beside') order by "table"::text`
      ).map((row) => row['fault'] as unknown);
    await superuser.unsafe(`
      create function refuse() returns event_trigger language plpgsql as $$
      declare first int := (select number from realtime.watched where target = 'public.item'::regclass);
      begin
        if exists (select from pg_event_trigger_ddl_commands() where object_identity = 'realtime.capture_' || first || '()')
        then raise exception 'not today'; end if;
      end $$;
      create event trigger refuse on ddl_command_end when tag in ('CREATE FUNCTION') execute function refuse()`);
    try {
      await sql`select realtime.renew_captures(false)`;
      expect(await faults()).toEqual([null, expect.stringContaining('not today') as unknown]);
      await sql`insert into item values (1, 'x')`;
    } finally {
      await superuser.unsafe('drop event trigger refuse; drop function refuse()');
    }
    await sql`select realtime.renew_captures(false)`;
    expect(await faults()).toEqual([null, null]);
    expect((await takenOver(sql)).map(({ data }) => data)).toEqual([
      change('INSERT', { id: 1, a: 'x' }, null),
    ] as never);
    await sql`drop table beside`;
  });

  // A session that quotes all names found the table altered at each of its statements, which cost milliseconds.
  test('what a session has set alters no table', async () => {
    const virtual = version < 18 ? '' : `, d date generated always as (case when id > 0 then date '2024-02-01' end)`;
    await sql.unsafe(`create table item (id int primary key${virtual})`);
    await sql.begin(async (tx) => {
      await tx`set local datestyle = 'SQL, DMY'`;
      await tx`select realtime.watch('item')`;
      await tx`insert into item values (1)`;
    });
    const date = version < 18 ? {} : { d: '2024-02-01' };
    expect(await takenOver(sql)).toEqual([
      { channel: 'item', data: change('INSERT', { id: 1, ...date }, null) },
    ] as never);
    const settings = ['quote_all_identifiers = on', `datestyle = 'German'`, `timezone = 'Asia/Kolkata'`];
    const shapes = await sql.begin(async (tx) => {
      for (const setting of settings) await tx.unsafe(`set local ${setting}`);
      return await tx`select fault from realtime.watches where "table" = 'item'::regclass`;
    });
    expect([...shapes]).toEqual([{ fault: null }]);
  });

  test('a renamed table goes on under its new name, in the channels that were given', async () => {
    await sql`create table item (id int primary key)`;
    await sql`select realtime.watch('item')`;
    await sql`insert into item values (1)`;
    await sql`alter table item rename to thing`;
    await sql`insert into thing values (2)`;
    const [, second] = await takenOver(sql);
    expect(second).toEqual({ channel: 'item', data: change('INSERT', { id: 2 }, null, 'thing') } as never);
    await sql`drop table thing`;
  });
});

test('the demo tables are there and watched', async () => {
  await sql`insert into posts (title) values ('x')`;
  await sql`insert into notifications (user_id, title) values ('ann', 'x')`;
  await sql`insert into messages (room, body) values ('lobby', 'x')`;
  expect((await takenOver(sql)).map(({ channel }) => channel)).toEqual(['posts', 'posts:1', 'user:ann', 'chat:lobby']);
});
