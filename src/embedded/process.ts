// Runs PostgreSQL's programs, and ends processes that an earlier owner left behind.

import { readFileSync, readdirSync, readlinkSync, realpathSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isAlive } from './data-lock.ts';
import { EmbeddedPostgresError, systemErrorCode } from './embedded-error.ts';

/**
 * The environment of PostgreSQL's programs. PG* variables of the person at the terminal must not change what they do,
 * and they do not get the server's secrets. Messages are in English, since some of them are parsed.
 */
export function postgresEnvironment(): Record<string, string> {
  const { PATH = '/usr/local/bin:/usr/bin:/bin', TMPDIR } = process.env;
  return { PATH, LC_ALL: 'C', ...(TMPDIR === undefined ? {} : { TMPDIR }) };
}

/** Runs a program to its end and returns its output. Throws with the last lines if it fails or takes too long. */
export async function runProgram(
  argv: readonly string[],
  options: { name: string; input?: string; timeoutMs?: number },
): Promise<string> {
  const timeoutMs = options.timeoutMs ?? 60_000;
  const child = Bun.spawn([...argv], {
    // The account may not be allowed to enter this process's working directory.
    cwd: '/',
    env: postgresEnvironment(),
    stdin: new Blob([options.input ?? '']),
    stdout: 'pipe',
    stderr: 'pipe',
    // A session of its own: a Ctrl-C in the terminal must not interrupt a set-up.
    detached: true,
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  const text = (stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> => new Response(stream).text();
  const [output, errors, code] = await Promise.all([text(child.stdout), text(child.stderr), child.exited]);
  if (code === 0) return output;
  const end = child.signalCode === 'SIGKILL' ? `was killed (limit ${timeoutMs} ms)` : `ended with ${code}`;
  throw new EmbeddedPostgresError(`${options.name} ${end}:\n${lastLines(errors || output)}`);
}

export function lastLines(text: string, count = 12): string {
  return text.trimEnd().split('\n').slice(-count).join('\n');
}

/** From `postmaster.pid`: the pid of its first line, and whether the last line says `ready`. */
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

/** Signals to a process that should end, in order, and how long each may take. */
const endings = [
  { signal: 'SIGINT', limitMs: 10_000 },
  { signal: 'SIGQUIT', limitMs: 5_000 },
  { signal: 'SIGKILL', limitMs: 5_000 },
] as const;

/**
 * Ends every PostgreSQL process that works in this data directory. The database survives the kill of its owner, and its
 * children may survive that of the postmaster for a moment. Returns the pids it found. Call it while holding the
 * folder's lock, so that none of them can belong to a living owner.
 */
export async function endLeftovers(cluster: string): Promise<number[]> {
  const named = readPostmasterFile(cluster)?.pid;
  const found = postgresProcessesIn(cluster, named);
  if (found.length === 0) {
    // PostgreSQL takes any process of its user with that pid for a postmaster: with a reused pid it would never start.
    if (named !== undefined && isAlive(named)) rmSync(join(cluster, 'postmaster.pid'), { force: true });
    return found;
  }
  let remaining = found;
  for (const { signal, limitMs } of endings) {
    // The postmaster ends its children in order. They get signals only if it is gone, or as the last resort.
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

/**
 * Ends every initdb that creates this data directory: it survives the kill of its owner, and would write into a directory
 * that was removed. Call it while holding the folder's lock.
 */
export async function endInitdb(cluster: string): Promise<void> {
  const deadline = performance.now() + 5_000;
  for (;;) {
    const running = initdbsOf(cluster);
    if (running.length === 0) return;
    if (performance.now() > deadline) {
      throw new EmbeddedPostgresError(`initdb of an earlier start does not end: process ${running.join(', ')}`);
    }
    for (const pid of running) sendSignal(pid, 'SIGKILL');
    await Bun.sleep(10);
  }
}

/** By the command line, in which `createCluster` names the data directory. Without /proc none is found. */
function initdbsOf(cluster: string): number[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => basename(readLink(`/proc/${name}/exe`) ?? '') === 'initdb')
    .filter((name) => commandLineOf(name).includes(`--pgdata=${cluster}`))
    .map(Number);
}

function commandLineOf(pid: string): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(systemErrorCode(error) ?? '')) return [];
    throw error;
  }
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
}

/** The pids of the PostgreSQL processes that work in this data directory, children included. */
export function findPostgres(cluster: string): number[] {
  return postgresProcessesIn(cluster, readPostmasterFile(cluster)?.pid);
}

/** PostgreSQL's processes have the data directory as their working directory. A reused pid does not. */
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

/** Without /proc: by the command line, in which `startPostmaster` names the data directory. */
function runsCluster(pid: number, cluster: string): boolean {
  const { stdout } = Bun.spawnSync(['ps', '-ww', '-o', 'command=', '-p', String(pid)]);
  const command = stdout.toString();
  return command.includes('postgres') && command.includes(`-D ${cluster}`);
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    // The process has ended, or belongs to another user.
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
