// The migrator on a real PostgreSQL: from nothing, again, from several nodes at once, and on databases that are not as it
// would like.

import { afterAll, expect, test } from 'bun:test';
import postgres from 'postgres';
import { makeDemoTables } from '../../src/database/demo-tables.ts';
import { migrate } from '../../src/database/migrate.ts';
import { createDatabase, freePort } from '../support/postgres.ts';

const clients: postgres.Sql[] = [];
afterAll(() => Promise.all(clients.map((sql) => sql.end({ timeout: 1 }))));

async function emptyDatabase(): Promise<{ url: string; superUrl: string; sql: postgres.Sql }> {
  const { url, superUrl } = await createDatabase();
  const sql = postgres(url, { max: 2, onnotice: () => undefined });
  clients.push(sql);
  return { url, superUrl, sql };
}

test('several nodes at once, then again: migrated once', async () => {
  const { url, sql } = await emptyDatabase();
  await Promise.all([migrate(url), migrate(url), migrate(url)]);
  const count = async (): Promise<unknown> =>
    (await sql`select count(*)::int as n, count(distinct hash)::int as d from realtime.migrations`)[0];
  const before = await count();
  expect(await migrate(url)).toEqual({ remarks: [] });
  expect(await count()).toEqual(before as never);
  const [log] = await sql`select count(*)::int as n, min(epoch) as epoch from realtime.log`;
  expect(log!['n']).toBe(1);
  expect(log!['epoch']).toMatch(/^[a-z0-9]{6}$/);
});

// Each start wrote the trigger functions of all tables anew: of 3,000 tables for a minute, and each session of a writer then
// compiled each of them again.
test('trigger functions are written anew where the table was altered, or the migrations are others', async () => {
  const { url, sql } = await emptyDatabase();
  await migrate(url);
  await sql.unsafe(
    `create table one (id int); create table two (id int); select realtime.watch('one'), realtime.watch('two')`,
  );
  const versions = async (): Promise<unknown[]> =>
    (
      await sql`select xmin::text as xmin from pg_proc where proname like 'capture\_%' and proname ~ '[0-9]$' order by proname`
    ).map(({ xmin }) => xmin as unknown);
  const [one, two] = await versions();
  await migrate(url);
  expect(await versions()).toEqual([one, two]);
  await sql`alter table two add column name text`;
  await migrate(url);
  const [still, other] = await versions();
  expect([still, other === two]).toEqual([one, false]);
  await sql`update realtime.migrations set hash = 'another' where id = 1`;
  await migrate(url);
  const last = await versions();
  expect([last[0] === one, last[1] === other]).toEqual([false, false]);
});

// A letter outside of ASCII, in a comment even, fails the migration of a database whose encoding lacks it.
test('migrations are plain ASCII', async () => {
  const folder = new URL('../../migrations/', import.meta.url).pathname;
  for await (const file of new Bun.Glob('*.sql').scan({ cwd: folder })) {
    expect(/[^\n\x20-\x7e]/.exec(await Bun.file(folder + file).text())?.[0], file).toBeUndefined();
  }
});

// The migrations of an application that uses drizzle, and ours, used to share one table: either's next migration was then
// skipped or refused.
test("an application's own migrations and tables are left alone", async () => {
  const { url, sql } = await emptyDatabase();
  await sql`create schema drizzle`;
  await sql`create table drizzle.__drizzle_migrations (id serial primary key, hash text not null, created_at bigint)`;
  await sql`insert into drizzle.__drizzle_migrations (hash, created_at) values ('theirs', 9999999999999)`;
  await migrate(url);
  expect((await sql`select hash from drizzle.__drizzle_migrations`).map(({ hash }) => hash as unknown)).toEqual([
    'theirs',
  ]);
  const made = await sql`
    select n.nspname || '.' || c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname not in ('realtime', 'drizzle', 'pg_catalog', 'information_schema', 'pg_toast')
    union all
    select n.nspname || '.' || p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname not in ('realtime', 'pg_catalog', 'information_schema')`;
  expect(made.map(({ name }) => name as unknown)).toEqual(['public.notify_realtime_event']);
});

test('demo tables are made where none of that name is', async () => {
  const { url, sql } = await emptyDatabase();
  await sql`create table posts (mine int)`;
  await migrate(url);
  await Promise.all([makeDemoTables(url), makeDemoTables(url)]);
  await sql`insert into posts values (1)`;
  const watched = await sql`select "table"::text as name from realtime.watches order by 1`;
  expect(watched.map(({ name }) => name as unknown)).toEqual(['messages', 'notifications']);
  expect(await sql`select from realtime.outbox`).toHaveLength(0);
});

test('a database of a newer version is refused, in words', async () => {
  const { url, sql } = await emptyDatabase();
  await migrate(url);
  await sql`insert into realtime.migrations (hash, created_at) values ('new', 9999999999999)`;
  expect(migrate(url)).rejects.toThrow('migrated by a newer version');
});

test.each([
  ["somebody else's", `create schema realtime; create table realtime.messages (id int)`, 'is not this server'],
  [
    "somebody else's, with functions alone",
    `create schema realtime; create function realtime.send() returns int language sql as 'select 1'`,
    'is not this server',
  ],
  ['restored without its data', 'ours; truncate realtime.migrations, realtime.log', 'without its data'],
])('a schema realtime that is %s is refused, in words, and left as it is', async (_name, setUp, message) => {
  const { url, sql } = await emptyDatabase();
  if (setUp.startsWith('ours; ')) await migrate(url);
  await sql.unsafe(setUp.replace('ours; ', '')).simple();
  const state = (): Promise<unknown> =>
    sql`select count(*) from pg_depend where refobjid = 'realtime'::regnamespace`.then((rows) => rows[0]);
  const before = await state();
  const error = await migrate(url).catch((caught: unknown) => caught);
  expect((error as Error).message).toContain(message);
  expect(await state()).toEqual(before as never);
});

