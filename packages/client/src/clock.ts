// Time for the client: timers that also run in hidden tabs, a regular tick, and the moments at which a page comes back.

import type { Stop } from './emitter.ts';
import { page, quietly, type Platform, type WorkerLike } from './platform.ts';

const tickMs = 5_000;
/** A tick that comes so late was kept back by a sleep, or the clock was set. */
const lateMs = 15_000;
/** Runtimes run a timer that is longer than this at once. */
const timerMsMax = 2 ** 31 - 1;

/**
 * Browsers run the timers of a hidden page only once a minute. A worker ticks meanwhile, and each tick runs what is due.
 * Where workers are forbidden the page's own timers do what they can.
 */
export class Clock {
  readonly #platform: Platform;
  readonly #due = new Map<() => void, { readonly at: number; readonly timer: unknown }>();

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  /** Milliseconds that never go back; only differences count. */
  now(): number {
    return this.#platform.now();
  }

  /** From 0 up to `limit`. */
  random(limit: number): number {
    return this.#platform.random() * limit;
  }

  /** `run` must not reject. */
  after(ms: number, run: () => void | Promise<void>): Stop {
    const { setTimeout, clearTimeout } = this.#platform;
    const fire = (): void => {
      if (this.#due.delete(fire)) void run();
    };
    const timer = setTimeout(fire, Math.min(ms, timerMsMax));
    this.#due.set(fire, { at: this.now() + ms, timer });
    return () => {
      if (this.#due.delete(fire)) clearTimeout(timer as never);
    };
  }

  /**
   * Calls `tick` every few seconds, and `wake` when the page comes back: shown, thawed, restored, online, or after a
   * sleep. `wake` is given true when the network itself changed.
   */
  watch(tick: () => void, wake: (online: boolean) => void): Stop {
    const { document, Worker } = page;
    const { wallClock } = this.#platform;
    let worker: WorkerLike | undefined;
    let stopTimer: Stop;
    let tickedAt = this.now();
    let wallAt = wallClock();
    const run = (): void => {
      const isLate = this.now() - tickedAt > lateMs || Math.abs(wallClock() - wallAt) > lateMs;
      tickedAt = this.now();
      wallAt = wallClock();
      for (const [fire, { at }] of this.#due) if (at <= tickedAt) fire();
      if (isLate) wake(false);
      else tick();
    };
    const repeat = (): void => {
      stopTimer = this.after(tickMs, () => {
        repeat();
        run();
      });
    };
    const isHidden = (): boolean => document?.visibilityState === 'hidden';
    const onChange = ({ type }: { readonly type: string }): void => {
      worker?.terminate();
      worker = isHidden() ? startWorker(Worker, run) : undefined;
      if (isHidden() && type !== 'online') return;
      run();
      wake(type === 'online');
    };
    const listeners = [
      [document, 'visibilitychange'],
      [document, 'resume'],
      [page, 'pageshow'],
      [page, 'online'],
    ] as const;
    for (const [target, type] of listeners) target?.addEventListener?.(type, onChange);
    if (isHidden()) worker = startWorker(Worker, run);
    repeat();
    return () => {
      for (const [target, type] of listeners) target?.removeEventListener?.(type, onChange);
      worker?.terminate();
      stopTimer();
    };
  }
}

function startWorker(Worker: (new (url: string) => WorkerLike) | undefined, run: () => void): WorkerLike | undefined {
  return (
    Worker &&
    quietly(() => {
      const url = URL.createObjectURL(new Blob([`setInterval(()=>postMessage(0),${tickMs})`]));
      const worker = new Worker(url);
      URL.revokeObjectURL(url);
      worker.onmessage = run;
      return worker;
    })
  );
}
