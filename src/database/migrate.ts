// Migrates a database to the schema of this version. Any number of nodes may start at once: one migrates, and the
// others wait for it and find nothing left to do.

import { drizzle } from 'drizzle-orm/postgres-js';
import { readMigrationFiles } from 'drizzle-orm/migrator';
import { migrate as applyMigrations } from 'drizzle-orm/postgres-js/migrator';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { shippedPath } from '../shipped/files.ts';
import { connect, unavailable, type Database } from './connect.ts';

const migrationsFolder = shippedPath('migrations');
/** Beside the doorbell's locks: the same first key. */
const lock = '1937006946, 4';

/**
 * Applies the migrations that the database lacks. Throws `unavailable` when it cannot be reached or another node holds
 * the migration for more than a minute, and a plain error, which no retry helps, when a migration fails or when the
 * database was migrated by a newer version.
 */
export async function migrate(url: string): Promise<void> {
  const sql = connect(url, { applicationName: 'sobranie migrate', max: 1, answerSeconds: 0 });
  try {
    await migrateWith(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

async function migrateWith(sql: Database): Promise<void> {
  try {
    // The lock timeout bounds the wait for another node, and for a table that an open transaction holds.
    await sql.unsafe(`set lock_timeout = '60s'; select pg_advisory_lock(${lock})`).simple();
  } catch (error) {
    throw unavailable(error);
  }
  await refuseNewer(sql);
  await applyMigrations(drizzle(sql), { migrationsFolder });
}

/** An older version would write to tables whose meaning it does not know. */
async function refuseNewer(sql: Database): Promise<void> {
  const known = readMigrationFiles({ migrationsFolder }).at(-1)?.folderMillis ?? 0;
  const [found] = await sql`select to_regclass('drizzle.__drizzle_migrations') is not null as migrated`;
  if (found?.['migrated'] !== true) return;
  const [last] = await sql`select max(created_at)::float8 as at from drizzle.__drizzle_migrations`;
  if (Number(last?.['at'] ?? 0) > known) {
    throw new RealtimeError(
      'internal',
      'The database was migrated by a newer version of this server: start that version, or restore a backup.',
    );
  }
}
