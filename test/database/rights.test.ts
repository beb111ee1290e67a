// Who may do what, found out by logging in as each: a role with nothing, one that writes a watched table, the table's owner
// who may watch, and the role that migrates. Capturing runs as the role that migrates, so the owner of a table, a column's
// type, a cast or an operator tries to get code of its own run there. It used to be enough to make a temporary table.

import { afterAll, beforeEach, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { migrate } from '../../src/database/migrate.ts';
import { createDatabase } from '../support/postgres.ts';
import { takenOver } from './support.ts';

const quiet = { max: 1, onnotice: () => undefined };
const created = await createDatabase();
const superuser = postgres(created.superUrl, quiet);
const as = (role: string): postgres.Sql => postgres(created.url.replace('//app@', `//${role}@`), quiet);
const [nobody, writer, tenant] = [`nobody_${process.pid}`, `writer_${process.pid}`, `tenant_${process.pid}`];
for (const role of [nobody, writer, tenant]) await superuser.unsafe(`create role ${role} login`);

// What an administrator may have set, with the best intentions, before the server came.
await superuser.unsafe(`
  alter default privileges for role app grant all on functions to public, ${nobody};
  alter default privileges for role app grant all on tables to public, ${nobody};
  alter default privileges for role app grant all on sequences to ${nobody};
  alter default privileges for role app grant all on schemas to ${nobody}`);
await migrate(created.url);

const sql = postgres(created.url, quiet);
const clients: Record<string, postgres.Sql> = {
  nobody: as(nobody),
  writer: as(writer),
  tenant: as(tenant),
  owner: sql,
};
const makeLair = `create schema lair authorization ${tenant}; grant usage on schema lair to public`;
await superuser.unsafe(`${makeLair}; create schema notes authorization ${tenant}; grant usage on schema notes to public;
  create schema authorization ${nobody}; grant temporary on database ${created.name} to public`);
await sql.unsafe(`grant usage on schema realtime to ${tenant}, ${writer};
  grant execute on function realtime.watch(regclass, text[], text[], text), realtime.unwatch(regclass) to ${tenant}`);
// Whoever's code runs writes down as whom.
await clients['tenant']!.unsafe(`
  create table notes.ran (who text default current_user, what text);
  grant insert on notes.ran to public;
  create function notes.note(what text) returns text language plpgsql as
    $$ begin insert into notes.ran (what) values (what); return what; end $$`);

afterAll(async () => {
  await Promise.all(Object.values(clients).map((client) => client.end({ timeout: 1 })));
  await superuser.unsafe(
    `reassign owned by ${nobody}, ${writer}, ${tenant} to postgres; drop owned by ${nobody}, ${writer}, ${tenant}`,
  );
  await superuser.end({ timeout: 1 });
  await created.drop();
  const admin = postgres(created.superUrl.replace(/[^/]*$/, 'postgres'), quiet);
  for (const role of [nobody, writer, tenant]) await admin.unsafe(`drop role ${role}`);
  await admin.end();
});

beforeEach(async () => {
  await superuser.unsafe(`drop schema lair cascade; ${makeLair}; truncate notes.ran, realtime.outbox`);
});

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'done',
    (error: unknown) => (error as postgres.PostgresError).code,
  );
}

const refused = '42501';

