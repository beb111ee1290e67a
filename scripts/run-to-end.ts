// Runs one program for a script and ends as it ends: output and exit code pass through, signals reach it once.
//
// The program gets a session of its own. Otherwise Ctrl-C would reach it two or three times, from the terminal, from
// `bun run` and from here, and a server reads a second signal as impatience. Should this process be killed outright,
// `--no-orphans` takes a Bun program along.

import { constants } from 'node:os';
import { watchNpm } from './watch-npm.ts';

export interface RunOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Seconds that the program may take to end after a signal; then it is killed. */
  readonly graceSeconds?: number;
  /** Seconds after which the program is stopped. Default: it may run for ever. */
  readonly limitSeconds?: number;
}

/** Copies of one Ctrl-C arrive within this time. */
const sameSignalMs = 1_000;

/** Resolves with the exit code; 128 and the signal's number if a signal ended the program. */
export async function runToEnd(command: readonly string[], options: RunOptions = {}): Promise<number> {
  const { env = process.env, graceSeconds = 10, limitSeconds } = options;
  const child = Bun.spawn([...command], {
    cwd: new URL('..', import.meta.url).pathname,
    env: { ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  });
  const timers: Timer[] = [];
  let askedAt: number | undefined;
  const stop = () => {
    const now = performance.now();
    if (askedAt !== undefined && now - askedAt < sameSignalMs) return;
    askedAt = now;
    child.kill('SIGTERM');
    timers.push(setTimeout(() => child.kill('SIGKILL'), graceSeconds * 1_000));
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, stop);
  const unwatch = watchNpm(stop);
  if (limitSeconds !== undefined) timers.push(setTimeout(stop, limitSeconds * 1_000));
  try {
    await child.exited;
  } finally {
    unwatch();
    for (const timer of timers) clearTimeout(timer);
    for (const signal of signals) process.off(signal, stop);
  }
  const { exitCode, signalCode } = child;
  if (exitCode !== null) return exitCode;
  return 128 + (typeof signalCode === 'string' ? constants.signals[signalCode] : (signalCode ?? 0));
}
