// The server as its users run it: a process of its own, spoken to by environment, signals, output and network. Ends
// only processes that it started, and ends them all with the test process, however that ends.
//
// What runs is the executable SOBRANIE_TEST_SERVER, which `bun run test` builds of this checkout: its start takes a third of
// the processor time. Without one it is the source. Tests of what only the source has name `fromSource`.

import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { endAfterTests, temporaryFolder } from './janitor.ts';
import { createDatabase } from './postgres.ts';

export interface RunningProcess {
  readonly pid: number;
  stdout(): string;
  stderr(): string;
  /** Resolves with the first match in what was or will be printed; rejects at its end or after the deadline. */
  waitForOutput(pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray>;
  /** Resolves with the exit code (128 + number for a signal). After the deadline it kills the process and rejects. */
  waitForExit(timeoutMs?: number): Promise<number>;
  /** SIGTERM unless told otherwise, then as `waitForExit`. */
  stop(signal?: NodeJS.Signals, timeoutMs?: number): Promise<number>;
  /** SIGKILL; resolves when the process is gone. An embedded database that it owned lives on until the tests end. */
  kill9(): Promise<void>;
}

export interface RunningServer extends RunningProcess {
  /** Such as `http://127.0.0.1:40123`. */
  readonly url: string;
  readonly port: number;
}

/** Added to a small fixed environment, in which the port is free and the data folder new; undefined takes away. */
export type Environment = Readonly<Record<string, string | undefined>>;

const projectFolder = resolve(import.meta.dir, '../..');

/** The command line of the server as the checkout holds it. */
export const fromSource: readonly string[] = [process.execPath, join(projectFolder, 'src/main.ts')];

/** The command line of the server, or with arguments that of the command `sobranie`. */
export function commandLine(...args: string[]): readonly string[] {
  const built = process.env['SOBRANIE_TEST_SERVER'];
  if (built !== undefined) return [built, ...args];
  return args.length === 0 ? fromSource : [process.execPath, join(projectFolder, 'src/sobranie.ts'), ...args];
}

/**
 * Starts the server and waits until it listens. One that does not in time is ended: it would be met by the next start.
 *
 * One of which the test says neither DATABASE_URL nor DATA_DIR gets a database of its own in the cluster that all share, with the
 * demo tables. Making an embedded one at each start took three quarters of the start's processor time.
 */
export async function startServer(
  given: Environment = {},
  timeoutMs = 60_000,
  command?: readonly string[],
): Promise<RunningServer> {
  const saysWhich = 'DATABASE_URL' in given || 'DATA_DIR' in given || given['NODE_ENV'] === 'production';
  const environment = saysWhich ? given : { ...given, DATABASE_URL: (await createDatabase({ migrated: true })).url };
  const server = spawnServer(environment, command);
  try {
    return await listening(server, timeoutMs);
  } catch (error) {
    await server.kill9();
    throw error;
  }
}

/** Waits until a server that was spawned listens. */
export async function listening(server: RunningProcess, timeoutMs = 60_000): Promise<RunningServer> {
  const [, printed = ''] = await server.waitForOutput(/listening on (http:\/\/\S+)/, timeoutMs);
  const url = new URL(printed);
  // What it is bound to, such as 0.0.0.0, is not everywhere an address to connect to.
  url.hostname = '127.0.0.1';
  return Object.assign(server, { url: url.origin, port: Number(url.port) });
}

/** Starts the server and waits for nothing: for starts that fail. */
export function spawnServer(environment: Environment = {}, command = commandLine()): RunningProcess {
  return spawn([...command], environment);
}

/** Runs the command `sobranie`. */
export function spawnCommand(args: readonly string[], environment: Environment = {}): RunningProcess {
  return spawn([...commandLine(...args)], environment);
}

/** Runs any program, in another folder than the project's. */
export function spawnProgram(command: readonly string[], environment: Environment, cwd: string): RunningProcess {
  return spawn([...command], environment, cwd);
}

/** Runs any script of the project with this Bun. */
export function spawnScript(
  script: string,
  environment: Environment = {},
  args: readonly string[] = [],
): RunningProcess {
  return spawn([process.execPath, script, ...args], environment);
}

/** Runs a line of a shell, in which `bun` is this Bun. */
export function spawnShell(line: string, environment: Environment = {}): RunningProcess {
  const path = `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}`;
  return spawn(['bash', '-c', line], { PATH: path, ...environment });
}

/**
 * What the process prints goes into files. A pipe has two faults: its reader was seen to stop while the process went on
 * writing, and it stays open for as long as a program that the process started.
 */
function spawn(command: string[], environment: Environment, cwd = projectFolder): RunningProcess {
  const folder = temporaryFolder('output');
  const output = { stdout: join(folder, 'stdout'), stderr: join(folder, 'stderr') };
  const child = Bun.spawn(command, {
    cwd,
    env: environmentOf(environment),
    stdin: 'ignore',
    stdout: Bun.file(output.stdout),
    stderr: Bun.file(output.stderr),
  });
  endAfterTests(child);
  return handleOf(child, output);
}

function environmentOf(given: Environment): Record<string, string> {
  const { PATH = '', HOME = '/', TMPDIR } = process.env;
  const defaults = { PATH, HOME, TMPDIR, NO_COLOR: '1', HOST: '127.0.0.1', PORT: '0' };
  const merged: Record<string, string | undefined> = { ...defaults, ...given };
  if (!('DATA_DIR' in given)) merged['DATA_DIR'] = temporaryFolder();
  return Object.fromEntries(
    Object.entries(merged).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

function handleOf(child: Bun.Subprocess, output: { readonly stdout: string; readonly stderr: string }): RunningProcess {
  const stdout = (): string => readFileSync(output.stdout, 'utf8');
  const stderr = (): string => readFileSync(output.stderr, 'utf8');
  const printed = (): string => `--- stdout\n${stdout()}--- stderr\n${stderr()}`;

  const waitForOutput = async (pattern: RegExp, timeoutMs = 30_000): Promise<RegExpExecArray> => {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const hasEnded = child.exitCode !== null || child.signalCode !== null;
      const match = pattern.exec(stdout()) ?? pattern.exec(stderr());
      if (match !== null) return match;
      if (hasEnded) throw new Error(`ended with ${exitCodeOf(child)} before ${pattern}:\n${printed()}`);
      if (performance.now() > deadline) throw new Error(`no ${pattern} within ${timeoutMs} ms:\n${printed()}`);
      await Bun.sleep(10);
    }
  };

  const waitForExit = async (timeoutMs = 30_000): Promise<number> => {
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    const startedAt = performance.now();
    await child.exited;
    clearTimeout(timer);
    if (performance.now() - startedAt >= timeoutMs) throw new Error(`did not end in ${timeoutMs} ms:\n${printed()}`);
    return exitCodeOf(child);
  };

  return {
    pid: child.pid,
    stdout,
    stderr,
    waitForOutput,
    waitForExit,
    stop(signal = 'SIGTERM', timeoutMs) {
      child.kill(signal);
      return waitForExit(timeoutMs);
    },
    async kill9() {
      child.kill('SIGKILL');
      await child.exited;
    },
  };
}

const signalNumbers: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGTERM: 15,
};

function exitCodeOf(child: Bun.Subprocess): number {
  if (child.signalCode === null) return child.exitCode ?? -1;
  return 128 + (signalNumbers[child.signalCode] ?? 0);
}
