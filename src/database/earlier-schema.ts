// Which schema `realtime` a database has, and how one of an earlier version of this server becomes the present one: what
// waits to be published, the log and the watches go over, whatever of it an earlier version had. Everything happens in
// the transaction of the migration.
//
// Earlier versions kept their migrations in `drizzle.__drizzle_migrations`, which an application by drizzle shares.

import type { Database } from './connect.ts';

/**
 * `earlier`: of a version before `realtime.migrations`. `empty`: ours, but without what the migrations wrote into it.
 * `foreign`: somebody else's.
 */
export type FoundSchema = 'none' | 'ours' | 'empty' | 'earlier' | 'foreign';

/** Times by which the shared table of migrations knows those of earlier versions. */
const earlierMigrations = [
  1795220720031, 1795220720647, 1795220721120, 1795220721724, 1795220722394, 1795220723399, 1795231457806,
  1795233600007, 1795233600008, 1795841719045,
];

const aside = 'realtime_earlier';

export async function findSchema(sql: Database): Promise<FoundSchema> {
  const [row] = await sql<{ found: FoundSchema }[]>`
    with relation as (
      select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'realtime'
    ), routine as (
      select p.proname as name from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'realtime'
    )
    select case
      when exists (select from relation where name = 'migrations') and exists (select from relation where name = 'watched')
        then 'ours'
      when exists (select from routine where name = 'define_capture')
        and 3 = (select count(*) from relation where name in ('outbox', 'log', 'publications')) then 'earlier'
      when exists (select from relation) or exists (select from routine) then 'foreign'
      else 'none' end as found`;
  const found = row?.found ?? 'none';
  if (found !== 'ours') return found;
  const applied = await sql`select from realtime.migrations limit 1`;
  return applied.length > 0 ? 'ours' : 'empty';
}

/** Moves the earlier tables out of the way, and drops the functions but those that triggers have. */
export async function setAsideEarlier(sql: Database): Promise<void> {
  await sql
    .unsafe(
      `create schema ${aside};
       create table ${aside}.grants as
         select 'schema' as kind, pg_get_userbyid(a.grantee) as role
         from pg_namespace n cross join lateral aclexplode(n.nspacl) a
         where n.nspname = 'realtime' and a.grantee not in (0, n.nspowner) and a.privilege_type = 'USAGE'
         union select p.proname, pg_get_userbyid(a.grantee)
         from pg_proc p cross join lateral aclexplode(p.proacl) a
         where p.pronamespace = 'realtime'::regnamespace and p.proname in ('send', 'watch', 'unwatch')
           and a.grantee not in (0, p.proowner);
       do $$
       declare
         item record;
       begin
         for item in
           select c.oid::regclass as relation from pg_class c
           where c.relnamespace = 'realtime'::regnamespace and c.relkind = 'r'
         loop
           execute format('alter table %s set schema ${aside}', item.relation);
         end loop;
         for item in
           select p.oid::regprocedure as routine from pg_proc p
           where p.pronamespace = 'realtime'::regnamespace and p.proname !~ '^capture_[0-9]+$'
         loop
           execute format('drop function %s', item.routine);
         end loop;
       end
       $$;
       drop sequence if exists realtime.capture_number`,
    )
    .simple();
}

