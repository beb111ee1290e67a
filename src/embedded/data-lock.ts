// One owner per data folder. The lock is one of the kernel (a POSIX lock, taken by an exclusive SQLite transaction on
// an empty file), not a file whose existence means "locked". The kernel releases it with the process, however that
// ends. So no lock is ever stale, a reused pid means nothing, and two starters cannot both take over. Two containers that
// share a volume exclude each other, although neither sees the other's processes.
//
// The owner's pid stands in a file beside the lock. It is only for the message.

import { Database } from 'bun:sqlite';
import { readFileSync, statSync, writeFileSync, type Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import { EmbeddedPostgresError, reasonOf, systemErrorCode } from './embedded-error.ts';

/** Another process, or another start in this process, owns the folder. */
export class DataFolderInUse extends EmbeddedPostgresError {
  readonly directory: string;
  /** Undefined when the owner has not written its pid yet. */
  readonly pid: number | undefined;

  constructor(directory: string, pid: number | undefined) {
    const owner = pid === undefined ? 'another process' : `process ${pid}`;
    super(`the data folder ${directory} is in use by ${owner}; stop it, or set DATA_DIR or DATABASE_URL`);
    this.name = 'DataFolderInUse';
    this.directory = directory;
    this.pid = pid;
  }
}

export interface DataLock {
  /** Idempotent. */
  release(): void;
}

/** How long a rejected start waits for the owner's pid. */
const noteDeadlineMs = 1000;

/** Takes the folder for this process, or throws `DataFolderInUse` at once if it has an owner. The folder must exist. */
export async function lockDataFolder(directory: string): Promise<DataLock> {
  const note = join(directory, 'owner.pid');
  const database = openLockFile(join(directory, 'owner.lock'));
  try {
    database.run('PRAGMA busy_timeout = 0');
    // A journal on disk would only be one more file that is left after a kill.
    database.run('PRAGMA journal_mode = MEMORY');
    database.run('BEGIN EXCLUSIVE');
  } catch (error) {
    database.close();
    if (systemErrorCode(error) === 'SQLITE_BUSY') throw new DataFolderInUse(directory, await readOwner(note));
    const reason = foreignOwner(join(directory, 'owner.lock')) ?? reasonOf(error);
    throw new EmbeddedPostgresError(`cannot lock the data folder ${directory}: ${reason}`, { cause: error });
  }
  let held = true;
  const release = (): void => {
    if (!held) return;
    held = false;
    database.run('ROLLBACK');
    database.close();
  };
  try {
    writeFileSync(note, `${process.pid}\n`);
  } catch (error) {
    release();
    throw unusable(note, error);
  }
  return { release };
}

function openLockFile(path: string): Database {
  try {
    return new Database(path, { create: true });
  } catch (error) {
    throw unusable(path, error);
  }
}

function unusable(path: string, error: unknown): EmbeddedPostgresError {
  const reason = foreignOwner(path) ?? foreignOwner(dirname(path)) ?? reasonOf(error);
  return new EmbeddedPostgresError(`cannot open the file ${path}: ${reason}`, { cause: error });
}

/** In words, with what mends it; undefined where it is this account's, or cannot be seen. */
export function foreignOwner(path: string): string | undefined {
  const own = process.getuid?.();
  const found = statusOf(path);
  if (own === undefined || found === undefined || own === found.uid) return undefined;
  const owner = found.uid === 0 ? 'root' : `user ${found.uid}`;
  const directory = found.isDirectory() ? path : dirname(path);
  return (
    `it belongs to ${owner}, and this server runs as user ${own}, perhaps since it was started once as` +
    ` another one. Give it back: chown -R ${own} ${directory}; or set DATA_DIR or DATABASE_URL`
  );
}

function statusOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

/** Polls: a new owner may not have written its pid yet, and that of the last owner would mislead. */
async function readOwner(note: string): Promise<number | undefined> {
  const deadline = performance.now() + noteDeadlineMs;
  for (;;) {
    const pid = readPid(note);
    if (pid !== undefined && isAlive(pid)) return pid;
    if (performance.now() > deadline) return undefined;
    await Bun.sleep(20);
  }
}

function readPid(note: string): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(note, 'utf8'), 10);
    return pid > 0 ? pid : undefined;
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemErrorCode(error) === 'EPERM';
  }
}
