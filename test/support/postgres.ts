// Real PostgreSQL for tests. One cluster per test process, started when the first test asks for a database, ended with
// the process however that ends; each test has a database of its own in it. Tests that stop or kill PostgreSQL start a
// cluster of their own by `startCluster`, so that nobody else's connections die with it.
//
// Each file of a parallel run counts as a process here. So that not each of them initialises a cluster and migrates a
// database, the shared one is a copy of the stopped cluster in the folder SOBRANIE_TEST_IMAGE, where there is one. Copies
// have the system identifier of their image: clusters that a test is to tell apart are never copies.
//
// The programs are those that the server embeds, or those in the folder SOBRANIE_TEST_PG_BIN (such as
// /usr/lib/postgresql/15/bin) to test against another version.

import { appendFileSync, cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import postgres from 'postgres';
import { chooseAccount, type PostgresAccount } from '../../src/embedded/account.ts';
import { findPostgresBinaries, type PostgresBinaries } from '../../src/embedded/binaries.ts';
import { PortTaken, startPostmaster, type Postmaster } from '../../src/embedded/postmaster.ts';
import { systemErrorCode } from '../../src/embedded/embedded-error.ts';
import { endLeftovers, runProgram } from '../../src/embedded/process.ts';
import { removeFolder, temporaryFolder } from './janitor.ts';

export interface TestDatabase {
  readonly name: string;
  /** As the role `app`, which owns the database and is no superuser. */
  readonly url: string;
  /** As a superuser. */
  readonly superUrl: string;
  /** Ends whatever is still connected. Idempotent. */
  drop(): Promise<void>;
}

export interface DatabaseOptions {
  /** Copied from a database to which all migrations were applied, with the demo tables (once per cluster). */
  readonly migrated?: boolean;
}

/** The port, and with it every URL, stays the same over stops, kills and restarts. */
export interface TestCluster {
  /** Its data directory. */
  readonly folder: string;
  readonly port: number;
  /** Of the server process that runs now. */
  readonly pid: number;
  createDatabase(options?: DatabaseOptions): Promise<TestDatabase>;
  /** A fast shutdown, then a start. */
  restart(): Promise<void>;
  /** A fast shutdown. Resolves when nothing listens any more. */
  stopServer(): Promise<void>;
  /** Starts it after `stopServer` or `kill9`; resolves when it accepts connections. */
  startServer(): Promise<void>;
  /** SIGKILL to the server process; resolves when its children are gone too. Nothing that was committed is lost. */
  kill9(): Promise<void>;
  /** Ends it and removes its files. */
  close(): Promise<void>;
}

const templateName = 'migrated_template';

let shared: Promise<TestCluster> | undefined;

/** The cluster that all tests of this process share. */
export function sharedCluster(): Promise<TestCluster> {
  return (shared ??= startCluster(process.env['SOBRANIE_TEST_IMAGE']));
}

/** A fresh database in the shared cluster. */
export async function createDatabase(options?: DatabaseOptions): Promise<TestDatabase> {
  return (await sharedCluster()).createDatabase(options);
}

/** A standby of the cluster, which follows it by streaming. It ends with the test process, or by `close`. */
export interface Standby {
  readonly port: number;
  /** As a superuser. */
  readonly sql: postgres.Sql;
  /** Resolves when it has all that the primary has written. */
  caughtUp(): Promise<void>;
  /** Receives nothing any more. */
  detach(): Promise<void>;
  promote(): Promise<void>;
  close(): Promise<void>;
}

/** Takes a base backup of the running cluster by its files, and starts a standby on it. */
export async function startStandby(primary: TestCluster): Promise<Standby> {
  const admin = postgres(urlOf('postgres', primary.port, 'postgres'), { max: 1, onnotice: () => undefined });
  const folder = temporaryFolder('standby');
  const data = join(folder, 'postgres');
  const [place] = await admin`select current_setting('data_directory') as path`;
  const binaries = testBinaries();
  const account = chooseAccount({ cluster: data, reachable: [folder, binaries.postgres] });
  await admin`select pg_backup_start('standby', true)`;
  cpSync(String(place?.['path']), data, {
    recursive: true,
    filter: (path) => !path.endsWith('postmaster.pid') && !path.endsWith('postmaster.opts'),
  });
  const [label] = await admin`select labelfile from pg_backup_stop(false)`;
  const port = await freePort();
  writeFileSync(join(data, 'backup_label'), String(label?.['labelfile']));
  writeFileSync(join(data, 'standby.signal'), '');
  const settings = join(data, 'test.conf');
  appendFileSync(settings, `port = ${port}\nprimary_conninfo = 'host=127.0.0.1 port=${primary.port} user=postgres'\n`);
  account.own(data);
  const postmaster = await startPostmaster({ binaries, account, cluster: data, logFile: join(folder, 'log'), port });
  const sql = postgres(urlOf('postgres', port, 'postgres'), { max: 1, onnotice: () => undefined });
  const meets = async (condition: () => Promise<boolean>): Promise<void> => {
    while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  return {
    port,
    sql,
    caughtUp: async () => {
      const [written] = await admin`select pg_current_wal_flush_lsn()::text as lsn`;
      await meets(async () => {
        const [row] = await sql`select pg_last_wal_replay_lsn() >= ${String(written?.['lsn'])}::text::pg_lsn as done`;
        return row?.['done'] === true;
      });
    },
    detach: async () => {
      appendFileSync(settings, `primary_conninfo = ''\n`);
      await sql`select pg_reload_conf()`;
      await meets(async () => (await sql`select from pg_stat_wal_receiver`).length === 0);
    },
    promote: async () => {
      await sql`select pg_promote(true)`;
    },
    close: async () => {
      await Promise.all([sql.end({ timeout: 1 }), admin.end({ timeout: 1 })]);
      await postmaster.stop();
      await removeFolder(folder);
    },
  };
}

/** A cluster for one test alone; `close` it. With the folder of a stopped cluster it is a copy of that one. */
export async function startCluster(image?: string): Promise<TestCluster> {
  const folder = temporaryFolder('postgres');
  const cluster = join(folder, 'postgres');
  const binaries = testBinaries();
  if (image === undefined) mkdirSync(cluster);
  else await copyFolder(image, cluster);
  const account = chooseAccount({ cluster, reachable: [folder, binaries.postgres] });
  if (image === undefined) await initialise(cluster, binaries, account);
  const start = (port: number): Promise<Postmaster> =>
    startPostmaster({ binaries, account, cluster, logFile: join(folder, 'postgres.log'), port });
  const { port, postmaster } = await startAtFreePort(cluster, account, start);
  if (image === undefined) await asSuperuser(port, 'postgres', (sql) => sql`CREATE ROLE app LOGIN`);
  return clusterOf(folder, port, postmaster, () => start(port), image === undefined ? undefined : Promise.resolve());
}

/** Fills the folder with a stopped cluster that has a migrated database to copy. */
export async function makeImage(path: string): Promise<void> {
  const cluster = await startCluster();
  const database = await cluster.createDatabase({ migrated: true });
  // The migrated database that it was copied from stays.
  await database.drop();
  await cluster.stopServer();
  await copyFolder(cluster.folder, path);
  await cluster.close();
}

async function initialise(cluster: string, binaries: PostgresBinaries, account: PostgresAccount): Promise<void> {
  account.own(cluster);
  await runProgram(
    account.command([binaries.initdb, '-D', cluster, '-U', 'postgres', '-E', 'UTF8', '--locale=C', '-Atrust', '-N']),
    { name: 'initdb' },
  );
  appendFileSync(join(cluster, 'postgresql.conf'), "\ninclude 'test.conf'\n");
}

/** With its owners. */
async function copyFolder(from: string, to: string): Promise<void> {
  if ((await Bun.spawn(['cp', '-a', from, to]).exited) !== 0) throw new Error(`${from} could not be copied to ${to}`);
}

function clusterOf(
  folder: string,
  port: number,
  first: Postmaster,
  start: () => Promise<Postmaster>,
  template: Promise<void> | undefined,
): TestCluster {
  let postmaster: Postmaster | undefined = first;
  let created = 0;
  const running = (): Postmaster => {
    if (postmaster === undefined) throw new Error('this PostgreSQL is not running');
    return postmaster;
  };
  const startServer = async (): Promise<void> => {
    if (postmaster !== undefined) throw new Error('this PostgreSQL is running already');
    postmaster = await start();
  };
  const stopServer = async (): Promise<void> => {
    await running().stop();
    postmaster = undefined;
  };
  const kill9 = async (): Promise<void> => {
    const killed = running();
    process.kill(killed.pid, 'SIGKILL');
    await killed.exited;
    await endLeftovers(join(folder, 'postgres'));
    postmaster = undefined;
  };
  /** `bun test` ends all its children when a test takes too long; the tests after that one shall not fail for it. */
  const reviveIfKilled = async (): Promise<void> => {
    running();
    try {
      await asSuperuser(port, 'postgres', (sql) => sql`SELECT 1`);
    } catch (error) {
      if (!['57P03', 'ECONNREFUSED', 'CONNECTION_CLOSED'].includes(systemErrorCode(error) ?? '')) throw error;
      await stopServer();
      await startServer();
    }
  };
  const close = async (): Promise<void> => {
    await postmaster?.stop();
    postmaster = undefined;
    await removeFolder(folder);
  };
  return {
    folder: join(folder, 'postgres'),
    port,
    get pid() {
      return running().pid;
    },
    async createDatabase(options) {
      await reviveIfKilled();
      if (options?.migrated === true) await (template ??= createTemplate(port));
      const name = `test_${process.pid}_${++created}`;
      return createNamed(port, name, options?.migrated === true ? templateName : 'template1');
    },
    async restart() {
      await stopServer();
      await startServer();
    },
    stopServer,
    startServer,
    kill9,
    close,
  };
}

function testBinaries(): PostgresBinaries {
  const bin = process.env['SOBRANIE_TEST_PG_BIN'];
  if (bin === undefined || bin === '') return findPostgresBinaries();
  const postgres = join(bin, 'postgres');
  const version = Bun.spawnSync([postgres, '--version']).stdout.toString();
  return { bin, initdb: join(bin, 'initdb'), postgres, major: Number(/(\d+)/.exec(version)?.[1]) };
}

async function startAtFreePort(
  cluster: string,
  account: PostgresAccount,
  start: (port: number) => Promise<Postmaster>,
): Promise<{ port: number; postmaster: Postmaster }> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const settings = {
      listen_addresses: '127.0.0.1',
      port,
      unix_socket_directories: '',
      max_connections: 200,
      shared_buffers: '64MB',
      max_wal_size: '256MB',
      // What was committed must outlive a killed PostgreSQL, so synchronous_commit stays on; a crash of the machine is
      // no test, so nothing is forced to disk.
      fsync: 'off',
      full_page_writes: 'off',
      // In the data directory, where what a killed PostgreSQL leaves is removed with it.
      dynamic_shared_memory_type: 'mmap',
      timezone: 'UTC',
    };
    const path = join(cluster, 'test.conf');
    writeFileSync(
      path,
      Object.entries(settings)
        .map(([name, value]) => `${name} = '${value}'\n`)
        .join(''),
    );
    account.own(path);
    try {
      return { port, postmaster: await start(port) };
    } catch (error) {
      if (!(error instanceof PortTaken) || attempt === 5) throw error;
    }
  }
}

