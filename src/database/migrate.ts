// Migrates a database to the schema of this version. Any number of nodes may start at once: one migrates, and the
// others wait for it and find nothing left to do.
//
// The database is somebody's: nothing outside of the schema `realtime` is touched but public.notify_realtime_event. The
// table of migrations is in that schema too, so an application's own migrations by drizzle are never met.

import { readMigrationFiles, type MigrationMeta } from 'drizzle-orm/migrator';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { shippedPath } from '../shipped/files.ts';
import { connect, unavailable, type Database } from './connect.ts';
import { findSchema, setAsideEarlier, takeOverEarlier } from './earlier-schema.ts';
import { PoolerInTheWay, refusePooler } from './pooler.ts';
import { refuseForeignOwner } from './same-database.ts';
import { isOutdated, replacing, setAsideOutdated, takeOverOutdated } from './outdated-schema.ts';

const migrationsFolder = shippedPath('migrations');
const rightIsMissing = '42501';
/** Beside the doorbell's locks: the same first key. */
const lock = '1937006946, 4';

// What a role or a database may have set otherwise, and what the migrations mean. The lock timeout bounds the wait for
// another node, and for a table that an open transaction holds.
const sessionSettings = `
  set lock_timeout = '60s'; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0;
  set default_transaction_isolation = 'read committed'; set default_transaction_read_only = off;
  set search_path = pg_catalog; set default_table_access_method = heap; set default_tablespace = '';
  set standard_conforming_strings = on; set check_function_bodies = on; set row_security = on;
  set plpgsql.extra_errors = ''; set plpgsql.extra_warnings = ''`;

export interface Migrated {
  /** What the operator should know of; in words, one sentence each. */
  readonly remarks: readonly string[];
}

/**
 * Applies the migrations that the database lacks, and renews the trigger functions that are not as they have to be. Throws:
 *
 * - `unavailable` when the database cannot be reached, or another node holds the migration for more than a minute
 * - `PoolerInTheWay` when the URL leads to a pooler that keeps no sessions
 * - a plain error, which no retry helps, when a migration fails, when a newer version has migrated the database, or when
 *   the schema `realtime` is somebody else's or another role's
 */
export async function migrate(url: string): Promise<Migrated> {
  // The lock below would be left behind on a session of the pooler's, and no other node could ever migrate.
  await refusePooler(url).catch((error: unknown) => {
    throw error instanceof PoolerInTheWay ? error : unavailable(error);
  });
  const sql = connect(url, { applicationName: 'sobranie migrate', max: 1, answerSeconds: 0 });
  try {
    await connectFirst(sql);
    await refuseOld(sql);
    const remarks = await migrateWith(sql);
    // Of tables that were altered, or of all: each session of a writer pays for a function that is written anew.
    await sql`select realtime.renew_captures(false)`;
    return { remarks };
  } catch (error) {
    // A right that is missing may be one that the owner of the schema has.
    if ((error as { code?: unknown }).code === rightIsMissing) await refuseForeignOwner(sql);
    throw error;
  } finally {
    await sql.end({ timeout: 5 });
  }
}

async function connectFirst(sql: Database): Promise<void> {
  try {
    await sql.unsafe(`${sessionSettings}; select pg_advisory_lock(${lock})`).simple();
  } catch (error) {
    throw unavailable(error);
  }
}

async function refuseOld(sql: Database): Promise<void> {
  const [row] = await sql`select current_setting('server_version_num')::int as number`;
  const fault = versionFault(Number(row?.['number']));
  if (fault !== undefined) throw new RealtimeError('internal', fault);
}

/** `number` as PostgreSQL gives it, such as 120018. Undefined when this version will do. */
export function versionFault(number: number): string | undefined {
  if (number >= 130_000) return undefined;
  const version = number >= 100_000 ? String(Math.floor(number / 10_000)) : `9.${Math.floor(number / 100) % 100}`;
  return `The database is PostgreSQL ${version}. This server needs 13 or newer: upgrade it, or set another DATABASE_URL.`;
}

