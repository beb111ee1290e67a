// Every schema that this server has had becomes the present one: what waits, what was published, what is watched and what
// was granted goes over, and writers are captured as this version does. `earlier-schemas.json.zst` holds the migrations of
// each, in order of time, with the table that noted them. Without LONG=1, those are tried where a file came or went.

import { afterAll, expect, test } from 'bun:test';
import { join } from 'node:path';
import postgres from 'postgres';
import { migrate } from '../../src/database/migrate.ts';
import { createDatabase } from '../support/postgres.ts';
import { takenOver } from './support.ts';

interface EarlierSchema {
  readonly table: string;
  readonly migrations: readonly { readonly when: number; readonly sql: string }[];
}

const packed = await Bun.file(join(import.meta.dir, 'earlier-schemas.json.zst')).bytes();
const schemas = JSON.parse(new TextDecoder().decode(Bun.zstdDecompressSync(packed))) as EarlierSchema[];
const clients: postgres.Sql[] = [];
const role = `upgrader_${process.pid}`;
const superusers: postgres.Sql[] = [];

afterAll(async () => {
  await superusers[0]?.unsafe(`drop role if exists ${role}`).catch(() => undefined);
  await Promise.all([...clients, ...superusers].map((sql) => sql.end({ timeout: 1 })));
});

async function install(sql: postgres.Sql, { table, migrations }: EarlierSchema): Promise<void> {
  await sql.unsafe(`create schema ${table.split('.')[0]!};
    create table ${table} (id serial primary key, hash text not null, created_at bigint)`);
  for (const { when, sql: text } of migrations) {
    for (const statement of text.split('--> statement-breakpoint')) await sql.unsafe(statement).simple();
    const hash = new Bun.CryptoHasher('sha256').update(text).digest('hex');
    await sql.unsafe(`insert into ${table} (hash, created_at) values ('${hash}', ${when})`);
  }
}

test('there are some', () => {
  expect(schemas.length).toBeGreaterThan(8);
});

const filesOf = (schema: EarlierSchema | undefined): string => schema?.migrations.map(({ when }) => when).join() ?? '';
const tried = schemas
  .map((schema, place) => [place + 1, schema] as const)
  .filter(([next]) => process.env['LONG'] !== undefined || filesOf(schemas[next - 1]) !== filesOf(schemas[next]));

test.each(tried)('schema %d', async (_place, schema) => {
  const { url, superUrl } = await createDatabase();
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  clients.push(sql);
  const superuser = postgres(superUrl, { max: 1, onnotice: () => undefined });
  superusers.push(superuser);
  await superuser.unsafe(`do $$ begin create role ${role}; exception when duplicate_object then null; end $$`);
  await install(sql, schema);
  await sql.unsafe(`create table item (id int primary key, room text, secret text);
    create table own (id int primary key);
    create trigger t after insert on own for each row execute function public.notify_realtime_event();
    select realtime.watch('item', array['item', 'room:{room}'], array['id', 'room']);
    grant usage on schema realtime to ${role};
    grant execute on function realtime.send(text, jsonb, text) to ${role};
    insert into item values (1, 'a', 's'); insert into own values (1);
    select realtime.send('other', '{"n": 1}')`);
  const [log] = await sql`select epoch from realtime.log`;

  await migrate(url);
  expect(await migrate(url)).toEqual({ remarks: [] });

  expect((await sql`select epoch from realtime.log`)[0]).toEqual(log);
  const waiting = (await takenOver(sql)).map(({ channel }) => channel);
  expect(waiting).toEqual(['item', 'room:a', 'own', 'other']);
  const [watch] = await sql`select channels, columns, fault from realtime.watches where "table" = 'item'::regclass`;
  expect({ ...watch }).toEqual({ channels: ['item', 'room:{room}'], columns: ['id', 'room'], fault: null });
  // What an earlier version told in the wrong order.
  await sql.unsafe(`create function fill() returns trigger language plpgsql as $$
      begin update item set room = 'b' where id = new.id; return null; end $$;
    create trigger fill after insert on item for each row execute function fill();
    insert into item values (2, 'a', 's'); insert into own values (2)`);
  const seen = (await takenOver(sql)).map(({ channel, data }) => `${channel} ${String(data['action'])}`);
  expect(seen).toEqual(['item INSERT', 'room:a INSERT', 'item UPDATE', 'room:a DELETE', 'room:b INSERT', 'own INSERT']);
  const [right] = await sql`select has_function_privilege(${role}, 'realtime.send(text, jsonb, text)', 'execute')
    and has_schema_privilege(${role}, 'realtime', 'usage') as kept`;
  expect(right!['kept']).toBe(true);
  const [left] = await sql`select count(*)::int as n from pg_namespace where nspname ~ '^realtime_|^drizzle$'`;
  expect(left!['n']).toBe(0);
  await superuser.unsafe(`drop owned by ${role}`);
});

// What a row trigger notes may be more than it was in an earlier version.
test('changes that nobody has put in order yet are a gap', async () => {
  const { url } = await createDatabase({ migrated: true });
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  clients.push(sql);
  await sql.unsafe(`create table item (a int primary key, b text);
    create function again() returns trigger language plpgsql as
      $$ begin update item set b = 'again' where b = 'x'; return null; end $$;
    create trigger a_again after insert on item for each row execute function again();
    create trigger own after insert or update on item for each row execute function public.notify_realtime_event()`);
  await sql.begin('isolation level serializable', (tx) => tx`insert into item values (1, 'x')`);
  await sql`update realtime.migrations set hash = 'another'`;
  await migrate(url);
  const seen = (await takenOver(sql)).filter(({ channel }) => channel === 'item');
  expect(seen).toHaveLength(4);
  expect(seen.at(-1)!.data['gap']).toBe(true);
  expect(await sql`select from realtime.unordered`).toHaveLength(0);
});
