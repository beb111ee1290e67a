// Runs PostgreSQL's programs and looks after processes that an earlier owner left behind. Knows processes, not what
// they are for.

import { readFileSync, readdirSync, readlinkSync, realpathSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isAlive } from './data-lock.ts';
import { EmbeddedPostgresError, systemErrorCode } from './embedded-error.ts';

/**
 * All that PostgreSQL's programs get to see of the environment: PG* settings of the person at the terminal must not
 * steer them, and the server's secrets are none of their business. English messages, since some are read.
 */
export function postgresEnvironment(): Record<string, string> {
  const { PATH = '/usr/local/bin:/usr/bin:/bin', TMPDIR } = process.env;
  return { PATH, LC_ALL: 'C', ...(TMPDIR === undefined ? {} : { TMPDIR }) };
}

/** Runs a program to its end; returns what it printed, throws with its last lines when it fails or takes too long. */
export async function runProgram(
  argv: readonly string[],
  options: { name: string; input?: string; timeoutMs?: number },
): Promise<string> {
  const timeoutMs = options.timeoutMs ?? 60_000;
  const child = Bun.spawn([...argv], {
    // The account may not be able to enter this process's working directory.
    cwd: '/',
    env: postgresEnvironment(),
    stdin: new Blob([options.input ?? '']),
    stdout: 'pipe',
    stderr: 'pipe',
    // Its own session: a Ctrl-C in the terminal must not cut a set-up in half.
    detached: true,
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code === 0) return output;
  const end = child.signalCode === 'SIGKILL' ? `was killed (limit ${timeoutMs} ms)` : `ended with ${code}`;
  throw new EmbeddedPostgresError(`${options.name} ${end}:\n${lastLines(errors || output)}`);
}

export function lastLines(text: string, count = 12): string {
  return text.trimEnd().split('\n').slice(-count).join('\n');
}

/** What `postmaster.pid` says: its first line, and whether the last reads `ready`. */
export function readPostmasterFile(cluster: string): { pid: number; ready: boolean } | undefined {
  try {
    const lines = readFileSync(join(cluster, 'postmaster.pid'), 'utf8').split('\n');
    const pid = Number.parseInt(lines[0] ?? '', 10);
    return pid > 0 ? { pid, ready: lines[7]?.trim() === 'ready' } : undefined;
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Escalation for processes that should go: signal, and how long it may take. */
const endings = [
  { signal: 'SIGINT', limitMs: 10_000 },
  { signal: 'SIGQUIT', limitMs: 5_000 },
  { signal: 'SIGKILL', limitMs: 5_000 },
] as const;

/**
 * Ends every PostgreSQL process that works in this data directory: after its owner was killed the database lives on,
 * and after a postmaster was killed its children may for a moment. Returns the pids it found. Call it under the
 * folder's lock, so that none of them can belong to a living owner.
 */
export async function endLeftovers(cluster: string): Promise<number[]> {
  const named = readPostmasterFile(cluster)?.pid;
  const found = postgresProcessesIn(cluster, named);
  if (found.length === 0) {
    // PostgreSQL takes a living process of its own user for a postmaster: after a pid was reused it would never start.
    if (named !== undefined && isAlive(named)) rmSync(join(cluster, 'postmaster.pid'), { force: true });
    return found;
  }
  let remaining = found;
  for (const { signal, limitMs } of endings) {
    // The postmaster ends its children in good order; they are signalled only where it is gone or all else failed.
    const alone = signal === 'SIGKILL' ? undefined : remaining.find((pid) => pid === named);
    for (const pid of alone === undefined ? remaining : [alone]) sendSignal(pid, signal);
    const deadline = performance.now() + limitMs;
    while (performance.now() < deadline) {
      remaining = postgresProcessesIn(cluster, named);
      if (remaining.length === 0) return found;
      await Bun.sleep(10);
    }
  }
  throw new EmbeddedPostgresError(`PostgreSQL of an earlier start does not end: process ${remaining.join(', ')}`);
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
}

/** The pids of the PostgreSQL that works in this data directory, its children's included. */
export function findPostgres(cluster: string): number[] {
  return postgresProcessesIn(cluster, readPostmasterFile(cluster)?.pid);
}

/** PostgreSQL's processes have the data directory as their working directory, which no other pid can pretend. */
function postgresProcessesIn(cluster: string, named: number | undefined): number[] {
  if (process.platform !== 'linux') return named !== undefined && runsCluster(named, cluster) ? [named] : [];
  const directory = realpathOrUndefined(cluster);
  if (directory === undefined) return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => readLink(`/proc/${name}/cwd`) === directory)
    .filter((name) => basename(readLink(`/proc/${name}/exe`) ?? '').startsWith('postgres'))
    .map(Number);
}

/** Where there is no /proc: by the command line, in which `startPostmaster` names the data directory. */
function runsCluster(pid: number, cluster: string): boolean {
  const { stdout } = Bun.spawnSync(['ps', '-ww', '-o', 'command=', '-p', String(pid)]);
  const command = stdout.toString();
  return command.includes('postgres') && command.includes(`-D ${cluster}`);
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    // The process has gone, or is someone else's.
    if (['ENOENT', 'EACCES', 'EPERM', 'ESRCH'].includes(systemErrorCode(error) ?? '')) return undefined;
    throw error;
  }
}

function realpathOrUndefined(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}