/**
 * A port that nobody listens on now. Not one that the system would choose: those are given to connections too, by the
 * thousand in some tests, and one of them may have it before the program that is to listen there.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 22_000);
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const server = createServer().once('error', () => resolve(false));
  server.listen({ port, host: '127.0.0.1' }, () => server.close(() => resolve(true)));
  return promise;
}

async function asSuperuser(
  port: number,
  database: string,
  work: (sql: postgres.Sql) => Promise<unknown>,
): Promise<void> {
  const sql = postgres(urlOf('postgres', port, database), { max: 1, onnotice: () => undefined });
  try {
    await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

function urlOf(role: string, port: number, database: string): string {
  return `postgres://${role}@127.0.0.1:${port}/${database}`;
}

async function createNamed(port: number, name: string, template: string): Promise<TestDatabase> {
  await asSuperuser(port, 'postgres', (sql) => sql`CREATE DATABASE ${sql(name)} TEMPLATE ${sql(template)} OWNER app`);
  return {
    name,
    url: urlOf('app', port, name),
    superUrl: urlOf('postgres', port, name),
    drop: () => asSuperuser(port, 'postgres', (sql) => sql`DROP DATABASE IF EXISTS ${sql(name)} WITH (FORCE)`),
  };
}

async function createTemplate(port: number): Promise<void> {
  const { migrate } = await import('../../src/database/migrate.ts');
  const { makeDemoTables } = await import('../../src/database/demo-tables.ts');
  const { url } = await createNamed(port, templateName, 'template1');
  await migrate(url);
  await makeDemoTables(url);
}
