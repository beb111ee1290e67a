// Which Redis channels this node hears. Subscribes in batches and leaves late, to spare churn.

import type { RedisListeners } from './listeners.ts';

/** Subscribes of one moment go together, at most this many. */
const batchMax = 500;
/** A channel whose last subscriber left is kept this long: page loads leave and come back. */
const lingerMs = 3_000;

interface Waiting {
  readonly name: string;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class RedisSubscriptions {
  readonly #listeners: RedisListeners;
  /** Wanted, or left a moment ago. */
  readonly #names = new Set<string>();
  readonly #leaving = new Map<string, ReturnType<typeof setTimeout>>();
  #waiting: Waiting[] = [];
  #scheduled = false;

  constructor(listeners: RedisListeners) {
    this.#listeners = listeners;
  }

  /** All topics to listen to. */
  get names(): readonly string[] {
    return [...this.#names];
  }

  /** Resolves when messages of the name arrive. */
  add(name: string): Promise<void> | undefined {
    clearTimeout(this.#leaving.get(name));
    // Still subscribed from before, unless the connections are being renewed just now.
    if (this.#leaving.delete(name) && this.#listeners.up) return undefined;
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

  close(): void {
    for (const timer of this.#leaving.values()) clearTimeout(timer);
    this.#leaving.clear();
    this.#names.clear();
  }

  async #subscribe(waiting: readonly Waiting[]): Promise<void> {
    try {
      await this.#listeners.subscribe(waiting.map(({ name }) => name));
      for (const { resolve } of waiting) resolve();
    } catch (error) {
      for (const { reject } of waiting) reject(error);
    }
  }

  #leave(name: string): void {
    this.#leaving.delete(name);
    this.#names.delete(name);
    this.#listeners.unsubscribe(name);
  }
}
