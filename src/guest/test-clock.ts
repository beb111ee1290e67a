// Time for tests: it passes as it does elsewhere, and can be moved ahead by hand. Whoever sleeps past the moment wakes.

import type { Clock } from '../time/clock.ts';

interface Sleeper {
  readonly wakesAt: number;
  readonly wake: () => void;
}

export class TestClock implements Clock {
  #aheadMs = 0;
  readonly #sleepers = new Set<Sleeper>();

  now(): number {
    return Date.now() + this.#aheadMs;
  }

  monotonic(): number {
    return performance.now() + this.#aheadMs;
  }

  random(): number {
    return Math.random();
  }

  sleep(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => sleeper.wake(), milliseconds);
      const sleeper: Sleeper = {
        wakesAt: this.monotonic() + milliseconds,
        wake: () => {
          clearTimeout(timer);
          this.#sleepers.delete(sleeper);
          resolve();
        },
      };
      this.#sleepers.add(sleeper);
    });
  }

  /** Those that wake do so in the order of their moments. */
  advance(milliseconds: number): void {
    this.#aheadMs += milliseconds;
    const now = this.monotonic();
    const due = [...this.#sleepers].filter(({ wakesAt }) => wakesAt <= now);
    for (const { wake } of due.toSorted((one, other) => one.wakesAt - other.wakesAt)) wake();
  }
}
