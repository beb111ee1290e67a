// Counts a limit on this node alone, for as long as the store of all nodes does not answer.

import type { Clock } from '../time/clock.ts';
import type { Counted } from './store.ts';

interface Window {
  points: number;
  /** Monotonic milliseconds. */
  readonly endsAt: number;
}

export class LocalCount {
  readonly #windowMs: number;
  readonly #clock: Pick<Clock, 'monotonic'>;
  /** In the order in which they began. All last equally long, so the first ends first. */
  readonly #windows = new Map<string, Window>();

  constructor(windowMs: number, clock: Pick<Clock, 'monotonic'>) {
    this.#windowMs = windowMs;
    this.#clock = clock;
  }

  get size(): number {
    return this.#windows.size;
  }

  count(key: string, points: number): Counted {
    this.forgetEnded();
    const now = this.#clock.monotonic();
    const window = this.#windows.get(key) ?? { points: 0, endsAt: now + this.#windowMs };
    this.#windows.set(key, window);
    window.points += points;
    return { points: window.points, milliseconds: window.endsAt - now };
  }

  forgetEnded(): void {
    if (this.#windows.size === 0) return;
    const now = this.#clock.monotonic();
    for (const [key, { endsAt }] of this.#windows) {
      if (endsAt > now) return;
      this.#windows.delete(key);
    }
  }
}
