// One owner per data folder. The lock is the kernel's (a POSIX lock, taken through SQLite's exclusive transaction on an
// empty file), not a file whose existence means "locked": the kernel drops it with the process, however that ends, so
// there is no stale lock to judge, no reused pid to be fooled by, no moment in which two starters both take one over,
// and two containers that share a volume see each other although neither knows the other's pids.
//
// Beside it lies a note of the owner's pid. It serves the message alone and decides nothing.

import { Database } from 'bun:sqlite';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { EmbeddedPostgresError, reasonOf, systemErrorCode } from './embedded-error.ts';

/** Another process, or another start in this one, owns the folder. */
export class DataFolderInUse extends EmbeddedPostgresError {
  readonly directory: string;
  /** Undefined when the owner took the lock but could not yet be named. */
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

/** How long a refused starter waits for the owner to write down its pid. */
const noteDeadlineMs = 1000;

/**
 * Takes the folder for this process, or throws `DataFolderInUse` without waiting for the owner to go. The folder must
 * exist.
 */
export async function lockDataFolder(directory: string): Promise<DataLock> {
  const note = join(directory, 'owner.pid');
  const database = openLockFile(join(directory, 'owner.lock'));
  try {
    database.run('PRAGMA busy_timeout = 0');
    // A journal on disk would only be one more file to find after a kill.
    database.run('PRAGMA journal_mode = MEMORY');
    database.run('BEGIN EXCLUSIVE');
  } catch (error) {
    database.close();
    if (systemErrorCode(error) === 'SQLITE_BUSY') throw new DataFolderInUse(directory, await readOwner(note));
    throw new EmbeddedPostgresError(`cannot lock the data folder ${directory}: ${reasonOf(error)}`, {
      cause: error,
    });
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
    throw error;
  }
  return { release };
}

function openLockFile(path: string): Database {
  try {
    return new Database(path, { create: true });
  } catch (error) {
    throw new EmbeddedPostgresError(`cannot open the lock file ${path}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

/** Polls, since an owner that has just won may not have written its pid yet, and the last owner's is of no use. */
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