async function migrateWith(sql: Database): Promise<string[]> {
  const known = readMigrationFiles({ migrationsFolder });
  const found = await findSchema(sql);
  if (found === 'foreign') {
    throw new RealtimeError(
      'internal',
      'The database has a schema "realtime" that is not this server\'s, such as the one of Supabase Realtime. ' +
        'This server needs that name: give it a database of its own, or rename the other schema.',
    );
  }
  if (found === 'empty') {
    throw new RealtimeError(
      'internal',
      'The schema "realtime" was restored without its data, as by pg_dump --schema-only. ' +
        'Restore its data too, or drop it (DROP SCHEMA realtime CASCADE), start again, and watch the tables again.',
    );
  }
  if (found === 'none') await refuseForeignFunction(sql);
  const appliedAt = found === 'ours' ? await newestApplied(sql) : 0;
  if (appliedAt > (known.at(-1)?.folderMillis ?? 0)) {
    throw new RealtimeError(
      'internal',
      'The database was migrated by a newer version of this server: start that version, or restore a backup.',
    );
  }
  const outdated = found === 'ours' && (await isOutdated(sql, known));
  const pending = outdated ? known : known.filter(({ folderMillis }) => folderMillis > appliedAt);
  if (pending.length === 0) return [];
  // All or nothing, as one transaction: a start that is killed halfway leaves the schema as it was.
  return await sql.begin(async (transaction) => {
    const tx = transaction as unknown as Database;
    if (found === 'earlier') await setAsideEarlier(tx);
    if (outdated) await setAsideOutdated(tx);
    const healed = found === 'none' && (await wasDropped(tx));
    if (found !== 'ours' || outdated) await createSchema(tx);
    for (const migration of pending) await apply(tx, migration, outdated ? replacing : undefined);
    const remarks = found === 'earlier' ? await takeOverEarlier(tx) : outdated ? await takeOverOutdated(tx) : [];
    // As if all tables were altered: what writes their trigger functions may be another version now.
    await tx`update realtime.watched set shape = null`;
    if (healed) {
      remarks.push(
        'The schema "realtime" was gone and is made again. What it watched has to be watched again: realtime.watch.',
      );
    }
    return remarks;
  });
}

async function newestApplied(sql: Database): Promise<number> {
  const [last] = await sql`select max(created_at) as at from realtime.migrations`;
  return Number(last?.['at'] ?? 0);
}

async function refuseForeignFunction(sql: Database): Promise<void> {
  const [row] = await sql`
    select from pg_proc p where p.oid = to_regprocedure('public.notify_realtime_event()')
      and strpos(p.prosrc, 'realtime.outbox') = 0`;
  if (row === undefined) return;
  throw new RealtimeError(
    'internal',
    "The database has a function public.notify_realtime_event() that is not this server's. Rename or drop it.",
  );
}

/** The function in the schema `public` is all that a `DROP SCHEMA realtime CASCADE` leaves. */
async function wasDropped(sql: Database): Promise<boolean> {
  const [row] = await sql`select to_regprocedure('public.notify_realtime_event()') is not null as left`;
  return row?.['left'] === true;
}

/** The table has the form that drizzle's tools expect of it. */
async function createSchema(sql: Database): Promise<void> {
  await sql
    .unsafe(
      `create schema if not exists realtime;
       create table realtime.migrations (id serial primary key, hash text not null, created_at bigint)`,
    )
    .simple();
}

async function apply(
  sql: Database,
  { sql: statements, hash, folderMillis }: MigrationMeta,
  rewrite = (statement: string): string => statement,
): Promise<void> {
  for (const statement of statements) await sql.unsafe(rewrite(statement)).simple();
  await sql`insert into realtime.migrations (hash, created_at) values (${hash}, ${folderMillis})`;
}
