// The database of a server without a DATABASE_URL: a real PostgreSQL under the data folder. This process owns it, and
// any program of this machine can reach it at its URL.
//
// Lifecycle:
// 1. the data folder is locked; a second owner is rejected;
// 2. processes and files that a killed owner left behind are removed;
// 3. a cluster is created if there is none;
// 4. PostgreSQL is started, at the port of the last start if that is free;
// 5. if it dies, it is started again, at the same port;
// 6. `stop` ends it and then releases the lock.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { backoffCeilingMs } from '../time/backoff.ts';
import { isDoneWithin } from '../time/within.ts';
import { foreignOwner, lockDataFolder, type DataLock } from './data-lock.ts';
import { chooseAccount } from './account.ts';
import { findPostgresBinaries } from './binaries.ts';
import {
  createCluster,
  databaseName,
  hasCluster,
  makeDataFolder,
  repairOwnership,
  roleName,
  setUpRole,
  sweepPartialClusters,
  writeClusterSettings,
} from './cluster.ts';
import { EmbeddedPostgresError, reasonOf, systemErrorCode } from './embedded-error.ts';
import { PortTaken, startPostmaster, type Postmaster, type PostmasterOptions } from './postmaster.ts';
import { endLeftovers } from './process.ts';

/** The methods of a logger that are used here. */
export interface EmbeddedLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface EmbeddedOptions {
  /** The data folder, such as `.data`; created if there is none. The cluster is its subfolder `postgres`. */
  readonly directory: string;
  /** This port and no other, if given. Default: the port of the last start if it is free, else another free one. */
  readonly port?: number;
  readonly log: EmbeddedLog;
}

export interface EmbeddedPostgres {
  /** `postgres://role:password@127.0.0.1:port/database`; the role owns the database and is no superuser. */
  readonly url: string;
  /**
   * As that, with a file that has the password in place of it. It takes the right to read that file; `psql`, and all that
   * is built on libpq, reads it by itself.
   */
  readonly passfileUrl: string;
  /** A shell line that opens a console. */
  readonly psql: string;
  readonly port: number;
  /** Ends the database within seconds, then releases the data folder. Idempotent. */
  stop(): Promise<void>;
}

/** Kept from one start to the next, so that the URL stays the same. */
interface Remembered {
  readonly port: number | undefined;
  readonly password: string;
}

const host = '127.0.0.1';
const preferredPort = 54320;
const portsTriedInOrder = 20;
const portsTriedAtRandom = 5;
const restartPause = { firstMs: 100, maxMs: 5_000 };

/**
 * Resolves when the database accepts connections. Throws `DataFolderInUse` when the folder has an owner, and otherwise
 * `EmbeddedPostgresError`. Both messages can be printed as they are.
 */
export async function startEmbeddedPostgres(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const directory = resolve(options.directory);
  try {
    makeDataFolder(directory);
    const lock = await lockDataFolder(directory);
    try {
      return await startLocked({ ...options, directory }, lock);
    } catch (error) {
      lock.release();
      throw error;
    }
  } catch (error) {
    if (error instanceof EmbeddedPostgresError || systemErrorCode(error) === undefined) throw error;
    const { path } = error as { readonly path?: unknown };
    const owner = typeof path === 'string' ? foreignOwner(path) : undefined;
    const reason = owner === undefined ? reasonOf(error) : `${reasonOf(error)}: ${owner}`;
    throw new EmbeddedPostgresError(`cannot use the data folder ${directory}: ${reason}`, { cause: error });
  }
}

async function startLocked(options: EmbeddedOptions, lock: DataLock): Promise<EmbeddedPostgres> {
  const { directory, log } = options;
  const startedAt = performance.now();
  const cluster = join(directory, 'postgres');
  const binaries = findPostgresBinaries();
  await sweepPartialClusters(directory);
  const exists = hasCluster(cluster, binaries);
  const account = chooseAccount({ cluster, reachable: [directory, binaries.postgres] });
  const tools = { binaries, account, cluster };
  const last = recall(directory);
  const password = last?.password ?? newPassword();
  if (exists) {
    const left = await endLeftovers(cluster);
    if (left.length > 0) log.warn({ pids: left }, 'ended a PostgreSQL that an earlier start left running');
    repairOwnership(cluster, account);
    if (last === undefined) {
      log.warn({ directory }, 'the password of the embedded PostgreSQL was lost: it has a new one');
      await setUpRole({ ...tools, password });
      remember(directory, { port: undefined, password });
    }
  } else {
    const beforePublish = (): void => remember(directory, { port: last?.port, password });
    await createCluster({ ...tools, directory, password, beforePublish });
  }
  const run = { ...tools, logFile: join(directory, 'postgres.log') };
  const { postmaster, port } = await startAtSomePort(run, options, last?.port);
  try {
    remember(directory, { port, password });
  } catch (error) {
    await postmaster.stop();
    throw error;
  }
  const milliseconds = Math.round(performance.now() - startedAt);
  log.info({ port, pid: postmaster.pid, milliseconds, fresh: !exists }, 'embedded PostgreSQL is ready');
  const place = `${host}:${port}/${databaseName}`;
  const url = `postgres://${roleName}:${password}@${place}`;
  const passfile = encodeURIComponent(passfileIn(directory)).replaceAll('%2F', '/');
  const passfileUrl = `postgres://${roleName}@${place}?passfile=${passfile}`;
  return { url, passfileUrl, psql: `psql '${url}'`, port, stop: supervise({ ...run, port }, postmaster, log, lock) };
}

