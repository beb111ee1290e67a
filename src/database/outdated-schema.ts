// How a schema whose migrations were rewritten since becomes the present one. Numbers and names of migrations say nothing
// then, their contents do: everything is made anew, and what the tables held goes over, column by column of the same name.
// What a crash may forget, such as presence and counts of limits, begins anew. All in the transaction of the migration.
//
// Functions that triggers of watched tables have keep their names, so that no table of the application needs a lock.

import type { MigrationMeta } from 'drizzle-orm/migrator';
import type { Database } from './connect.ts';

const aside = 'realtime_outdated';

/** Whether the database was migrated by something else than these migrations, or than the first of them. */
export async function isOutdated(sql: Database, known: readonly MigrationMeta[]): Promise<boolean> {
  const applied = await sql<{ hash: string; at: number }[]>`
    select hash, created_at as at from realtime.migrations`;
  const hashes = new Map(known.map(({ folderMillis, hash }) => [folderMillis, hash]));
  return applied.some(({ hash, at }) => hashes.get(at) !== hash);
}

/** Moves the tables out of the way, and drops what can be: a function that an application's index uses stays. */
export async function setAsideOutdated(sql: Database): Promise<void> {
  await sql
    .unsafe(
      `create schema ${aside};
       create table ${aside}.grants as
         select format('usage on schema realtime to %s', a.grantee::regrole) as command
         from pg_namespace n cross join lateral aclexplode(n.nspacl) a
         where n.nspname = 'realtime' and a.grantee not in (0, n.nspowner) and a.privilege_type = 'USAGE'
         union select format('execute on function %s to %s', p.oid::regprocedure, a.grantee::regrole)
         from pg_proc p cross join lateral aclexplode(p.proacl) a
         where (p.pronamespace = 'realtime'::regnamespace and p.proname in ('send', 'watch', 'unwatch')
             or p.oid = to_regprocedure('public.notify_realtime_event()'))
           and a.grantee not in (0, p.proowner);
       drop view if exists realtime.watches;
       drop policy if exists watched_owner on realtime.watched;
       do $$
       declare
         item record;
       begin
         for item in
           select t.tgname as name, t.tgrelid::regclass as relation
           from pg_trigger t join pg_class c on c.oid = t.tgrelid
           where c.relnamespace = 'realtime'::regnamespace and not t.tgisinternal
         loop
           execute format('drop trigger %I on %s', item.name, item.relation);
         end loop;
         for item in
           select p.oid::regprocedure as routine from pg_proc p
           where p.pronamespace = 'realtime'::regnamespace and p.proname !~ '^capture_[0-9]+$'
         loop
           begin
             execute format('drop function %s', item.routine);
           exception when dependent_objects_still_exist then
             raise notice '% stays', item.routine;
           end;
         end loop;
         for item in
           select c.oid::regclass as relation, case c.relkind when 'S' then 'sequence' else 'table' end as kind
           from pg_class c
           where c.relnamespace = 'realtime'::regnamespace and (c.relkind = 'r' or c.relkind = 'S' and not exists (
             select from pg_depend d
             where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')
           ))
         loop
           execute format('alter %s %s set schema ${aside}', item.kind, item.relation);
         end loop;
         for item in
           select t.oid::regtype as type from pg_type t join pg_class c on c.oid = t.typrelid and c.relkind = 'c'
           where t.typnamespace = 'realtime'::regnamespace
         loop
           execute format('drop type %s', item.type);
         end loop;
       end
       $$`,
    )
    .simple();
}

/** A migration's statement, where functions of the same name may have stayed. */
export function replacing(statement: string): string {
  return statement.replaceAll(/^CREATE FUNCTION /gm, 'CREATE OR REPLACE FUNCTION ');
}

/** Brings over what the tables held, once the present ones are made. Answers remarks for the operator. */
export async function takeOverOutdated(sql: Database): Promise<string[]> {
  await sql
    .unsafe(
      `delete from realtime.log;
       alter table realtime.watched disable trigger on_watched;
       do $$
       declare
         item record;
         number bigint;
         missing record;
       begin
         for item in
           select n.oid::regclass as target, o.oid::regclass as source,
             (select string_agg(quote_ident(a.attname), ', ')
               from pg_attribute a join pg_attribute b on b.attrelid = o.oid and b.attname = a.attname
               where a.attrelid = n.oid and a.attnum > 0 and b.attnum > 0 and not a.attisdropped
                 and not b.attisdropped) as columns
           from pg_class n join pg_class o on o.relname = n.relname and o.relnamespace = '${aside}'::regnamespace
           where n.relnamespace = 'realtime'::regnamespace and n.relkind = 'r' and n.relpersistence = 'p'
             and o.relkind = 'r' and n.relname <> 'migrations'
         loop
           execute format('insert into %s (%s) overriding system value select %2$s from %3$s',
             item.target, item.columns, item.source);
         end loop;
         -- An earlier version noted less of what row triggers captured.
         perform realtime.give_up_order(u, 'an earlier version captured them') from realtime.unordered u where u.watch is null;
         delete from realtime.unordered where watch is null;
         delete from realtime.row_changes;
         for item in
           select c.oid::regclass as target, d.refobjid::regclass as relation, a.attname as name,
             to_regclass('${aside}.' || quote_ident(c.relname)) as source
           from pg_class c
           left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')
           left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
           where c.relnamespace = 'realtime'::regnamespace and c.relkind = 'S'
         loop
           if item.relation is not null and item.relation <> 'realtime.migrations'::regclass then
             execute format('select max(%I) from %s', item.name, item.relation) into number;
             perform setval(item.target, greatest(1, number));
           elsif item.relation is null and item.source is not null then
             execute format('select last_value from %s', item.source) into number;
             perform setval(item.target, number);
           end if;
         end loop;
         for item in select g.command from ${aside}.grants g loop
           execute 'grant ' || item.command;
         end loop;
         for item in select w.* from realtime.watched w where realtime.is_owner(w.target) loop
           for missing in
             select t.name, t.definition from realtime.watch_triggers(item.number, item.target) t
             where t.name <> all (realtime.present_triggers(item.target))
           loop
             perform realtime.define_capture(w) from realtime.watched w where w.number = item.number;
             exit when not realtime.lock_briefly(item.target, 'SHARE ROW EXCLUSIVE');
             execute format('create trigger %I %s', missing.name, missing.definition);
           end loop;
         end loop;
       end
       $$;
       alter table realtime.watched enable trigger on_watched;
       drop schema ${aside} cascade`,
    )
    .simple();
  const unwatched = await sql<{ target: string }[]>`
    select w."table"::text as target from realtime.watches w where w.fault like '%without triggers%' order by 1`;
  return unwatched.map(
    ({ target }) =>
      `The watch of ${target} lacks a trigger of this version. Its owner adds it by calling realtime.watch again.`,
  );
}
