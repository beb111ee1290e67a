// One run of the PostgreSQL server process, from its start until it has stopped. It runs in a session of its own, so
// that a Ctrl-C in the terminal reaches only this server, which stops PostgreSQL after its own drain.

import { closeSync, existsSync, openSync, readFileSync, renameSync, statSync } from 'node:fs';
import { isDoneWithin } from '../time/within.ts';
import type { PostgresAccount } from './account.ts';
import type { PostgresBinaries } from './binaries.ts';
import { EmbeddedPostgresError } from './embedded-error.ts';
import { lastLines, postgresEnvironment, readPostmasterFile } from './process.ts';

export interface Postmaster {
  readonly pid: number;
  /** Resolves when the process has ended for any reason. */
  readonly exited: Promise<unknown>;
  /** A fast shutdown: open transactions are rolled back. Resolves when the process is gone; idempotent. */
  stop(): Promise<void>;
}

/** The port is taken by another program. */
export class PortTaken extends EmbeddedPostgresError {
  readonly port: number;

  constructor(port: number, details: string) {
    super(`port ${port} of 127.0.0.1 is taken by another program:\n${details}`);
    this.name = 'PortTaken';
    this.port = port;
  }
}

/** Recovery after a crash replays the log, at most `max_wal_size` of it. */
const startLimitMs = 120_000;
const pollEveryMs = 10;
const fastStopLimitMs = 20_000;
const immediateStopLimitMs = 5_000;
const logBytesMax = 16 * 1024 * 1024;

export interface PostmasterOptions {
  readonly binaries: PostgresBinaries;
  readonly account: PostgresAccount;
  readonly cluster: string;
  readonly logFile: string;
  /** Only for the message. */
  readonly port: number;
  /** Aborts the start, which then throws. */
  readonly signal?: AbortSignal;
}

/** Resolves when connections are accepted; throws `PortTaken`, or an error with the last lines of the log. */
export async function startPostmaster(options: PostmasterOptions): Promise<Postmaster> {
  const { account, binaries, cluster, logFile } = options;
  const logStart = rotateLog(logFile);
  const output = openSync(logFile, 'a', 0o600);
  const child = Bun.spawn(account.command([binaries.postgres, '-D', cluster]), {
    cwd: '/',
    env: postgresEnvironment(),
    stdio: ['ignore', output, output],
    detached: true,
  });
  closeSync(output);
  const stop = stopOnce(child);
  const deadline = performance.now() + startLimitMs;
  while (child.exitCode === null && child.signalCode === null) {
    const file = readPostmasterFile(cluster);
    if (file?.ready === true && file.pid === child.pid) return { pid: child.pid, exited: child.exited, stop };
    if (options.signal?.aborted === true) {
      await stop();
      throw new EmbeddedPostgresError('the start of PostgreSQL was given up');
    }
    if (performance.now() > deadline) {
      await stop();
      throw new EmbeddedPostgresError(
        `PostgreSQL is not ready after ${startLimitMs / 1000} s:\n${readLogEnd(logFile, logStart)}`,
      );
    }
    await isDoneWithin(child.exited, pollEveryMs);
  }
  const details = readLogEnd(logFile, logStart);
  if (details.includes('Address already in use')) throw new PortTaken(options.port, details);
  throw new EmbeddedPostgresError(`PostgreSQL did not start (its log is ${logFile}):\n${details}`);
}

function stopOnce(child: Bun.Subprocess): () => Promise<void> {
  let stopping: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    child.kill('SIGINT');
    if (await isDoneWithin(child.exited, fastStopLimitMs)) return;
    child.kill('SIGQUIT');
    if (await isDoneWithin(child.exited, immediateStopLimitMs)) return;
    child.kill('SIGKILL');
    await child.exited;
  };
  return () => (stopping ??= stop());
}

/** Bounds the log: one older file beside the present one. Returns the offset at which this run's lines begin. */
function rotateLog(logFile: string): number {
  if (!existsSync(logFile)) return 0;
  const { size } = statSync(logFile);
  if (size < logBytesMax) return size;
  renameSync(logFile, `${logFile}.1`);
  return 0;
}

function readLogEnd(logFile: string, start: number): string {
  return lastLines(readFileSync(logFile).subarray(start).toString('utf8'));
}