/** Brings over what the earlier tables hold, once the present ones are made. Answers remarks for the operator. */
export async function takeOverEarlier(sql: Database): Promise<string[]> {
  // The earliest log had no name to notify under.
  await sql
    .unsafe(
      `update realtime.log l set epoch = e.epoch, topic = coalesce(to_jsonb(e) ->> 'topic', l.topic) from ${aside}.log e;
       insert into realtime.channels (channel, epoch, "offset", history_size, history_seconds, used_at)
         select channel, epoch, "offset", history_size, history_seconds, used_at from ${aside}.channels;
       insert into realtime.publications (seq, channel, "offset", data, at, from_user, from_connection, except_connection, key)
         select seq, channel, "offset", data, at, from_user, from_connection, except_connection, key
         from ${aside}.publications;
       select setval('realtime.publications_seq_seq', greatest(1, (select max(seq) from realtime.publications)));
       -- Older than everything that is written from now on.
       insert into realtime.outbox (xid, lsn, channel, data, key, at)
         select pg_current_xact_id(), format('0/%s', to_hex(row_number() over (order by id)))::pg_lsn, channel, data, key, at
         from ${aside}.outbox`,
    )
    .simple();
  await sql.unsafe(takeOverWatches).simple();
  const unmarked = await sql<{ target: string }[]>`
    select w.target::text as target from realtime.watched w
    where 'zz_realtime_mark' <> all (realtime.present_triggers(w.target)) order by 1`;
  await sql
    .unsafe(
      `do $$
       declare
         item record;
       begin
         for item in select g.kind, quote_ident(g.role) as role from ${aside}.grants g loop
           execute case item.kind when 'schema' then format('grant usage on schema realtime to %s', item.role)
             when 'send' then format('grant execute on function realtime.send(text, jsonb, text) to %s', item.role)
             when 'watch' then
               format('grant execute on function realtime.watch(regclass, text[], text[], text) to %s', item.role)
             else format('grant execute on function realtime.unwatch(regclass) to %s', item.role) end;
         end loop;
         if to_regclass('drizzle.__drizzle_migrations') is not null then
           delete from drizzle.__drizzle_migrations where created_at = any ('{${earlierMigrations.join(',')}}');
           if not exists (select from drizzle.__drizzle_migrations) then
             drop table drizzle.__drizzle_migrations;
             if not exists (select from pg_class where relnamespace = 'drizzle'::regnamespace) then
               drop schema drizzle;
             end if;
           end if;
         end if;
       end
       $$;
       drop schema ${aside} cascade`,
    )
    .simple();
  return unmarked.map(
    ({ target }) =>
      `The watch of ${target} lacks a trigger of this version: changes that its own triggers make may come out of order. ` +
      `Its owner adds it by calling realtime.watch again.`,
  );
}

/**
 * What was watched stands in the comment of each trigger function and, where there is a list of columns, in its text. The
 * functions keep their names, so the tables need no lock. They get the new trigger where this role may put it there.
 */
const takeOverWatches = `
  alter table realtime.watched disable trigger on_watched;
  do $$
  declare
    item record;
    watch realtime.watched;
    missing record;
  begin
    for item in
      select distinct on (t.tgrelid) t.tgrelid, p.oid, p.proname, p.prosrc, obj_description(p.oid, 'pg_proc') as comment
      from pg_trigger t join pg_proc p on p.oid = t.tgfoid
      where p.pronamespace = 'realtime'::regnamespace and p.proname ~ '^capture_[0-9]+$' order by t.tgrelid, t.tgname
    loop
      watch := null;
      watch.number := substring(item.proname from '[0-9]+$')::integer;
      watch.target := item.tgrelid;
      watch.channels := string_to_array(substring(item.comment from '^.* to (.*)[.] Made by realtime[.]watch[.]$'), ', ');
      watch.columns := (
        select array_agg((parse_ident(m.parts[1]))[1])
        from regexp_matches(substring(item.prosrc from 'LATERAL [(]SELECT ([^)]*)[)] n_shown'),
          'n[.]("(?:[^"]|"")+"|[^",[:space:]]+)', 'g') m (parts)
      );
      watch.numbers := 'json';
      watch.shape := realtime.shape(watch.target);
      watch.since := now();
      execute format('comment on function %s is null', item.oid::regprocedure);
      insert into realtime.watched select (watch).*;
      perform realtime.define_capture(watch);
      if realtime.is_owner(watch.target) then
        for missing in
          select t.name, t.definition from realtime.watch_triggers(watch.number, watch.target) t
          where t.name <> all (realtime.present_triggers(watch.target))
        loop
          exit when not realtime.lock_briefly(watch.target, 'SHARE ROW EXCLUSIVE');
          execute format('create trigger %I %s', missing.name, missing.definition);
        end loop;
      end if;
    end loop;
    -- Left behind by dropped tables and earlier watches.
    for item in
      select p.oid::regprocedure as routine from pg_proc p
      where p.pronamespace = 'realtime'::regnamespace and p.proname ~ '^capture_[0-9]+$'
        and not exists (select from pg_trigger t where t.tgfoid = p.oid)
    loop
      execute format('drop function %s', item.routine);
    end loop;
  end
  $$;
  alter table realtime.watched enable trigger on_watched`;