describe('who may call what', () => {
  // Kept beside the table of the same name in docs/sql.md.
  const calls: readonly (readonly [call: string, nobody: string, writer: string, tenant: string, owner: string])[] = [
    [`select realtime.send('a', '1')`, refused, refused, refused, 'done'],
    [`select realtime.watch('lair.item')`, refused, refused, 'done', refused],
    [`select realtime.unwatch('lair.item')`, refused, refused, 'done', refused],
    [`insert into lair.item (id) values (1)`, refused, 'done', 'done', refused],
    [`select realtime.part('a b')`, refused, 'done', 'done', 'done'],
    [`select * from realtime.watched`, refused, 'done', 'done', 'done'],
    [`select * from realtime.watches`, refused, refused, refused, 'done'],
    [`select * from realtime.outbox`, refused, refused, refused, 'done'],
    [`select * from realtime.publications`, refused, refused, refused, 'done'],
    [`select * from realtime.log`, refused, refused, refused, 'done'],
    [`insert into realtime.outbox values ('1', '0/1', 'user:ann', '1')`, refused, refused, refused, 'done'],
    [`insert into realtime.watched (target, channels) values ('lair.item', '{x}')`, refused, refused, '23505', '23505'],
    [`insert into realtime.watched (target, channels) values ('lair.other', '{x}')`, refused, refused, 'done', 'done'],
    [
      `update realtime.watched set channels = '{user:ann}' where target = 'lair.item'::regclass returning 1`,
      refused,
      'none',
      'done',
      'done',
    ],
    [`select * from realtime.relay(1, '[]')`, refused, refused, refused, 'done'],
    [`select realtime.append_one(1, 1, null, 'a', '1', null, null, null)`, refused, refused, refused, 'done'],
    [`select realtime.capture_fault('lair.item'::regclass, 'x')`, refused, refused, refused, 'done'],
    [`select realtime.renew_captures(true)`, refused, refused, refused, 'done'],
    [
      `create temp table "user:ann" (id int); create trigger t after insert on "user:ann" for each row
      execute function public.notify_realtime_event()`,
      refused,
      refused,
      refused,
      'done',
    ],
    [
      `create temp table mine (id int); create trigger t after insert on mine referencing new table as new_rows
      for each statement execute function realtime.capture_1()`,
      refused,
      refused,
      'done',
      'done',
    ],
  ];

  test.each(calls)('%s', async (call, ...expected) => {
    await clients['tenant']!.unsafe(`create table lair.item (id int); create table lair.other (id int);
      grant insert on lair.item to ${writer}; select realtime.watch('lair.item')`);
    // The first watch has this number, whatever was watched before.
    await superuser.unsafe(`select realtime.renew_captures(false)`);
    const [row] = await sql`select number from realtime.watched where target = 'lair.item'::regclass`;
    const text = call.replace('capture_1()', `capture_${row!['number'] as number}()`);
    for (const [index, name] of ['nobody', 'writer', 'tenant', 'owner'].entries()) {
      const client = clients[name]!;
      let outcome = 'done';
      await client
        .begin(async (tx) => {
          const rows = await tx.unsafe(text);
          if (text.endsWith('returning 1') && rows.length === 0) outcome = 'none';
          throw new Error('undo');
        })
        .catch((error: unknown) => {
          if (error instanceof postgres.PostgresError) outcome = error.code;
        });
      expect(`${name}: ${outcome}`).toBe(`${name}: ${expected[index]!}`);
    }
  });

  test('nobody else may do anything with what the migrations made', async () => {
    const granted = await superuser`
      select p.oid::regprocedure::text as name, a.grantee::regrole::text as role
      from pg_proc p cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
      where (p.pronamespace = 'realtime'::regnamespace or p.proname = 'notify_realtime_event')
        and a.grantee not in (p.proowner, ${tenant}::regrole) and p.prosecdef
      union all
      select c.oid::regclass::text, a.grantee::regrole::text
      from pg_class c cross join lateral aclexplode(c.relacl) a
      where c.relnamespace = 'realtime'::regnamespace and a.grantee <> c.relowner and c.relname <> 'watched'
      union all
      select n.nspname, a.grantee::regrole::text from pg_namespace n cross join lateral aclexplode(n.nspacl) a
      where n.nspname = 'realtime' and a.grantee not in (n.nspowner, ${tenant}::regrole, ${writer}::regrole)`;
    expect(granted.slice()).toEqual([]);
  });

  test('every function pins its search_path but one that runs as the writer, and none but these runs as the owner', async () => {
    const functions = await superuser`
      select p.proname as name, p.prosecdef as definer, coalesce(p.proconfig::text like '%search_path=%', false) as pinned
      from pg_proc p where p.pronamespace = 'realtime'::regnamespace or p.proname = 'notify_realtime_event'`;
    // Every statement pays for it. Its names have their schema written out, which the shadows below would show otherwise.
    expect(functions.filter(({ pinned }) => pinned !== true).map(({ name }) => name as unknown)).toEqual(['mark']);
    const definers = functions.filter(({ definer }) => definer === true).map(({ name }) => name as string);
    expect(definers.filter((name) => !name.startsWith('capture_')).toSorted()).toEqual([
      'notify_realtime_event',
      'on_unwatched',
      'on_watched',
      'send',
    ]);
  });

  test('a trigger function on another table than its own captures nothing', async () => {
    const client = clients['tenant']!;
    await client.unsafe(
      `create table lair.item (id int); create table lair.other (id int); select realtime.watch('lair.item')`,
    );
    const [row] = await superuser`select number from realtime.watched where target = 'lair.item'::regclass`;
    await client.unsafe(`create trigger t after insert on lair.other referencing new table as new_rows
      for each statement execute function realtime.capture_${row!['number'] as number}()`);
    await client`insert into lair.other values (1)`;
    expect(await takenOver(sql)).toEqual([]);
  });
});

