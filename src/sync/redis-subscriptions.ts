// Which Redis channels this node hears. Subscribes in batches, leaves late to spare churn, and after each loss of the
// connection subscribes to everything anew before it says so: the driver's own way would not tell when that is done.

import type { Redis } from 'ioredis';

/** Names per SUBSCRIBE. */
const batchMax = 500;
/** A channel whose last subscriber left is kept this long: page loads leave and come back. */
const lingerMs = 3_000;

interface Waiting {
  readonly name: string;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class RedisSubscriptions {
  readonly #redis: Redis;
  /** Wanted, or left a moment ago. */
  readonly #names = new Set<string>();
  readonly #leaving = new Map<string, ReturnType<typeof setTimeout>>();
  #waiting: Waiting[] = [];
  #scheduled = false;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  get size(): number {
    return this.#names.size;
  }

  /** Resolves when messages of the name arrive. */
  add(name: string): Promise<void> | undefined {
    clearTimeout(this.#leaving.get(name));
    // Still subscribed from before: but only if the connection was not lost since, which `renew` looks after.
    if (this.#leaving.delete(name) && this.#redis.status === 'ready') return undefined;
    this.#names.add(name);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ name, resolve, reject });
      if (this.#scheduled) return;
      this.#scheduled = true;
      queueMicrotask(() => {
        this.#scheduled = false;
        const waiting = this.#waiting;
        this.#waiting = [];
        for (let at = 0; at < waiting.length; at += batchMax) void this.#subscribe(waiting.slice(at, at + batchMax));
      });
    });
  }

  remove(name: string): void {
    if (!this.#names.has(name) || this.#leaving.has(name)) return;
    const timer = setTimeout(() => this.#leave(name), lingerMs);
    timer.unref();
    this.#leaving.set(name, timer);
  }

  /** Subscribes to all names on a new connection. Resolves when all of them are heard again. */
  async renew(): Promise<void> {
    for (const [name, timer] of this.#leaving) {
      clearTimeout(timer);
      this.#names.delete(name);
    }
    this.#leaving.clear();
    const names = [...this.#names];
    const batches: Promise<unknown>[] = [];
    for (let at = 0; at < names.length; at += batchMax) {
      batches.push(this.#redis.subscribe(...names.slice(at, at + batchMax)));
    }
    await Promise.all(batches);
  }

  close(): void {
    for (const timer of this.#leaving.values()) clearTimeout(timer);
    this.#leaving.clear();
    this.#names.clear();
  }

  async #subscribe(waiting: readonly Waiting[]): Promise<void> {
    try {
      await this.#redis.subscribe(...waiting.map(({ name }) => name));
      for (const { resolve } of waiting) resolve();
    } catch (error) {
      for (const { reject } of waiting) reject(error);
    }
  }

  #leave(name: string): void {
    this.#leaving.delete(name);
    this.#names.delete(name);
    // On a lost connection there is nothing to leave.
    if (this.#redis.status === 'ready') this.#redis.unsubscribe(name).catch(() => undefined);
  }
}
