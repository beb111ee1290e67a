// Statements of the application that failed, or took for ever, because a table was watched. They do what they do without a
// watch, and what they change is told.

import { afterAll, beforeEach, expect, test } from 'bun:test';
import postgres from 'postgres';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { takenOver } from './support.ts';

patient();

const created = await createDatabase({ migrated: true });
const sql = postgres(created.url, { max: 1, onnotice: () => undefined });
const superuser = postgres(created.superUrl, { max: 1, onnotice: () => undefined });

const [row] = await sql`select current_setting('server_version_num')::int / 10000 as version`;
const version = row!['version'] as number;

afterAll(async () => {
  await Promise.all([sql.end({ timeout: 1 }), superuser.end({ timeout: 1 })]);
  await created.drop();
});

beforeEach(async () => {
  await sql.unsafe(`drop schema if exists shop cascade; create schema shop; set search_path = shop`);
  await takenOver(sql);
});

async function told(): Promise<string[]> {
  return (await takenOver(sql)).map(
    ({ channel, data }) => `${channel} ${(data['action'] as string | undefined) ?? 'gap'}`,
  );
}

const columns = (first: number, end: number): string[] =>
  Array.from({ length: end - first }, (_, place) => `c${first + place} int`);

// A function takes a hundred arguments: each UPDATE of a table of a hundred columns failed.
test('a table of many columns', async () => {
  await sql.unsafe(`create table item (id int primary key, ${columns(0, 150).join(', ')})`);
  await sql`select realtime.watch('item')`;
  await sql`insert into item (id, c0, c149) values (1, 1, 1), (2, 2, 2)`;
  await sql`update item set c149 = 3 where id = 1`;
  await sql`update item set c0 = 4 where id in (1, 2) `;
  await sql`delete from item where id = 1`;
  const seen = (await takenOver(sql)).map(({ data }) => [data['action'], data['old']]);
  expect(seen.slice(0, 3)).toEqual([
    ['INSERT', null],
    ['INSERT', null],
    ['UPDATE', { id: 1, c149: 1 }],
  ]);
  expect(seen.slice(3, 5)).toContainEqual(['UPDATE', { id: 1, c0: 1 }]);
  expect(seen.slice(3, 5)).toContainEqual(['UPDATE', { id: 2, c0: 2 }]);
  expect(seen[5]).toEqual(['DELETE', expect.objectContaining({ id: 1, c0: 4, c149: 3 })]);
});

// Both sides of an UPDATE were one list of more columns than PostgreSQL takes.
test('a table of too many columns is refused, and one that gets too many is written as before', async () => {
  await sql.unsafe(`create table wide (id int primary key, ${columns(1, 900).join(', ')})`);
  const refusal = sql`select realtime.watch('wide')`.catch((error: unknown) => (error as Error).message);
  expect(await refusal).toBe('realtime.watch: shop.wide cannot be watched: it has more than 800 columns');
  await sql.unsafe(`create table item (id int primary key); select realtime.watch('item')`);
  await sql.unsafe(
    `alter table item ${columns(1, 900)
      .map((column) => `add column ${column}`)
      .join(', ')}`,
  );
  await sql`insert into item (id) values (1)`;
  await sql`select realtime.renew_captures(false)`;
  await told();
  await sql`insert into item (id) values (2)`;
  await sql`update item set c1 = 2`;
  expect(await told()).toEqual(['item gap', 'item gap']);
});

