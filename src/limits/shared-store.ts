// Where a limit is counted for all nodes, and what counts in its stead while that cannot be reached: this node alone, in
// memory. Each node then gives out the limit once more, which is the lesser harm: nobody is locked out, and nobody waits
// for a store that is away.

import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import type { RateLimiterPostgres, RateLimiterRedis } from 'rate-limiter-flexible';
import type { Clock } from '../time/clock.ts';
import type { Slice } from './allowance.ts';

export interface SharedStoreOptions {
  readonly limit: number;
  readonly windowMs: number;
  readonly shared: RateLimiterPostgres | RateLimiterRedis;
  readonly clock: Clock;
  /** Told once as the store goes away, and once, with undefined, as it is back. */
  readonly log: (error: unknown) => void;
}

/** A command waits no longer for its verdict. */
const answerMsMax = 500;
/** Before the store is tried again; until then nobody waits for it. */
const awayMs = 1_000;

export class SharedStore {
  readonly #options: SharedStoreOptions;
  readonly #insurance: RateLimiterMemory;
  #away = false;
  #triedAt = 0;

  constructor(options: SharedStoreOptions) {
    this.#options = options;
    const { limit, windowMs } = options;
    this.#insurance = new RateLimiterMemory({ points: limit, duration: windowMs / 1_000 });
  }

  /** Never rejects. */
  async fetch(key: string, points: number): Promise<Slice> {
    const { limit, windowMs } = this.#options;
    const { consumedPoints, msBeforeNext } = await this.#consume(key, points);
    // It is counted at once and in order, so these points are those from `before` on: what fits below the limit is ours.
    const before = consumedPoints - points;
    return {
      granted: Math.min(points, Math.max(0, limit - before)),
      milliseconds: Math.min(windowMs, Math.max(0, msBeforeNext)),
    };
  }

  async #consume(key: string, points: number): Promise<RateLimiterRes> {
    const { shared, clock } = this.#options;
    if (!this.#away || clock.monotonic() - this.#triedAt >= awayMs) {
      this.#triedAt = clock.monotonic();
      try {
        const consumed = await inTime(settle(shared.consume(key, points)));
        if (this.#away) this.#options.log(undefined);
        this.#away = false;
        return consumed;
      } catch (error) {
        if (!this.#away) this.#options.log(error);
        this.#away = true;
      }
    }
    return settle(this.#insurance.consume(key, points));
  }
}

/** The library rejects with its result where the limit is passed. */
async function settle(consuming: Promise<RateLimiterRes>): Promise<RateLimiterRes> {
  try {
    return await consuming;
  } catch (error) {
    if (error instanceof RateLimiterRes) return error;
    throw error;
  }
}

async function inTime<Value>(promise: Promise<Value>): Promise<Value> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${answerMsMax} ms`)), answerMsMax);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
