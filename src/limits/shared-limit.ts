// One limit, counted for all nodes, and on this node alone while the store does not answer. Each node then gives out
// the limit once more. That is the lesser harm: nobody is locked out, and nobody waits for a store that is away.

import type { Clock } from '../time/clock.ts';
import { within } from '../time/within.ts';
import type { Slice } from './allowance.ts';
import { LocalCount } from './local-count.ts';
import type { Counted, LimitStore } from './store.ts';

export interface SharedLimitOptions {
  /** Keeps the keys of this limit apart from those of others. */
  readonly name: string;
  readonly limit: number;
  readonly windowMs: number;
  readonly store: LimitStore;
  readonly clock: Clock;
  /** Called once with the error when the store stops answering, and once with undefined when it answers again. */
  readonly log: (error: unknown) => void;
}

/** A command waits no longer for its verdict. */
const answerMsMax = 500;
/** Before the store is tried again; until then nobody waits for it. */
const awayMs = 1_000;

export class SharedLimit {
  readonly #options: SharedLimitOptions;
  readonly #local: LocalCount;
  #away = false;
  #triedAt = 0;

  constructor(options: SharedLimitOptions) {
    this.#options = options;
    this.#local = new LocalCount(options.windowMs, options.clock);
  }

  /** Keys that are counted on this node alone. */
  get size(): number {
    return this.#local.size;
  }

  /** Never rejects. */
  async fetch(key: string, points: number): Promise<Slice> {
    const { limit, windowMs } = this.#options;
    const counted = await this.#count(key, points);
    // Each sum is answered once, so these points are those from `before` on, and what fits below the limit is ours.
    const before = counted.points - points;
    return {
      granted: Math.min(points, Math.max(0, limit - before)),
      milliseconds: Math.min(windowMs, Math.max(0, counted.milliseconds)),
    };
  }

  async #count(key: string, points: number): Promise<Counted> {
    const { name, windowMs, store, clock } = this.#options;
    if (!this.#away || clock.monotonic() - this.#triedAt >= awayMs) {
      this.#triedAt = clock.monotonic();
      try {
        const counted = await within(store.count(`${name}:${key}`, points, windowMs), answerMsMax, 'counting a limit');
        if (this.#away) this.#options.log(undefined);
        this.#away = false;
        this.#local.forgetEnded();
        return counted;
      } catch (error) {
        if (!this.#away) this.#options.log(error);
        this.#away = true;
      }
    }
    return this.#local.count(key, points);
  }
}