// Values of more than 300 kB as stored, together, are measured before the row is printed.
test('long values beside NULLs, in a table of one such column and of several', async () => {
  await sql.unsafe(`create type mood as enum ('fine');
    create table one (id int primary key, a text);
    create table item (id int primary key, a text, b json, c bytea, d mood[], e varchar);
    alter table one alter a set storage external; alter table item alter a set storage external, alter b set storage external`);
  await sql`select realtime.watch('one'), realtime.watch('item')`;
  await sql`insert into one values (1, repeat('x', 400000)), (2, null)`;
  await sql`update one set id = id + 2`;
  await sql`insert into item values (1, repeat('x', 400000), null), (2, null, to_json(repeat('y', 400000))), (3, null, null)`;
  await sql`insert into item (id, c, d, e) values (4, decode(repeat('00', 400000), 'hex'), array_fill('fine'::mood, array[100000]), 'e')`;
  await sql`update item set a = a || 'x', e = 'f' where id in (1, 4)`;
  await sql`delete from item where id < 4`;
  const seen = (await takenOver(sql)).map(({ channel, data }) => {
    const { id, ...values } = (data['data'] ?? data['old']) as Record<string, unknown>;
    const lengths = Object.values(values).map((value) =>
      typeof value === 'string' ? value.length : (value as [])?.length,
    );
    return [channel, data['action'], id, ...lengths.map((length) => length ?? 0)];
  });
  expect(seen).toEqual([
    ...[
      ['one', 'INSERT', 1, 400_000],
      ['one', 'INSERT', 2, 0],
      ['one', 'UPDATE', 3, 400_000],
      ['one', 'UPDATE', 4, 0],
    ],
    ...[
      ['item', 'INSERT', 1, 400_000, 0, 0, 0, 0],
      ['item', 'INSERT', 2, 0, 400_000, 0, 0, 0],
    ],
    ...[
      ['item', 'INSERT', 3, 0, 0, 0, 0, 0],
      ['item', 'INSERT', 4, 0, 0, 800_002, 100_000, 1],
    ],
    ...[
      ['item', 'UPDATE', 1, 400_001, 0, 0, 0, 1],
      ['item', 'UPDATE', 4, 0, 0, 800_002, 100_000, 1],
    ],
    ...[
      ['item', 'DELETE', 2, 0, 400_000, 0, 0, 0],
      ['item', 'DELETE', 3, 0, 0, 0, 0, 0],
    ],
    ['item', 'DELETE', 1, 400_001, 0, 0, 0, 1],
  ]);
});

// The row triggers that see what MERGE moves had one name on all tables, and a partition gets copies of its parent's.
test('a watched table with partitions becomes a partition of another one', async () => {
  for (const name of ['whole', 'half']) {
    await sql.unsafe(`create table ${name} (id int, room text not null, primary key (id, room)) partition by list (room);
      select realtime.watch('${name}')`);
  }
  await sql.unsafe(`create table quarter partition of half default;
    alter table whole attach partition half for values in ('x'); insert into whole values (1, 'x')`);
  expect(await told()).toEqual(['whole INSERT']);
  await sql.unsafe(`alter table whole detach partition half; insert into half values (2, 'x')`);
  expect(await told()).toEqual(['half INSERT']);
});

// Values of two columns do not compare where each has a collation of its own.
test('templates of columns that have collations of their own', async () => {
  await superuser.unsafe(`create schema if not exists kinds; grant usage on schema kinds to app;
    create collation kinds.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create collation kinds.other (locale = 'C')`);
  await sql.unsafe(`create table item (id text collate kinds.loose primary key, a text collate kinds.loose,
      b varchar(9) collate kinds.other);
    select realtime.watch('item', array['item', 'id:{id}', 'x:{a}', 'x:{b}'])`);
  await sql`insert into item values ('i', 'one', 'two')`;
  await sql`update item set a = 'ONE', b = 'one'`;
  await sql`delete from item`;
  expect(await told()).toEqual([
    ...['item INSERT', 'id:i INSERT', 'x:one INSERT', 'x:two INSERT'],
    ...['item UPDATE', 'id:i UPDATE', 'x:ONE INSERT', 'x:two DELETE', 'x:one UPDATE'],
    ...['item DELETE', 'id:i DELETE', 'x:ONE DELETE', 'x:one DELETE'],
  ]);
});

// Nobody took away what each statement noted of its beginning: 20,000 of them took half a minute.
test('with a trigger of the watch disabled, statements of one transaction do not become slower and slower', async () => {
  await sql.unsafe(`create table item (id int primary key); select realtime.watch('item');
    alter table item disable trigger realtime_insert`);
  const length = await sql.begin(async (tx) => {
    await tx.unsafe(`do $$ begin for i in 1..500 loop insert into item values (i); end loop; end $$`);
    const [setting] = await tx`select length(current_setting('sobranie.marks')) as length`;
    await tx`update item set id = 501 where id = 1`;
    return setting!['length'] as number;
  });
  expect(length).toBeLessThan(2_100);
  expect(await told()).toEqual(['item UPDATE']);
});

