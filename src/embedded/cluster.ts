// The data directory of the embedded PostgreSQL, a "cluster" in its words: created, set up, configured, checked. A
// complete cluster is never deleted.
//
// A cluster is created under another name and renamed when it is complete. So `postgres/` is complete or does not exist,
// wherever a start was interrupted. What an interrupted start left is found by its name and removed.

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
import { endInitdb, endLeftovers, runProgram } from './process.ts';

/** The role of the printed URL, which is no superuser, and the database that it owns. */
export const roleName = 'sobranie';
export const databaseName = 'sobranie';

const partialPrefix = 'postgres.partial-';
const settingsFile = 'sobranie.conf';

export interface ClusterTools {
  readonly binaries: PostgresBinaries;
  readonly account: PostgresAccount;
}

/** Whether there is a cluster that this PostgreSQL can run. Throws if something else is there. */
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

/** Removes the incomplete cluster of a start that was interrupted. */
export async function sweepPartialClusters(directory: string): Promise<void> {
  for (const name of readdirSync(directory)) {
    if (!name.startsWith(partialPrefix)) continue;
    const partial = join(directory, name);
    await endInitdb(partial);
    await endLeftovers(partial);
    rmSync(partial, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }
}

/** initdb runs its helpers through a shell, with paths in double quotes, where these characters have a meaning. */
function refuseShellCharacters(path: string): void {
  if (!/["$`\\\n]/.test(path)) return;
  throw new EmbeddedPostgresError(
    `the embedded PostgreSQL cannot live in ${path}: no quote, dollar sign, backtick or backslash may be in the path;` +
      ' set DATA_DIR or DATABASE_URL, or move the project',
  );
}

/** Creates a cluster that lacks only its port, and calls `beforePublish` just before the renaming. */
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
      // The same rules of order and case on every machine, whatever its C library.
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
    // Once for everything that was written, before the new name says that it is complete.
    await runProgram(account.command([...common, '--sync-only']), { name: 'initdb --sync-only' });
    options.beforePublish();
    renameSync(partial, options.cluster);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    throw error;
  }
}

function configureAccess(cluster: string): void {
  // No socket, and no password of a superuser: only the one role can log in, by password, from this machine.
  writeFileSync(join(cluster, 'pg_hba.conf'), 'host all all 127.0.0.1/32 scram-sha-256\n');
  appendFileSync(join(cluster, 'postgresql.conf'), `\ninclude_if_exists = '${settingsFile}'\n`);
}

/**
 * Creates the role and its database; if they exist, the role gets a new password. It uses single-user mode, so that no
 * superuser ever needs a login. The cluster must not be running.
 */
export async function setUpRole(options: ClusterTools & { cluster: string; password: string }): Promise<void> {
  const { account, binaries, cluster } = options;
  // Each statement by itself. One may fail because its object exists, which makes this repeatable; the last line is the
  // proof that all is there.
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
    // The log would repeat a failed statement, password included.
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
    // The path of a socket is limited to about 100 bytes, and a deep checkout exceeds that.
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
  // Removed first, so that a link in its place is not followed.
  rmSync(path, { force: true });
  writeFileSync(
    path,
    `# Written at every start; put your own settings into postgresql.conf, below the include.\n${lines.join('\n')}\n`,
  );
  chmodSync(path, 0o600);
  options.account.own(path);
}

/** Gives the cluster back to the account: PostgreSQL refuses one that root has restored, or whose mode has changed. */
export function repairOwnership(cluster: string, account: PostgresAccount): void {
  if (statSync(cluster).uid === 0) account.own(cluster);
  chmodSync(cluster, 0o700);
}

/** Makes the data folder; idempotent. */
export function makeDataFolder(directory: string): void {
  mkdirSync(directory, { recursive: true });
}