test('an empty schema realtime that was made for the server is used', async () => {
  const { url, sql } = await emptyDatabase();
  await sql`create schema realtime`;
  await migrate(url);
  expect(await sql`select from realtime.log`).toHaveLength(1);
});

test("somebody else's function public.notify_realtime_event is not replaced", async () => {
  const { url, sql } = await emptyDatabase();
  await sql.unsafe(
    `create function notify_realtime_event() returns trigger language plpgsql as 'begin return null; end'`,
  );
  const error = await migrate(url).catch((caught: unknown) => caught);
  expect((error as Error).message).toContain('public.notify_realtime_event');
});

test('after DROP SCHEMA realtime CASCADE writers go on, and the next start says so and heals', async () => {
  const { url, sql } = await emptyDatabase();
  await migrate(url);
  await sql`create table item (id int primary key)`;
  await sql`create table own (id int primary key)`;
  await sql`select realtime.watch('item')`;
  await sql`create trigger t after insert on own for each row execute function notify_realtime_event()`;
  await sql`insert into item values (1)`;
  await sql`insert into own values (1)`;
  await sql`drop schema realtime cascade`;
  await sql`insert into item values (2)`;
  await sql`insert into own values (2)`;
  const { remarks } = await migrate(url);
  expect(remarks).toHaveLength(1);
  expect(remarks[0]).toContain('is made again');
  await sql`select realtime.watch('item')`;
  await sql`insert into item values (3)`;
  await sql`insert into own values (3)`;
  expect(
    (await sql`select channel from realtime.outbox order by lsn`).map(({ channel }) => channel as unknown),
  ).toEqual(['item', 'own']);
});

test('uninstall leaves nothing, and writers go on', async () => {
  const { url, sql } = await emptyDatabase();
  await migrate(url);
  await sql`create table item (id int primary key)`;
  await sql`create table own (id int primary key)`;
  await sql`select realtime.watch('item')`;
  await sql`create trigger t after insert on own for each row execute function notify_realtime_event()`;
  await sql`select realtime.uninstall()`;
  await sql`insert into item values (1)`;
  await sql`insert into own values (1)`;
  const [left] = await sql`select to_regnamespace('realtime') as schema,
    to_regprocedure('public.notify_realtime_event()') as function, (select count(*)::int from pg_trigger) as triggers`;
  expect({ ...left }).toEqual({ schema: null, function: null, triggers: 0 });
  expect(await migrate(url)).toEqual({ remarks: [] });
});

// Hardened and exotic settings of a role or a database, which the functions are made and run under.
test('a database of another encoding, without a schema public, whose defaults are strict', async () => {
  const { superUrl } = await createDatabase();
  const admin = postgres(superUrl, { max: 1, onnotice: () => undefined });
  clients.push(admin);
  const name = `latin_${process.pid}`;
  await admin.unsafe(
    `create database ${name} template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' owner app`,
  );
  try {
    for (const setting of [
      `plpgsql.extra_errors = 'all'`,
      `default_transaction_isolation = 'serializable'`,
      `standard_conforming_strings = off`,
      `search_path = nowhere`,
      `transform_null_equals = on`,
      `array_nulls = off`,
      `quote_all_identifiers = on`,
      `statement_timeout = '20s'`,
    ]) {
      await admin.unsafe(`alter database ${name} set ${setting}`);
    }
    await admin.unsafe(`alter database ${name} set plpgsql.variable_conflict = 'error'`);
    const urlOf = (role: string): string =>
      superUrl.replace('//postgres@', `//${role}@`).replace(/\/[^/]*$/, `/${name}`);
    const owner = postgres(urlOf('postgres'), { max: 1, onnotice: () => undefined });
    await owner`drop schema public`;
    await owner.end();
    await migrate(urlOf('app'));
    const sql = postgres(urlOf('app'), { max: 1, onnotice: () => undefined });
    await sql`create schema shop`;
    await sql`create table shop.item (id int primary key, body text, tags text[])`;
    await sql`select realtime.watch('shop.item', array['item', 'item:{body}'])`;
    await sql`insert into shop.item values (1, 'é', '{a,NULL}')`;
    await sql`update shop.item set body = 'b' where id = 1`;
    await sql`delete from shop.item`;
    await sql`truncate shop.item`;
    await sql`select realtime.send('item', '1')`;
    const rows =
      await sql`select channel, data from realtime.relay(100, '[{"pattern":"","recoverable":true,"historySize":9,"historySeconds":9}]'::jsonb)
      where channel is not null`;
    expect(rows.map(({ channel }) => channel as unknown)).toEqual([
      'item',
      'item:%C3%A9',
      'item',
      'item:%C3%A9',
      'item:b',
      'item',
      'item:b',
      'item',
      'item:%C3%A9',
      'item:b',
      'item',
    ]);
    await sql.end();
  } finally {
    await admin.unsafe(`drop database ${name} with (force)`);
  }
});

test('a database that is not there is `unavailable`', async () => {
  const port = await freePort();
  const error = await migrate(`postgres://app@127.0.0.1:${port}/none`).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: 'unavailable' });
});