// What a watch had granted to a table's owner kept that role from being dropped, when the table had another one.
test('the former owner of a table can be dropped', async () => {
  const role = `former_${process.pid}`;
  await superuser.unsafe(`create role ${role}; grant create on schema shop to ${role};
    create table shop.item (id int primary key); alter table shop.item owner to app`);
  await sql`select realtime.watch('item')`;
  await superuser.unsafe(`alter table shop.item owner to ${role}`);
  await sql`select realtime.renew_captures(true)`;
  await superuser.unsafe(`alter table shop.item owner to app; revoke create on schema shop from ${role}`);
  await sql`select realtime.renew_captures(false)`;
  await superuser.unsafe(`drop role ${role}`);
  await sql`insert into item values (1)`;
  expect(await told()).toEqual(['item INSERT']);
});

// Only a change of the table's own columns made the server look again at what is wrong with a watch.
test('what a watch cannot see of tables that came later is shown', async () => {
  const role = `nowhere_${process.pid}`;
  await superuser.unsafe(`create foreign data wrapper ${role}; create server ${role} foreign data wrapper ${role};
    grant usage on foreign server ${role} to app`);
  await sql.unsafe(`create table item (id int); create table parts (id int) partition by list (id);
    select realtime.watch('item'), realtime.watch('parts');
    create table heir () inherits (item); create foreign table far partition of parts default server ${role}`);
  await sql`select realtime.renew_captures(false)`;
  const watches =
    await sql`select fault from realtime.watches where "table" in ('item'::regclass, 'parts'::regclass) order by 1`;
  expect(watches.map(({ fault }) => fault as string)).toEqual([
    'shop.far is a foreign table; nothing is captured while it is there',
    'shop.heir inherits from it',
  ]);
  expect(await told()).toEqual(['parts gap']);
  await sql`insert into item values (1)`;
  expect(await told()).toEqual(['item INSERT']);
  await sql`drop foreign table far`;
  await superuser.unsafe(`drop foreign data wrapper ${role} cascade`);
});

// PostgreSQL refuses to insert into a foreign partition while a trigger of its table asks for the changed rows. It was attached
// after realtime.watch, and the application's own statements failed for as long as it was there.
test('a foreign partition that comes later costs no statement of the application', async () => {
  const role = `far_${process.pid}`;
  await superuser.unsafe(`create foreign data wrapper ${role}; create server ${role} foreign data wrapper ${role};
    grant usage on foreign server ${role} to app`);
  await sql.unsafe(`create table parts (id int) partition by list (id); create table one partition of parts for values in (1);
    select realtime.watch('parts'); create foreign table far partition of parts default server ${role}`);
  const insert = async (id: number): Promise<string> =>
    sql`insert into parts values (${id})`.then(
      () => 'inserted',
      (error: unknown) => (error as Error).message,
    );
  // The other session's snapshot holds the table: the next turn of the server tries again.
  const reader = postgres(created.url, { max: 1, onnotice: () => undefined });
  await reader.unsafe('begin; select * from shop.one; select * from only shop.parts').simple();
  await sql`select realtime.renew_captures(false)`;
  expect(await insert(1)).toBe('inserted');
  expect(await told()).toEqual(['parts INSERT']);
  await reader.end();

  await sql`select realtime.renew_captures(false)`;
  expect(await told()).toEqual(['parts gap']);
  expect(await insert(1)).toBe('inserted');
  // It has none: the statement fails as it does without a watch.
  expect(await insert(2)).toBe(`foreign-data wrapper "${role}" has no handler`);
  expect(await sql`select realtime.watch('parts')`.catch((error: unknown) => (error as Error).message)).toBe(
    'realtime.watch: shop.parts cannot be watched: shop.far is a foreign table',
  );
  await sql`select realtime.renew_captures(false)`;
  expect(await told()).toEqual([]);

  await sql`drop foreign table far`;
  await sql`select realtime.renew_captures(false)`;
  expect(await told()).toEqual(['parts gap']);
  expect(await insert(1)).toBe('inserted');
  expect(await told()).toEqual(['parts INSERT']);
  const [watch] = await sql`select fault from realtime.watches where "table" = 'shop.parts'::regclass`;
  expect(watch!['fault']).toBeNull();
  await superuser.unsafe(`drop foreign data wrapper ${role} cascade`);
});

