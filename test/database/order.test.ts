// Small statements whose changes were once told wrongly, or not at all: triggers of the application that change the row
// again, rows that a statement moves, and values that no parser takes. The right value is what the table says.

import { afterAll, beforeEach, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { createDatabase, startCluster } from '../support/postgres.ts';
import { migrate } from '../../src/database/migrate.ts';
import { takenOver, until } from './support.ts';

const created = await createDatabase({ migrated: true });
const sql = postgres(created.url, { max: 1, onnotice: () => undefined });
const [row] = await sql`select current_setting('server_version_num')::int / 10000 as version`;
const version = row!['version'] as number;

afterAll(async () => {
  await sql.end({ timeout: 1 });
  await created.drop();
});

beforeEach(async () => {
  await sql.unsafe(`drop schema if exists shop cascade; create schema shop; set search_path = shop; reset all;
    set search_path = shop`);
  await takenOver(sql);
});

/** What a subscriber of the whole table gets: the action, then the row after, or before where it is gone. */
async function told(channel = 'item'): Promise<string[]> {
  const seen = (await takenOver(sql)).filter((message) => message.channel === channel);
  return seen.map(({ data }) =>
    data['gap'] === true
      ? 'gap'
      : `${String(data['action'])} ${Object.values(data['data'] ?? data['old'] ?? {}).join(' ')}`.trim(),
  );
}

const trigger = (name: string, event: string, body: string, level = 'row'): string => `
  create function ${name}() returns trigger language plpgsql as $$ begin ${body} end $$;
  create trigger ${name} ${event} on item for each ${level} execute function ${name}();`;

const again = `if pg_trigger_depth() = 1 then update item set b = 'again' where a = new.a; end if; return null;`;

test.each([
  ['with a key', 'a int primary key, b text'],
  // All rows of such a table had one and the same key, and what its triggers did came first.
  ['without a key', 'a int, b text'],
])('a table %s: a trigger that changes the row again', async (_name, columns) => {
  await sql.unsafe(`create table item (${columns}); ${trigger('a_again', 'after insert or update', again)}`);
  await sql`select realtime.watch('item')`;
  await sql`insert into item values (1, 'x'), (2, 'y')`;
  expect(await told()).toEqual(['INSERT 1 x', 'UPDATE 1 again', 'INSERT 2 y', 'UPDATE 2 again']);
});

test('a trigger that deletes what was inserted, beside one that runs before and is no part of it', async () => {
  await sql.unsafe(`create table item (a int primary key, b text);
    ${trigger('gone', 'after insert', 'delete from item where a = new.a; return null;')}`);
  await sql`select realtime.watch('item')`;
  await sql`insert into item values (1, 'x')`;
  expect(await told()).toEqual(['INSERT 1 x', 'DELETE 1 x']);
  // Now the row could as well have been replaced by one that looks the same: whoever subscribes looks anew.
  await sql.unsafe(trigger('stamp', 'before insert or update', 'return new;'));
  await sql`insert into item values (2, 'y')`;
  expect((await told()).at(-1)).toBe('gap');
});

test('a statement that deletes a row and inserts it again', async () => {
  await sql.unsafe(`create table item (a int primary key, b text);
    ${trigger('quiet', 'after insert', 'return null;')}`);
  await sql`select realtime.watch('item')`;
  await sql`insert into item values (1, 'x')`;
  await sql`with d as (delete from item returning *) insert into item select * from d`;
  expect(await told()).toEqual(['INSERT 1 x', 'DELETE 1 x', 'INSERT 1 x']);
});

// The trigger's update, which changed nothing, made the delete look like one of the inserted row.
test('a statement that deletes a row and inserts it again, with a trigger that updates it to what it is', async () => {
  await sql.unsafe(`create table item (a int primary key, b text)`);
  await sql`select realtime.watch('item')`;
  await sql`insert into item values (1, 'x')`;
  await told();
  await sql.unsafe(trigger('same', 'after insert', `update item set b = 'x' where a = new.a; return null;`));
  await sql`with d as (delete from item returning *) insert into item select * from d`;
  expect(await told()).toEqual(['UPDATE 1 x', 'DELETE 1 x', 'INSERT 1 x']);
});

// Nobody knows whether the first one went or came last. The second was put behind it, and so behind its own update.
test('a statement of two rows, of which one leaves a doubt and a trigger changes the other', async () => {
  await sql.unsafe(`create table item (a int primary key, b text);
    ${trigger('stamp', 'before insert', 'return new;')}
    ${trigger('other', 'after insert', `update item set b = 'z' where a = new.a and b = 'y'; return null;`)}
    ${trigger('gone', 'after insert', `delete from item where b = 'x'; return null;`, 'statement')}`);
  await sql`select realtime.watch('item', array['item:{a}'])`;
  await sql`insert into item values (1, 'x'), (2, 'y')`;
  const seen = await takenOver(sql);
  const of = (channel: string): unknown[] =>
    seen.filter((message) => message.channel === channel).map(({ data }) => data['action'] ?? 'gap');
  expect(of('item:1').at(-1)).toBe('gap');
  expect(of('item:2')).toEqual(['INSERT', 'UPDATE']);
});

test('rows that go by a cascade, which a trigger before the statement has changed', async () => {
  await sql.unsafe(`create table item (a int primary key, b text, up int references item on delete cascade);
    ${trigger('touch', 'before delete', `if pg_trigger_depth() < 3 then update item set b = b || '!' where a = 3; end if; return null;`, 'statement')}`);
  await sql`select realtime.watch('item')`;
  await sql`insert into item values (1, 'x', null), (2, 'y', 1), (3, 'z', 2)`;
  await told();
  await sql`delete from item where a = 1`;
  const seen = await told();
  expect(seen.filter((change) => change.includes(' 3 ')).at(-1)).toStartWith('DELETE 3 z!');
  expect(seen.filter((change) => change.startsWith('DELETE'))).toHaveLength(3);
});

// It took a row that looked the same for the one that it had just told: a statement that inserts a row anew came before
// the trigger that had deleted it.
test.each([
  [
    'deleted before, by a trigger of the statement that inserts it again',
    trigger('anew', 'before insert', 'delete from item where a = new.a; return new;'),
    `insert into item values (1, 'x')`,
    ['DELETE 1 x', 'INSERT 1 x'],
  ],
  [
    'changed back',
    trigger(
      'a_back',
      'after update',
      `if pg_trigger_depth() = 1 then update item set b = old.b; update item set b = new.b; end if; return null;`,
    ),
    `update item set b = 'y'`,
    ['UPDATE 1 y', 'UPDATE 1 x', 'UPDATE 1 y'],
  ],
  [
    'whose key another row takes',
    trigger(
      'a_heir',
      'after update',
      `if pg_trigger_depth() = 1 then insert into item values (old.a, 'z'); end if; return null;`,
    ),
    `update item set a = 2`,
    ['UPDATE 2 x', 'INSERT 1 z'],
  ],
  [
    'that gets another key, by which it is changed again',
    trigger(
      'a_on',
      'after update',
      `if pg_trigger_depth() = 1 then update item set a = 3; update item set b = 'w' where a = 3; end if; return null;`,
    ),
    `update item set b = 'y'`,
    ['UPDATE 1 y', 'UPDATE 3 y', 'UPDATE 3 w'],
  ],
])('the row trigger: a row %s', async (_name, more, statement, changes) => {
  await sql.unsafe(`create table item (a int primary key, b text); create trigger own after insert or update or delete
    on item for each row execute function public.notify_realtime_event(); insert into item values (1, 'x')`);
  await told();
  await sql.unsafe(more);
  await sql.unsafe(statement);
  expect(await told()).toEqual(changes);
});

// What an earlier statement's triggers did to the row was before this one, which replaced their version of it.
test.each([
  ['deletes the row', `delete from item where a = 1`, ['DELETE 1 again']],
  ['gives it another key', `update item set a = 5 where a = 1`, ['UPDATE 5 again']],
  [
    'swaps it',
    `delete from item where a = 1; insert into item values (1, 'z')`,
    ['DELETE 1 again', 'INSERT 1 z', 'UPDATE 1 again'],
  ],
])('the row trigger: a later statement of the transaction %s', async (_name, statement, changes) => {
  await sql.unsafe(`create table item (a int primary key, b text);
    ${trigger('a_again', 'after insert', again)}
    create trigger own after insert or update or delete on item for each row
      execute function public.notify_realtime_event()`);
  for (const isolation of ['read committed', 'serializable']) {
    await sql.unsafe(`begin isolation level ${isolation}; insert into item values (1, 'x'); ${statement}; commit`);
    expect(await told()).toEqual(['INSERT 1 x', 'UPDATE 1 again', ...changes]);
    await sql`delete from item`;
    await told();
  }
});

const captures: readonly (readonly [string, string])[] = [
  ['realtime.watch', `select realtime.watch('item')`],
  [
    'the row trigger',
    `create trigger told after insert or update or delete on item for each row
      execute function public.notify_realtime_event()`,
  ],
];

test.each(captures)('%s: triggers three deep, of which one gives the row another key', async (_name, capture) => {
  await sql.unsafe(`create table item (a int primary key, b text);
    ${trigger(
      'a_on',
      'after insert or update',
      `if pg_trigger_depth() = 1 then update item set a = a + 1 where a = new.a;
      elsif pg_trigger_depth() = 2 then update item set b = 'done' where a = new.a; end if; return null;`,
    )} ${capture}`);
  for (const [n, isolation] of ['read committed', 'repeatable read', 'serializable'].entries()) {
    const a = n * 10;
    await sql.unsafe(`begin isolation level ${isolation}; insert into item values (${a}, 'x'); commit`);
    expect(await told()).toEqual([`INSERT ${a} x`, `UPDATE ${a + 1} x`, `UPDATE ${a + 1} done`]);
  }
});

test.each(captures)(
  '%s: rows of another table with the same keys are no versions of the row',
  async (_name, capture) => {
    await sql.unsafe(`create table item (a int primary key, b text); create table side (a int primary key, b text);
    ${trigger('a_side', 'after insert', `insert into side values (new.a, new.b), (-new.a, new.b); return null;`)}
    ${trigger('b_again', 'after insert', again)} ${capture}; ${capture.replaceAll('item', 'side')}`);
    await sql`insert into item values (1, 'x'), (2, 'x')`;
    // The row trigger runs for one row after the other.
    const seen = (await told()).toSorted((a, b) => Number(a.split(' ')[1]) - Number(b.split(' ')[1]));
    expect(seen).toEqual(['INSERT 1 x', 'UPDATE 1 again', 'INSERT 2 x', 'UPDATE 2 again']);
  },
);

test('a table that is filled again by a trigger of its TRUNCATE', async () => {
  await sql.unsafe(`create table item (a int primary key, b text);
    ${trigger('a_fill', 'after truncate', `insert into item values (1, 'first'); return null;`, 'statement')}
    select realtime.watch('item')`);
  await sql`truncate item`;
  expect(await told()).toEqual(['TRUNCATE', 'INSERT 1 first']);
});

test('the row trigger: a json value that no parser takes is told as it was written', async () => {
  await sql.unsafe(`create table item (a int primary key, b json, c int);
    ${trigger('a_on', 'after insert', `if pg_trigger_depth() = 1 then update item set c = 2 where a = new.a; end if; return null;`)}
    ${captures[1]![1]}`);
  await sql.unsafe(`insert into item values (1, '{"nul": "\\u0000"}', 1)`);
  const seen = await takenOver(sql);
  expect(seen.map(({ data }) => JSON.stringify([data['action'], data['data'], data['old']]))).toEqual([
    '["INSERT",{"a":1,"b":{"nul":"\\u0000"},"c":1},null]',
    '["UPDATE",{"a":1,"b":{"nul":"\\u0000"},"c":2},{"a":1,"c":1}]',
  ]);
});

test('the row trigger: a key that was renamed after the snapshot was taken is a gap', async () => {
  await sql.unsafe(`create table item (a int primary key, b text); insert into item values (1, 'x'), (2, 'x');
    ${captures[1]![1]}; create table other (a int);
    create function pass() returns trigger language plpgsql as
      $$ begin update item set b = 'z' where b = 'y'; return null; end $$;
    create trigger pass after insert on other for each row execute function pass()`);
  const late = postgres(created.url, { max: 1, onnotice: () => undefined });
  await late.unsafe(`set search_path = shop; begin isolation level repeatable read; select 1`).simple();
  await sql`alter table item rename a to id`;
  await late`update item set b = 'y' where id = 1`;
  await late`insert into other values (1)`;
  await late`commit`;
  await late.end();
  expect(await told()).toEqual(['gap', 'gap']);
});

// The search for what came later ended at the first change that was no deeper. That one may be a row of the same statement.
test.each([
  [
    'rows hand their keys on, and a trigger takes the one that is left',
    'a int primary key, b text',
    `insert into item values (2, 'y'), (1, 'x')`,
    trigger('a_new', 'after update', `if new.a = 3 then insert into item values (1, 'z'); end if; return null;`),
    `update item set a = a + 1`,
    ['UPDATE 3 y', 'UPDATE 2 x', 'INSERT 1 z'],
  ],
  [
    'rows without a key come to look the same, and a trigger changes the second',
    'a int, b text',
    `insert into item values (1, 'x'), (2, 'y')`,
    trigger(
      'a_last',
      'after update',
      `if pg_trigger_depth() = 1 and old.a = 1 then update item set b = 'w' where ctid = (select max(ctid) from item); end if; return null;`,
    ),
    `update item set a = 9, b = 'z'`,
    ['UPDATE 9 z', 'UPDATE 9 z', 'UPDATE 9 w'],
  ],
  // The places of rows come again after it, and an insert was put before the update of an earlier row at its place.
  [
    'the table is truncated in between',
    'a int primary key, b text',
    '',
    trigger('a_fill', 'after insert', `update item set b = 'f' where b is null; return null;`),
    `begin; insert into item values (1); truncate item; insert into item values (1); truncate item;
      insert into item values (1, 'x'); commit`,
    ['INSERT 1', 'UPDATE 1 f', 'TRUNCATE', 'INSERT 1', 'UPDATE 1 f', 'TRUNCATE', 'INSERT 1 x'],
  ],
])('the row trigger: %s', async (_name, columns, filled, more, statement, changes) => {
  await sql.unsafe(`create table item (${columns}); create trigger own after insert or update or delete on item
    for each row execute function public.notify_realtime_event(); create trigger own_all after truncate on item
    execute function public.notify_realtime_event(); ${filled}`);
  await told();
  await sql.unsafe(more);
  await sql.unsafe(statement);
  expect(await told()).toEqual(changes);
});

// A watch moved what the row trigger had captured, which the row trigger then did not find.
test.each(['read committed', 'serializable'])(
  '%s: a table with the row trigger whose triggers change it again through a watched one',
  async (isolation) => {
    await sql.unsafe(`create table item (a int primary key, b text); create table side (a int primary key, b text);
      create trigger own after insert or update on item for each row execute function public.notify_realtime_event();
      select realtime.watch('side'); insert into side values (1, 'one');
      create function back() returns trigger language plpgsql as $$ begin if new.b = 'two' then
        update side set b = 'three' where a = 1; update item set b = 'again' where a = 1; end if; return null; end $$;
      create trigger a_back after update on side for each row execute function back();
      ${trigger('a_side', 'after insert', `update side set b = 'two' where a = 1; return null;`)}`);
    await told();
    await sql.unsafe(`begin isolation level ${isolation}; insert into item values (1, 'x'); commit`);
    const seen = await takenOver(sql);
    const of = (channel: string): unknown[] =>
      seen.filter((each) => each.channel === channel).map(({ data }) => (data['data'] as { b: string }).b);
    expect(of('item')).toEqual(['x', 'again']);
    expect(of('side')).toEqual(['two', 'three']);
  },
);

// It runs after each row of a statement, at the end; it does not know where the statement began.
test('the row trigger: what a function changes that the statement calls comes first', async () => {
  await sql.unsafe(`create table item (a int primary key, b text); create trigger own after insert or update or delete
    on item for each row execute function public.notify_realtime_event(); insert into item values (1, 'x'), (2, 'x');
    create function other(n int) returns text language plpgsql as
      $$ begin update item set b = 'again' where a = n - 1; return 'y'; end $$`);
  await told();
  await sql`update item set b = other(a)`;
  expect(await told()).toEqual(['UPDATE 1 again', 'UPDATE 1 y', 'UPDATE 2 y']);
  await sql`drop trigger own on item`;
  await sql`select realtime.watch('item')`;
  await sql`update item set b = 'x'`;
  await told();
  await sql`update item set b = other(a)`;
  expect(await told()).toEqual(['UPDATE 1 y', 'UPDATE 1 again', 'UPDATE 2 y']);
});

// The first statement of a transaction notes no place at which it began: whatever came before must say so.
test.each([
  ['nothing', '', []],
  ['what realtime.send published', `select realtime.send('item', '{"action": "sent"}')`, ['sent']],
  ['another statement', `insert into other values (1)`, ['INSERT 1']],
  [
    'two statements',
    `insert into other values (1), (2); delete from other where a = 1`,
    ['INSERT 1', 'INSERT 2', 'DELETE 1'],
  ],
  ['a row trigger', `insert into noted values (1)`, ['INSERT 1']],
  ['a statement that changed nothing', `delete from other`, []],
  ['one that was rolled back', `savepoint s; insert into other values (1); rollback to s`, []],
  ['one on its own row', `insert into item values (1, 'w')`, ['INSERT 1 w', 'UPDATE 1 again']],
])('a transaction: %s before a statement whose triggers change its rows', async (_name, before, first) => {
  await sql.unsafe(`create table item (a int primary key, b text); create table other (a int); create table noted (a int);
    ${trigger('a_again', 'after insert or update', again)}
    create trigger own after insert on noted for each row execute function public.notify_realtime_event()`);
  await sql`select realtime.watch('item'), realtime.watch('other', array['item'])`;
  const upsert = (b: string): string => `insert into item values (1, '${b}') on conflict (a) do update set b = '${b}'`;
  await sql.unsafe(`begin; ${before}; ${upsert('x')}; ${upsert('y')}; update item set b = 'z'; commit`);
  const seen = (await takenOver(sql)).map(
    ({ data }) => `${String(data['action'])} ${Object.values(data['data'] ?? data['old'] ?? {}).join(' ')}`,
  );
  expect(seen.map((change) => change.trim())).toEqual([
    ...first,
    ...(before.includes('item values') ? ['UPDATE 1 x'] : ['INSERT 1 x']),
    ...['UPDATE 1 again', 'UPDATE 1 y', 'UPDATE 1 again', 'UPDATE 1 z', 'UPDATE 1 again'],
  ]);
});

// What a statement notes of its beginning is a setting of the session. Without it, what came before was put behind a later
// statement, and what a trigger did before its own statement.
describe('a session that resets its settings in a transaction', () => {
  test('between two statements', async () => {
    await sql.unsafe(`create table item (a int primary key, b text); select realtime.watch('item');
      ${trigger('a_again', 'after update', again)}`);
    await sql.unsafe(`begin; insert into item values (1, 'x'); reset all; set search_path = shop;
      update item set b = 'y'; commit`);
    expect(await told()).toEqual(['INSERT 1 x', 'UPDATE 1 y', 'UPDATE 1 again']);
  });

  test.each([
    ['behind what it changes', `${again.replace(' return null;', '')} reset all; return null;`],
    ['before what it changes', `reset all; ${again.replaceAll('item', 'shop.item')}`],
  ])('in a trigger, %s: a gap, as nobody knows what came first', async (_name, body) => {
    await sql.unsafe(`create table item (a int primary key, b text); select realtime.watch('item');
      ${trigger('a_again', 'after insert or update', body)}`);
    await sql`insert into item values (1, 'x')`;
    expect((await told()).at(-1)).toBe('gap');
    await sql.unsafe(`set search_path = shop; update item set b = 'y'`);
    expect((await told()).at(-1)).toBe('gap');
    const [watch] = await sql`select last_reason from realtime.watches where "table" = 'shop.item'::regclass`;
    expect(watch!['last_reason']).toContain('settings of the session were reset');
  });

  test('in a trigger that changes other rows: nothing is in doubt', async () => {
    await sql.unsafe(`create table item (a int primary key, b text); select realtime.watch('item');
      ${trigger('a_other', 'after insert', 'if new.a = 1 then insert into item values (2, new.b); reset all; end if; return null;')}`);
    await sql`insert into item values (1, 'x')`;
    expect(await told()).toEqual(['INSERT 2 x', 'INSERT 1 x']);
  });
});

// Writers that read the outbox were in conflict with all who wrote to it: four of five transactions failed.
describe('serializable transactions', () => {
  const triggers: [string, string][] = [
    ['realtime.watch', `select realtime.watch('item')`],
    [
      'a trigger of its own',
      `create trigger z_own after insert or update on item for each row execute function public.notify_realtime_event()`,
    ],
  ];

  test.each(triggers)(
    '%s: of two at once none fails for the other, and each row has its order',
    async (_name, watch) => {
      await sql.unsafe(`create table item (a int primary key, b text) with (fillfactor = 10);
      insert into item select n, 'old' from generate_series(1, 5000) n;
      ${trigger('a_again', 'after insert or update', again)} ${watch}`);
      await told();
      const sessions = [0, 1].map(() => postgres(created.url, { max: 1, onnotice: () => undefined }));
      const both = async (text: (n: number) => string): Promise<void> => {
        // One after the other, so that each statement meets what the other session wrote before.
        for (const [n, session] of sessions.entries()) await session.unsafe(text(n)).simple();
      };
      await both(() => `set search_path = shop; set enable_seqscan = off; begin isolation level serializable`);
      for (const b of ['x', 'y']) await both((n) => `update item set b = '${b}' where a = ${n === 0 ? 1 : 4000}`);
      await both((n) => `insert into item values (${n + 6000}, 'x') on conflict (a) do update set b = 'never'`);
      await both(() => 'commit');
      await Promise.all(sessions.map((session) => session.end()));
      const seen = await told();
      for (const n of [0, 1]) {
        const key = String(n === 0 ? 1 : 4000);
        expect(seen.filter((change) => change.split(' ')[1] === key)).toEqual(
          ['x', 'again', 'y', 'again'].map((b) => `UPDATE ${key} ${b}`),
        );
        const added = String(n + 6000);
        expect(seen.filter((change) => change.split(' ')[1] === added)).toEqual([
          `INSERT ${added} x`,
          `UPDATE ${added} again`,
        ]);
      }
      expect(await sql`select from realtime.unordered`).toHaveLength(0);
    },
  );

  test('a row that another transaction changes next: its changes come behind', async () => {
    await sql.unsafe(`create table item (a int primary key, b text); select realtime.watch('item');
      ${trigger('a_again', 'after insert or update', again)}`);
    await sql.unsafe(
      `begin isolation level serializable; insert into item values (1, 'x'); commit; update item set b = 'y'`,
    );
    expect(await told()).toEqual(['INSERT 1 x', 'UPDATE 1 again', 'UPDATE 1 y', 'UPDATE 1 again']);
  });
});

// What cannot be put in order once can never be: it stood before all that came later.
test('what the relay cannot put in order is a gap of its channels, and nothing else waits for it', async () => {
  const other = await createDatabase({ migrated: true });
  const owner = postgres(other.url, { max: 1, onnotice: () => undefined });
  try {
    await owner.unsafe(`create table item (a int primary key, b text); create table own (a int primary key, b text);
      create function again() returns trigger language plpgsql as $$ begin
        if pg_trigger_depth() = 1 then execute format('update %s set b = ''again'' where a = $1', tg_relid::regclass) using new.a;
        end if; return null; end $$;
      create trigger a_again after insert on item for each row execute function again();
      create trigger a_again after insert on own for each row execute function again();
      create trigger b_told after insert or update on own for each row execute function public.notify_realtime_event();
      select realtime.watch('item');
      create or replace function realtime.reorder_row(xid xid8, began pg_lsn, own text[] default null) returns void
        language plpgsql as $$ begin
          if own is null then raise 'not today'; end if;
          insert into realtime.unordered (xid, ended, began) values (xid, pg_current_wal_insert_lsn(), began);
        end $$`);
    const write = (a: number): string => `begin isolation level serializable;
      insert into item values (${a}, 'x'); insert into own values (${a}, 'x'); commit`;
    await owner.unsafe(write(1)).simple();
    await owner.unsafe(write(2)).simple();
    const seen = await takenOver(owner);
    const of = (channel: string): unknown[] =>
      seen.filter((each) => each.channel === channel).map(({ data }) => data['action'] ?? 'gap');
    expect(of('item')).toEqual(['INSERT', 'UPDATE', 'INSERT', 'UPDATE']);
    expect(of('own').filter((action) => action === 'gap')).not.toHaveLength(0);
    expect(of('own').at(-1)).toBe('gap');
    expect(of('own').filter((action) => action !== 'gap')).toHaveLength(4);
    expect(await owner`select from realtime.unordered`).toHaveLength(0);
  } finally {
    await owner.end();
    await other.drop();
  }
});

test('where the changes of a row are is forgotten once nobody can ask for it', async () => {
  await sql.unsafe(`create table item (a int primary key, b text);
    ${trigger('a_again', 'after insert', again)}
    create trigger b_told after insert or update on item for each row execute function public.notify_realtime_event()`);
  const open = postgres(created.url, { max: 1, onnotice: () => undefined });
  const left = async (): Promise<number> => (await sql`select from realtime.row_changes`).length;
  await sql`select realtime.forget_row_changes()`;
  expect(await left()).toBe(0);
  await open.unsafe(`set search_path = shop; begin; insert into item values (1, 'x')`).simple();
  await sql`insert into item values (2, 'x')`;
  await sql`select realtime.forget_row_changes()`;
  await open`insert into item values (3, 'x')`;
  await open`commit`;
  // Under SERIALIZABLE the relay still needs them.
  await sql.unsafe(`begin isolation level serializable; insert into item values (4, 'x'); commit`);
  await sql`select realtime.forget_row_changes()`;
  expect(await left()).toBeGreaterThan(0);
  expect((await told()).toSorted()).toEqual(
    [1, 2, 3, 4].flatMap((a) => [`INSERT ${a} x`, `UPDATE ${a} again`]).toSorted(),
  );
  await sql`select realtime.forget_row_changes()`;
  expect(await left()).toBe(0);
  await open.end();
});

// Rows of the statement went before all nested changes, also those that no trigger changed: to a place from before the wait.
test('a row for which a statement waited, after its triggers had changed others: behind what was waited for', async () => {
  await sql.unsafe(`create table item (a int primary key, b text); insert into item select i, 'x' from generate_series(0, 9) i;
    ${trigger('a_before', 'before update', `if new.a = 0 and pg_trigger_depth() = 1 then update item set b = 'before' where a > 7; end if; return new;`)}
    ${trigger('b_again', 'after update', `if pg_trigger_depth() = 1 and new.a = 0 then update item set b = 'again' where a = 0; end if; return null;`)}
    select realtime.watch('item')`);
  await told();
  for (const isolation of ['read committed', 'serializable']) {
    const [holder, waiter] = [0, 1].map(() => postgres(created.url, { max: 1, onnotice: () => undefined })) as [
      postgres.Sql,
      postgres.Sql,
    ];
    for (const session of [holder, waiter]) await session`set search_path = shop`;
    await holder.unsafe(`begin; select from item where a = 1 for update`).simple();
    const [{ pid } = { pid: 0 }] = await waiter<{ pid: number }[]>`select pg_backend_pid() as pid`;
    await waiter.unsafe(`begin isolation level ${isolation}`);
    const waiting = waiter`update item set b = 'mine' where a < 3`.execute().catch(() => undefined);
    await until(async () => (await sql`select from pg_locks where pid = ${pid} and not granted`).length > 0);
    await holder.unsafe(`update item set b = 'first' where a = 1; commit`).simple();
    await waiting;
    await waiter`commit`.catch(() => undefined);
    await Promise.all([holder.end(), waiter.end()]);
    const seen = await told();
    const of = (a: number): string[] => seen.filter((each) => each.split(' ')[1] === String(a));
    const mine = isolation === 'read committed';
    expect(of(1)).toEqual(['UPDATE 1 first', ...(mine ? ['UPDATE 1 mine'] : [])]);
    expect(of(0)).toEqual(mine ? ['UPDATE 0 mine', 'UPDATE 0 again'] : []);
  }
});

// Literals of the functions were read with backslashes as escapes.
test('in a session where backslashes are escapes', async () => {
  await sql.unsafe(`create table item (a int primary key, b text); create table other (a int);
    ${trigger('a_again', 'after insert', again.replace('= 1', '< 3'))}
    create function pass() returns trigger language plpgsql as
      $$ begin insert into item values (new.a, 'x'); return null; end $$;
    create trigger pass after insert on other for each row execute function pass()`);
  await sql.unsafe('set standard_conforming_strings = off');
  await sql`select realtime.watch('item', array['item', 'i:{a}']), realtime.watch('other')`;
  await sql`insert into other values (1)`;
  expect(await told()).toEqual(['INSERT 1 x', 'UPDATE 1 again']);
});

if (version >= 15) {
  test('MERGE moves rows to another partition, which no transition table of it holds', async () => {
    await sql.unsafe(`create table item (a int, b text, c text default 'c', primary key (a, b)) partition by list (b);
      create table item_x partition of item for values in ('x');
      create table item_y (c text, gone int, b text not null, a int not null);
      alter table item_y drop column gone; alter table item attach partition item_y for values in ('y')`);
    await sql`select realtime.watch('item', array['item', 'b:{b}'])`;
    await sql`insert into item values (1, 'x'), (2, 'x')`;
    await told();
    const merge = (values: string, more = ''): string =>
      `merge into item i using (values ${values}) v (a, b) on i.a = v.a when matched then update set b = v.b ${more}`;
    await sql.unsafe(merge(`(1, 'y'), (2, 'x')`));
    expect(await told()).toEqual(['DELETE 1 x c', 'INSERT 1 y c', 'UPDATE 2 x c']);
    await sql.unsafe(merge(`(1, 'x'), (3, 'y')`, `when not matched then insert values (v.a, v.b)`));
    expect(await told()).toEqual(['DELETE 1 y c', 'INSERT 1 x c', 'INSERT 3 y c']);
    // The server's transition table then has the inserted row in place of the updated one.
    await sql.unsafe(merge(`(4, 'y'), (2, 'x')`, `when not matched then insert values (v.a, v.b)`));
    expect((await told()).toSorted()).toEqual(['INSERT 4 y c', 'gap']);
    await sql.unsafe(`insert into item values (5, 'x'), (2, 'x') on conflict (a, b) do update set c = 'd'`);
    expect((await told()).toSorted()).toEqual(['INSERT 5 x c', 'UPDATE 2 x d']);
    await sql`update item set c = 'c'`;
    await told();
    // As the first statement of a transaction, and as a later one.
    await sql.unsafe(`begin; update item set c = 'e' where a = 1;
      ${merge(`(6, 'y'), (2, 'x')`, `when not matched then insert values (v.a, v.b)`)}; commit`);
    expect((await told()).toSorted()).toEqual(['INSERT 6 y c', 'UPDATE 1 x e', 'gap']);
    await sql`update item set c = 'c'`;
    await told();
    await sql.unsafe(`do $$ begin ${merge(`(1, 'y')`)}; end $$`);
    expect(await told('b:y')).toEqual(['INSERT 1 y c']);
    await sql`update item set b = 'x' where a = 1`;
    expect(await told()).toEqual(['UPDATE 1 x c']);
    // Its text tells nobody whether this is a MERGE.
    await sql.unsafe(`create function moved() returns void language sql as $$ ${merge(`(1, 'y'), (2, 'y')`)} $$`);
    await sql`select moved()`;
    expect(await told()).toEqual(['gap']);
    // Not known for sure is a gap beside what an UPDATE tells of itself, and never a change that is told twice or not at all.
    await sql`prepare moving as merge into item i using (values (1, 'x')) v (a, b) on i.a = v.a when matched then update set b = v.b`;
    await sql.unsafe('execute moving');
    expect(await told()).toEqual(['gap']);
    await sql.unsafe(`/* first */ -- a comment
      merge into item i using (values (1, 'y')) v (a, b) on i.a = v.a when matched then update set b = v.b`);
    expect(await told()).toEqual(['DELETE 1 x c', 'INSERT 1 y c']);
    await sql.unsafe(
      `with v (a, b) as (values (1, 'x')) merge into item i using v on i.a = v.a when matched then update set b = v.b`,
    );
    expect(await told()).toEqual(['DELETE 1 y c', 'INSERT 1 x c']);
    // An UPDATE that only speaks of one.
    await sql.unsafe(`update item set b = 'y' where a = 1 /* merge */`);
    expect((await told()).toSorted()).toEqual(['UPDATE 1 y c', 'gap']);
    await sql.unsafe(`-- merge, then\nupdate item set b = 'x' where a = 1`);
    expect((await told()).toSorted()).toEqual(['UPDATE 1 x c', 'gap']);
    // A comment looks like the end of the statement, in what the server tells of where a function stands.
    await sql.unsafe(`do $$ begin with v (a, b) as (select /* "\nPL/ */ 1, 'y'::text)
      merge into item i using v on i.a = v.a when matched then update set b = v.b; end $$`);
    expect(await told()).toEqual(['gap']);
    const [watch] = await sql`select fault_count::int as count, last_reason as reason from realtime.watches
      where "table" = 'item'::regclass`;
    expect(watch!['count']).toBeGreaterThan(0);
    expect(watch!['reason']).toContain('MERGE');
  });
}

test('json that no parser takes, lastval, and the settings of the session', async () => {
  await sql.unsafe(
    `create table item (a serial primary key, doc json, at timestamptz, f float8, b bytea, i interval, m money)`,
  );
  await sql`select realtime.watch('item')`;
  await sql.unsafe(`set bytea_output = escape; set extra_float_digits = -15; set intervalstyle = sql_standard;
    set timezone = 'America/New_York'; set datestyle = 'German'`);
  await sql.unsafe(`insert into item (doc, at, f, b, i, m)
    values ('{"a":"\\u0000\\ud800"}', '2026-03-29 01:30+00', 0.1::float8 + 0.2, '\\x00ff', '1 year 3 days 04:05', 1.5)`);
  const [last] = await sql`select lastval()::int as n, (select max(a) from item) as a`;
  expect(last!['n']).toBe(last!['a'] as number);
  await sql`update item set f = 1`;
  const [outbox] = await sql`select data from realtime.outbox order by lsn limit 1`;
  expect(outbox!['data']).toContain(
    `"doc":{"a":"\\u0000\\ud800"},"at":"2026-03-29T01:30:00+00:00","f":0.30000000000000004,"b":"\\\\x00ff",` +
      `"i":"1 year 3 days 04:05:00","m":"$1.50"}`,
  );
  expect(await takenOver(sql)).toHaveLength(2);
});

// A transaction that has notified cannot be prepared.
test('a transaction is prepared, and published when it is committed', async () => {
  const cluster = await startCluster();
  try {
    const database = await cluster.createDatabase();
    const superuser = postgres(database.superUrl, { max: 1, onnotice: () => undefined });
    await superuser`alter system set max_prepared_transactions = 5`;
    await superuser.end();
    await cluster.restart();
    await migrate(database.url);
    const writer = postgres(database.url, { max: 1, onnotice: () => undefined });
    // The relay sleeps: whoever writes would notify it.
    const relay = postgres(database.url, { max: 1, onnotice: () => undefined });
    await relay`select pg_advisory_lock(1937006946, 1)`;
    await writer`create table item (a int primary key)`;
    await writer`select realtime.watch('item')`;
    await writer.unsafe(`begin; insert into item values (1); prepare transaction 'one'`).simple();
    expect(await takenOver(writer)).toEqual([]);
    await writer`commit prepared 'one'`;
    expect(await takenOver(writer)).toHaveLength(1);
    await Promise.all([writer.end(), relay.end()]);
  } finally {
    await cluster.close();
  }
});
