// The server as its users run it: a process of its own, spoken to by environment, signals, output and network. Ends
// only processes that it started, and ends them all with the test process, however that ends.

import { dirname, join, resolve } from 'node:path';
import { endAfterTests, temporaryFolder } from './janitor.ts';

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

/** Starts the server and waits until it listens. */
export async function startServer(environment: Environment = {}, timeoutMs = 20_000): Promise<RunningServer> {
  const server = spawnServer(environment);
  const [, printed = ''] = await server.waitForOutput(/listening on (http:\/\/\S+)/, timeoutMs);
  const url = new URL(printed);
  // What it is bound to, such as 0.0.0.0, is not everywhere an address to connect to.
  url.hostname = '127.0.0.1';
  return Object.assign(server, { url: url.origin, port: Number(url.port) });
}

/** Starts the server and waits for nothing: for starts that fail. */
export function spawnServer(environment: Environment = {}): RunningProcess {
  return spawnScript(join(projectFolder, 'src/main.ts'), environment);
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

function spawn(command: string[], environment: Environment): RunningProcess {
  const child = Bun.spawn(command, {
    cwd: projectFolder,
    env: environmentOf(environment),
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  endAfterTests(child);
  return handleOf(child);
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

function handleOf(child: Bun.Subprocess<'ignore', 'pipe', 'pipe'>): RunningProcess {
  const texts = { stdout: '', stderr: '' };
  const listeners = new Set<() => void>();
  const read = async (name: 'stdout' | 'stderr'): Promise<void> => {
    const decoder = new TextDecoder();
    for await (const chunk of child[name]) {
      texts[name] += decoder.decode(chunk, { stream: true });
      for (const listener of listeners) listener();
    }
  };
  const ended = Promise.all([child.exited, read('stdout'), read('stderr')]);
  const printed = (): string => `--- stdout\n${texts.stdout}--- stderr\n${texts.stderr}`;

  const waitForOutput = async (pattern: RegExp, timeoutMs = 10_000): Promise<RegExpExecArray> => {
    const { promise, resolve: settle, reject } = Promise.withResolvers<RegExpExecArray>();
    const look = (): void => {
      const match = pattern.exec(texts.stdout) ?? pattern.exec(texts.stderr);
      if (match !== null) settle(match);
    };
    const timer = setTimeout(() => reject(new Error(`no ${pattern} within ${timeoutMs} ms:\n${printed()}`)), timeoutMs);
    listeners.add(look);
    look();
    void ended.then(() => reject(new Error(`ended with ${exitCodeOf(child)} before ${pattern}:\n${printed()}`)));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      listeners.delete(look);
    }
  };

  const waitForExit = async (timeoutMs = 30_000): Promise<number> => {
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    const startedAt = performance.now();
    await ended;
    clearTimeout(timer);
    if (performance.now() - startedAt >= timeoutMs) throw new Error(`did not end in ${timeoutMs} ms:\n${printed()}`);
    return exitCodeOf(child);
  };

  return {
    pid: child.pid,
    stdout: () => texts.stdout,
    stderr: () => texts.stderr,
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
