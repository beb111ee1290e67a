// The data directory of the embedded PostgreSQL ("cluster" in its own words): made, set up, configured, checked. Never
// deletes a complete one.
//
// A cluster is made under another name and renamed when it is complete. So `postgres/` either is whole or is not there,
// whenever the making was cut off, and what was cut off can be recognised and swept by its name.

import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { PostgresAccount } from './account.ts';
import type { PostgresBinaries } from './binaries.ts';
import { EmbeddedPostgresError } from './embedded-error.ts';
import { endLeftovers, runProgram } from './process.ts';

/** The role that the printed URL names, and the database that it owns. No superuser. */
export const roleName = 'sobranie';
export const databaseName = 'sobranie';

const partialPrefix = 'postgres.partial-';
const settingsFile = 'sobranie.conf';

export interface ClusterTools {
  readonly binaries: PostgresBinaries;
  readonly account: PostgresAccount;
}

/** Whether there is a cluster that this PostgreSQL can run; throws where there is something else. */
export function hasCluster(cluster: string, binaries: PostgresBinaries): boolean {
  const versionFile = join(cluster, 'PG_VERSION');
  if (!existsSync(versionFile)) {
    if (!existsSync(cluster) || readdirSync(cluster).length === 0) return false;
    throw new EmbeddedPostgresError(`${cluster} holds files but no PostgreSQL database; move it away and start again`);
  }
  const major = readFileSync(versionFile, 'utf8').trim();
  if (major === String(binaries.major)) return true;
  throw new EmbeddedPostgresError(
    `${cluster} was made by PostgreSQL ${major}; this server brings PostgreSQL ${binaries.major}, which cannot` +
      ` read it; dump it with PostgreSQL ${major} and move it away (the next start makes an empty one),` +
      ' or set DATABASE_URL',
  );
}

/** Removes what a start that was cut off left of a cluster in the making. */
export async function sweepPartialClusters(directory: string): Promise<void> {
  for (const name of readdirSync(directory)) {
    if (!name.startsWith(partialPrefix)) continue;
    const partial = join(directory, name);
    await endLeftovers(partial);
    // initdb itself may outlive its owner for a moment and still write here.
    rmSync(partial, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }
}

/** initdb runs its helpers through a shell, their paths in double quotes, which would not take these literally. */
function refuseShellCharacters(path: string): void {
  if (!/["$`\\\n]/.test(path)) return;
  throw new EmbeddedPostgresError(
    `the embedded PostgreSQL cannot live in ${path}: no quote, dollar sign, backtick or backslash may be in the path;` +
      ' set DATA_DIR or DATABASE_URL, or move the project',
  );
}

/** Makes a cluster, ready to start but for its port, and calls `beforePublish` just before it gets its name. */
export async function createCluster(
  options: ClusterTools & { directory: string; cluster: string; password: string; beforePublish: () => void },
): Promise<void> {
  const { account, binaries } = options;
  for (const path of [options.directory, binaries.initdb]) refuseShellCharacters(path);
  const partial = mkdtempSync(join(options.directory, partialPrefix));
  try {
    account.own(partial);
    const common = [binaries.initdb, `--pgdata=${partial}`];
    const initialise = [
      ...common,
      '--username=postgres',
      '--encoding=UTF8',
      // The same order and case rules on every machine, whatever its C library.
      '--locale=C',
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--auth=reject',
      '--no-instructions',
      '--no-sync',
    ];
    await runProgram(account.command(initialise), { name: 'initdb' });
    configureAccess(partial);
    await setUpRole({ binaries, account, cluster: partial, password: options.password });
    // Once for all that was written, before the name says that it is complete.
    await runProgram(account.command([...common, '--sync-only']), { name: 'initdb --sync-only' });
    options.beforePublish();
    renameSync(partial, options.cluster);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    throw error;
  }
}

function configureAccess(cluster: string): void {
  // No socket and no superuser password: over the network there is the one role, by password, from this machine.
  writeFileSync(join(cluster, 'pg_hba.conf'), 'host all all 127.0.0.1/32 scram-sha-256\n');
  appendFileSync(join(cluster, 'postgresql.conf'), `\ninclude_if_exists = '${settingsFile}'\n`);
}

/**
 * Makes the role and its database, or gives the role a new password where they exist. Goes through single-user mode, so
 * that no superuser can ever log in. The cluster must not be running.
 */
export async function setUpRole(options: ClusterTools & { cluster: string; password: string }): Promise<void> {
  const { account, binaries, cluster } = options;
  // Each statement on its own; an error of "exists already" is what makes this repeatable, the last line is the proof.
  const statements = [
    `CREATE ROLE ${roleName};`,
    `ALTER ROLE ${roleName} LOGIN NOSUPERUSER PASSWORD '${options.password}';`,
    `CREATE DATABASE ${databaseName} OWNER ${roleName};`,
    `SELECT 'set up' AS state FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba` +
      ` WHERE datname = '${databaseName}' AND rolname = '${roleName}' AND rolcanlogin;`,
  ];
  const argv = account.command([
    binaries.postgres,
    '--single',
    '-D',
    cluster,
    // Its log would repeat the password of a statement that fails.
    '-c',
    'log_min_error_statement=panic',
    'postgres',
  ]);
  const output = await runProgram(argv, { name: 'postgres --single', input: `${statements.join('\n')}\n` });
  if (!output.includes('state = "set up"')) {
    throw new EmbeddedPostgresError(`the role ${roleName} and its database could not be set up in ${cluster}`);
  }
}

/** Writes the settings that the server decides; PostgreSQL reads them when it starts. */
export function writeClusterSettings(options: { account: PostgresAccount; cluster: string; port: number }): void {
  const path = join(options.cluster, settingsFile);
  const settings = {
    listen_addresses: '127.0.0.1',
    port: options.port,
    // A socket's path is limited to about 100 bytes, which a deep checkout exceeds.
    unix_socket_directories: '',
    max_connections: 100,
    shared_buffers: '128MB',
    max_wal_size: '256MB',
    fsync: 'on',
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_checkpoints: 'off',
    cluster_name: 'sobranie',
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'`);
  // Made anew, so that a link in its place is not followed.
  rmSync(path, { force: true });
  writeFileSync(
    path,
    `# Written at every start; put your own settings into postgresql.conf, below the include.\n${lines.join('\n')}\n`,
  );
  chmodSync(path, 0o600);
  options.account.own(path);
}

/** PostgreSQL does not accept a cluster that root has restored or copied, or one whose mode was changed. */
export function repairOwnership(cluster: string, account: PostgresAccount): void {
  if (statSync(cluster).uid === 0) account.own(cluster);
  chmodSync(cluster, 0o700);
}

/** Makes the data folder; idempotent. */
export function makeDataFolder(directory: string): void {
  mkdirSync(directory, { recursive: true });
}