describe('no code of anybody else runs as the owner of the schema', () => {
  const evilCasts = (type: string): string => `
    create function lair.to_json_of_${type}(lair.${type}) returns json language plpgsql as
      $$ begin perform notes.note('cast to json'); return '"forged"'; end $$;
    create function lair.to_jsonb_of_${type}(lair.${type}) returns jsonb language plpgsql as
      $$ begin perform notes.note('cast to jsonb'); return '"forged"'; end $$;
    create function lair.to_text_of_${type}(lair.${type}) returns text language plpgsql as
      $$ begin perform notes.note('cast to text'); return 'forged'; end $$;
    create cast (lair.${type} as json) with function lair.to_json_of_${type}(lair.${type}) as implicit;
    create cast (lair.${type} as jsonb) with function lair.to_jsonb_of_${type}(lair.${type}) as implicit;
    create cast (lair.${type} as text) with function lair.to_text_of_${type}(lair.${type}) as implicit;`;
  const evilOperators = (type: string): string => `
    create function lair.same_${type}(lair.${type}, lair.${type}) returns boolean language plpgsql as
      $$ begin perform notes.note('operator'); return true; end $$;
    create operator lair.= (leftarg = lair.${type}, rightarg = lair.${type}, function = lair.same_${type});
    create function lair.join_${type}(text, lair.${type}) returns text language plpgsql as
      $$ begin perform notes.note('operator'); return 'forged'; end $$;
    create operator lair.|| (leftarg = text, rightarg = lair.${type}, function = lair.join_${type});`;
  // Names of functions that the capture calls, in a schema that the caller's search_path has first.
  const shadows = ['to_json', 'row_to_json', 'md5', 'num_nulls', 'pg_typeof', 'concat', 'format', 'set_config', 'part']
    .map(
      (name) => `create function lair.${name}(anyelement) returns text language plpgsql as
      $$ begin perform notes.note('shadow ${name}'); return 'forged'; end $$;`,
    )
    .join('\n');

  const lairs: readonly (readonly [name: string, definition: string, column: string, value: string])[] = [
    [
      'an enum',
      `create type lair.mood as enum ('x'); ${evilCasts('mood')} ${evilOperators('mood')}`,
      'lair.mood',
      `'x'`,
    ],
    ['an array of an enum', `create type lair.mood as enum ('x'); ${evilCasts('mood')}`, 'lair.mood[]', `'{x}'`],
    [
      'a domain over an enum, with a check',
      `create type lair.mood as enum ('x'); ${evilCasts('mood')}
        create domain lair.checked as lair.mood check (notes.note(value::text) is not null)`,
      'lair.checked',
      `'x'`,
    ],
    [
      'a domain over text, with casts that the server ignores',
      `create domain lair.label as text check (notes.note('check') is not null); ${evilCasts('label')}`,
      'lair.label',
      `'x'`,
    ],
    [
      'a composite',
      `create type lair.mood as enum ('x'); ${evilCasts('mood')} create type lair.pair as (m lair.mood, n int); ${evilCasts('pair')}`,
      'lair.pair',
      `row('x', 1)`,
    ],
    [
      'an array of a composite',
      `create type lair.mood as enum ('x'); ${evilCasts('mood')} create type lair.pair as (m lair.mood, n int)`,
      'lair.pair[]',
      `array[row('x', 1)::lair.pair]`,
    ],
    [
      'the row of a table',
      `create type lair.mood as enum ('x'); ${evilCasts('mood')} create table lair.inner_row (m lair.mood)`,
      'lair.inner_row',
      `row('x')`,
    ],
    [
      'a range',
      `create function lair.width(text, text) returns float8 language plpgsql immutable as
        $$ begin perform notes.note('range'); return 1; end $$;
        create type lair.span as range (subtype = text, subtype_diff = lair.width); ${evilCasts('span')}`,
      'lair.span',
      `'[a,b)'`,
    ],
    ['text beside functions and operators of the same names', `${shadows}`, 'text', `'x'`],
  ];

  const actors = ['writer', 'tenant'] as const;

  test.each(lairs)('%s', async (_name, definition, column, value) => {
    const client = clients['tenant']!;
    await client.unsafe(definition);
    await client.unsafe(`create table lair.item (id int primary key, v ${column}, w ${column} default ${value},
        made text default notes.note('default'), n int generated always as (id * 2) stored)`);
    await client.unsafe(`grant select, insert, update, delete, truncate on lair.item to ${writer}`);
    await client`select realtime.watch('lair.item', array['item', 'v:{v}', 'w:{w}'])`;
    for (const [index, name] of actors.entries()) {
      const actor = clients[name]!;
      await actor`set search_path = lair, pg_catalog, public`;
      for (const isolation of ['read committed', 'repeatable read']) {
        const id = index * 10 + (isolation === 'read committed' ? 1 : 2);
        await actor.unsafe(`set default_transaction_isolation = '${isolation}'`);
        await actor.unsafe(`insert into lair.item (id, v) values (${id}, ${value})`);
        await actor.unsafe(`update lair.item set v = null where id = ${id}`);
        await actor.unsafe(`update lair.item set v = ${value}, w = null where id = ${id}`);
        await actor.unsafe(`delete from lair.item where id = ${id}`);
      }
      await actor`truncate lair.item`;
      await actor.unsafe('reset all');
    }
    const seen = await takenOver(sql);
    expect(seen.filter(({ channel }) => channel === 'item').length).toBe(2 * (2 * 4 + 1));
    expect(JSON.stringify(seen)).not.toContain('forged');
    const ran = await superuser`select distinct who from notes.ran where who not in (${writer}, ${tenant})`;
    expect(ran.slice()).toEqual([]);
  });

  // What is plain when a table is watched need not stay so.
  const turns: readonly (readonly [name: string, before: string, turn: string])[] = [
    ['a column is added', 'id int primary key, v int', `alter table lair.item add w lair.mood default 'x'`],
    [
      'a column gets the type',
      'id int primary key, v int',
      `alter table lair.item alter v type lair.mood using 'x', alter v set default 'x'`,
    ],
    [
      'a column is replaced by one of the same name',
      'id int primary key, v int',
      `alter table lair.item drop v; alter table lair.item add v lair.mood default 'x'`,
    ],
    [
      'an attribute is added to the type of a column',
      'id int primary key, v lair.plain',
      `alter type lair.plain add attribute m lair.mood`,
    ],
    [
      'an attribute is replaced by one of the same name',
      'id int primary key, v lair.plain',
      `alter type lair.plain drop attribute a; alter type lair.plain add attribute a lair.mood`,
    ],
    [
      'the element of an array is changed',
      'id int primary key, v lair.plain[]',
      `alter type lair.plain add attribute m lair.mood`,
    ],
  ];

  const captures = {
    'realtime.watch': `select realtime.watch('lair.item')`,
    'the row trigger': `create trigger t after insert or update or delete on lair.item for each row
      execute function public.notify_realtime_event()`,
  };

  test.each(
    turns.flatMap((turn) => Object.entries(captures).map(([name, capture]) => [...turn, name, capture] as const)),
  )(
    '%s, while sessions have their plans and transactions their snapshots',
    async (_name, before, turn, _capture, capture) => {
      const client = clients['tenant']!;
      await sql.unsafe(`grant execute on function public.notify_realtime_event() to ${tenant}`);
      await client.unsafe(`create type lair.mood as enum ('x'); ${evilCasts('mood')} create type lair.plain as (a int);
      create table lair.item (${before}); grant all on lair.item to ${writer}`);
      await client.unsafe(capture);
      const actor = clients['writer']!;
      const late = await as(writer).reserve();
      try {
        for (let id = 1; id <= 6; id++) await actor`insert into lair.item (id) values (${id})`;
        await actor`update lair.item set id = id + 100`;
        await late`begin isolation level repeatable read`;
        await late`select 1`;
        await client.unsafe(turn);
        for (const session of [late, actor]) {
          const id = session === late ? 1_000 : 2_000;
          await session`insert into lair.item (id) values (${id})`;
          await session`update lair.item set id = id + 1 where id = ${id}`;
          await session`delete from lair.item where id = ${id + 1}`;
        }
        await late`commit`;
        await superuser`select realtime.renew_captures(false)`;
        await actor`insert into lair.item (id) values (3000)`;
        expect((await superuser`select distinct who from notes.ran where who <> ${writer}`).slice()).toEqual([]);
        const seen = await takenOver(sql);
        expect(JSON.stringify(seen)).not.toContain('forged');
        // All of the last three statements outside of the old snapshot, and the one after the renewal.
        expect(seen.slice(-4).map(({ data }) => data['action'])).toEqual(['INSERT', 'UPDATE', 'DELETE', 'INSERT']);
      } finally {
        late.release();
        await sql.unsafe(`revoke execute on function public.notify_realtime_event() from ${tenant}`);
      }
    },
  );

  test('a stored column of a partition that somebody computes is not computed by us', async () => {
    const client = clients['tenant']!;
    await client.unsafe(`create function lair.seen(n int) returns int language plpgsql immutable as
        $$ begin perform notes.note('computed'); return null; end $$;
      create table lair.item (id int, v int generated always as (lair.seen(id)) stored) partition by list (id);
      create table lair.item_1 partition of lair.item default`);
    await client`select realtime.watch('lair.item', array['item', 'v:{v}'])`;
    await client`insert into lair.item (id) values (1)`;
    await client`update lair.item set id = 2`;
    expect((await superuser`select distinct who from notes.ran where who <> ${tenant}`).slice()).toEqual([]);
    await takenOver(sql);
  });

  test('a type that a superuser gave away runs no cast of its new owner', async () => {
    const client = clients['tenant']!;
    await superuser.unsafe(`create type lair.mood as enum ('x')`);
    await client.unsafe(`create table lair.item (id int, m lair.mood)`);
    await client`select realtime.watch('lair.item')`;
    await client`insert into lair.item values (1, 'x')`;
    await superuser.unsafe(`alter type lair.mood owner to ${tenant}`);
    await client.unsafe(`${evilCasts('mood')}`);
    await client`insert into lair.item values (2, 'x')`;
    expect((await superuser`select distinct who from notes.ran where who <> ${tenant}`).slice()).toEqual([]);
    expect((await takenOver(sql)).map(({ data }) => (data['data'] as { m: string }).m)).toEqual(['x', 'x']);
  });

  test('names that are SQL are names', async () => {
    const client = clients['tenant']!;
    const evil = `x'); select notes.note('injected'); --`;
    const quoted = `"${evil}"`;
    await client.unsafe(`create type lair.${quoted} as enum ('x');
      create table lair.item (${quoted} int primary key, "$$ || notes.note('x') || $$" lair.${quoted}, "{room}" text, "%s" int)`);
    await client`select realtime.watch('lair.item', array['item', ${`i:{${evil}}`}])`;
    await client.unsafe(`insert into lair.item values (1, 'x', 'r', 2)`);
    await client.unsafe(`update lair.item set ${quoted} = 2`);
    await client.unsafe(`delete from lair.item`);
    expect((await superuser`select * from notes.ran`).slice()).toEqual([]);
    expect((await takenOver(sql)).map(({ channel }) => channel)).toEqual([
      'item',
      'i:1',
      'item',
      'i:1',
      'i:2',
      'item',
      'i:2',
    ]);
  });

  test("the row trigger, attached by somebody who was granted it, prints as watch does and runs nobody's code", async () => {
    const client = clients['tenant']!;
    await client.unsafe(`create type lair.mood as enum ('x'); ${evilCasts('mood')}
      create table lair.item (id int primary key, m lair.mood, n int)`);
    await sql.unsafe(`grant execute on function public.notify_realtime_event() to ${tenant}`);
    await client.unsafe(`create trigger t after insert or update or delete on lair.item for each row
      execute function public.notify_realtime_event()`);
    for (const isolation of ['read committed', 'serializable']) {
      await client.unsafe(`set default_transaction_isolation = '${isolation}'`);
      await client`insert into lair.item values (1, 'x')`;
      await client`update lair.item set m = null`;
      await client`delete from lair.item`;
    }
    await client.unsafe('reset all');
    expect((await superuser`select distinct who from notes.ran where who <> ${tenant}`).slice()).toEqual([]);
    const seen = await takenOver(sql);
    expect(seen.map(({ data }) => [data['action'], data['data'], data['old']] as unknown).slice(0, 3)).toEqual([
      ['INSERT', { id: 1, m: 'x', n: null }, null],
      ['UPDATE', { id: 1, m: null, n: null }, { id: 1, m: 'x' }],
      ['DELETE', null, { id: 1, m: null, n: null }],
    ]);
    expect(seen).toHaveLength(6);
    await client.unsafe(`create temp table "user:ann" (id int); create trigger t after insert on "user:ann" for each row
      execute function public.notify_realtime_event()`);
    expect(await codeOf(client`insert into "user:ann" values (1)`)).toBe('42809');
    await sql.unsafe(`revoke execute on function public.notify_realtime_event() from ${tenant}`);
  });

  test('a setting that statements leave in the session cannot be misused', async () => {
    const client = clients['tenant']!;
    await client.unsafe(`create table lair.item (id int primary key)`);
    await client`select realtime.watch('lair.item')`;
    for (const value of [
      'nonsense',
      ' 1@0/0 !',
      ' 999999999999@0/0',
      `'; select notes.note('x'); --`,
      ' 1@FFFFFFFFF/0',
      ' 2@FFFFFFFF/FFFFFFFF !',
      ' 2@FFFFFFFF/FFFFFFFF.DELETE !',
    ]) {
      await client`select set_config('sobranie.marks', ${value}, false)`;
      await client`insert into lair.item values (1)`;
      await client`delete from lair.item`;
    }
    expect((await superuser`select * from notes.ran`).slice()).toEqual([]);
    expect(await takenOver(sql)).toHaveLength(14);
  });
});