// Each session's first statement asked for all partitions of the table, with a lock: one that is being rewritten made the
// writers of all others wait, and none could be dropped while a writer's transaction was open.
test('a partition that is locked keeps nobody from writing others, and no writer locks what it does not write', async () => {
  await sql.unsafe(`create table parts (id int) partition by list (id); create table one partition of parts for values in (1);
    create table two partition of parts for values in (2); select realtime.watch('parts')`);
  const other = postgres(created.url, { max: 1, onnotice: () => undefined });
  await other.unsafe('begin; lock table shop.one in access exclusive mode').simple();
  const locked = await sql.begin(async (tx) => {
    await tx`set local lock_timeout = '2s'`;
    await tx`insert into parts values (2)`;
    await tx`select realtime.shape('parts'), realtime.renew_captures(true)`;
    return await tx`select distinct relation::regclass::text as name from pg_locks
      where pid = pg_backend_pid() and relation in ('parts'::regclass, 'one'::regclass, 'two'::regclass) order by 1`;
  });
  await other.end();
  expect(locked.map(({ name }) => name as string)).toEqual(['parts', 'two']);
  expect(await told()).toEqual(['parts INSERT']);
});

// The server read the expression of a virtual column from a table that was being rewritten, and waited with it.
test.if(version >= 18)(
  'a locked table with a virtual column keeps nobody from renewing the watches of others',
  async () => {
    await sql.unsafe(`create table item (id int, twice int generated always as (id * 2) virtual); create table next (id int);
    create table third (id int, twice int generated always as (id * 2) virtual);
    select realtime.watch('item'), realtime.watch('next'), realtime.watch('third', array['third:{twice}'])`);
    const other = postgres(created.url, { max: 1, onnotice: () => undefined });
    await other
      .unsafe(`begin; alter table shop.item add column name text; alter table shop.third add column name text`)
      .simple();
    await sql.unsafe(`set lock_timeout = '2s'; alter table next add column name text`).simple();
    await sql`select realtime.renew_captures(true)`;
    const faults = await sql`select "table"::text as name, fault from realtime.watches
    where "table"::text in ('item', 'next', 'third') order by 1`;
    expect(faults.map(({ name, fault }) => [name, fault] as unknown)).toEqual([
      ['item', 'the table was altered; the server renews the watch'],
      ['next', null],
      ['third', 'the table was altered; the server renews the watch'],
    ]);
    await other`commit`;
    await other.end();
    await sql.unsafe('select realtime.renew_captures(false); reset lock_timeout; insert into item values (1)').simple();
    const [change] = await takenOver(sql);
    expect(change?.data['data']).toEqual({ id: 1, twice: 2, name: null });
  },
);

// A table without a key takes no deletes once somebody publishes it, and the outbox has none. The relay stood still, and the
// application's statement failed where it was put before what its own triggers did.
test('a publication of all tables, as for logical replication', async () => {
  await sql.unsafe(`create table item (id int primary key, name text); select realtime.watch('item');
    create function again() returns trigger language plpgsql as $$ begin
      update item set name = 'again' where id = new.id; return null; end $$;
    create trigger again after insert on item for each row execute function again()`);
  await superuser.unsafe('create publication everything for all tables').simple();
  try {
    await sql`insert into item values (1, 'new')`;
    expect(await told()).toEqual(['item INSERT', 'item UPDATE']);
  } finally {
    await superuser`drop publication everything`;
  }
});

// A dump of one table has its triggers, with the number that its watch had elsewhere. They called the function of another
// table: a watch of this one added nothing to that, and when the other table's watch ended nobody was told of this one's rows.
test('a table that was restored with the triggers of another watch', async () => {
  await sql.unsafe(`create table other (id int primary key); select realtime.watch('other');
    create table item (id int primary key, name text)`);
  const [watch] = await sql`select number from realtime.watched where target = 'other'::regclass`;
  const number = watch!['number'] as number;
  const triggers = await sql`select name, definition from realtime.watch_triggers(${number}, 'item'::regclass)`;
  for (const { name, definition } of triggers) await sql.unsafe(`create trigger ${String(name)} ${String(definition)}`);
  await sql.unsafe(`select realtime.watch('item'); select realtime.unwatch('other');
    begin; insert into item values (1, 'new'); update item set name = 'old'; commit`);
  expect(await told()).toEqual(['item INSERT', 'item UPDATE']);
  const [seen] = await sql`select fault from realtime.watches where "table" = 'item'::regclass`;
  expect(seen!['fault']).toBeNull();
});