async function startAtSomePort(
  run: Omit<PostmasterOptions, 'port'>,
  options: EmbeddedOptions,
  lastPort: number | undefined,
): Promise<{ postmaster: Postmaster; port: number }> {
  let failure: PortTaken | undefined;
  for await (const port of portsToTry(options.port, lastPort)) {
    writeClusterSettings({ ...run, port });
    try {
      return { postmaster: await startPostmaster({ ...run, port }), port };
    } catch (error) {
      if (!(error instanceof PortTaken)) throw error;
      failure = error;
      if (port === lastPort) options.log.warn({ port }, 'the last port is taken: the database gets a new URL');
    }
  }
  throw failure ?? new EmbeddedPostgresError('there is no port to try');
}

/** Only binding proves that a port is free, so PostgreSQL itself tries one after another. */
async function* portsToTry(wanted: number | undefined, last: number | undefined): AsyncGenerator<number> {
  if (wanted !== undefined) {
    yield wanted;
    return;
  }
  if (last !== undefined) yield last;
  for (let step = 0; step < portsTriedInOrder; step++) yield preferredPort + step;
  for (let step = 0; step < portsTriedAtRandom; step++) yield await freePort();
}

async function freePort(): Promise<number> {
  const { promise, resolve: settle, reject } = Promise.withResolvers<number>();
  const server = createServer().once('error', reject);
  server.listen({ port: 0, host }, () => {
    const address = server.address();
    server.close(() => settle(typeof address === 'object' && address !== null ? address.port : 0));
  });
  return promise;
}

/** Starts the database again whenever it dies, until the returned function is called. */
function supervise(run: PostmasterOptions, first: Postmaster, log: EmbeddedLog, lock: DataLock): () => Promise<void> {
  let current = first;
  let stopping: Promise<void> | undefined;
  const stopAsked = Promise.withResolvers<void>();
  const abort = new AbortController();
  const watch = async (): Promise<void> => {
    let failures = 0;
    for (;;) {
      await Promise.race([current.exited, stopAsked.promise]);
      if (abort.signal.aborted) return;
      log.error({ pid: current.pid }, 'the embedded PostgreSQL died: starting it again');
      try {
        await endLeftovers(run.cluster);
        current = await startPostmaster({ ...run, signal: abort.signal });
        log.info({ pid: current.pid }, 'the embedded PostgreSQL is back');
        failures = 0;
      } catch (error) {
        if (abort.signal.aborted) return;
        const delayMs = backoffCeilingMs(failures++, restartPause);
        log.error({ error: reasonOf(error), delayMs }, 'the embedded PostgreSQL could not be started again');
        await isDoneWithin(stopAsked.promise, delayMs);
      }
    }
  };
  const watching = watch();
  const stop = async (): Promise<void> => {
    abort.abort();
    stopAsked.resolve();
    try {
      await watching;
      await current.stop();
    } finally {
      lock.release();
    }
  };
  return () => (stopping ??= stop());
}

function newPassword(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(24))).toString('base64url');
}

function recall(directory: string): Remembered | undefined {
  let text: string;
  try {
    text = readFileSync(join(directory, 'postgres.json'), 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { port, password } = JSON.parse(text) as { port?: unknown; password?: unknown };
    // The password is put into SQL and into a URL unescaped.
    if (typeof password !== 'string' || !/^[\w-]{16,}$/.test(password)) return undefined;
    return { port: Number.isInteger(port) ? Number(port) : undefined, password };
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function passfileIn(directory: string): string {
  return join(directory, 'postgres.pgpass');
}

function remember(directory: string, { port, password }: Remembered): void {
  writeSecret(join(directory, 'postgres.json'), `${JSON.stringify({ port, password }, null, 2)}\n`);
  writeSecret(passfileIn(directory), `${host}:${port ?? '*'}:${databaseName}:${roleName}:${password}\n`);
}

/** Whole or not at all, for the owner's eyes. */
function writeSecret(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
