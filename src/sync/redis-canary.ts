// Proof that messages travel: the node publishes to a topic of its own and must hear it on the listening connection.
// A connection can be open, answer pings, and be deaf all the same.

import type { Redis } from 'ioredis';
import type { Clock } from '../core/clock.ts';

export interface RedisCanaryOptions {
  /** Heard by this node alone. */
  readonly topic: string;
  readonly clock: Clock;
  readonly commands: Redis;
  /** Nothing was heard for `deafAfterMs` although it was sent. */
  readonly deaf: () => void;
  readonly everyMs?: number;
  readonly deafAfterMs?: number;
}

export class RedisCanary {
  readonly topic: string;
  readonly #options: RedisCanaryOptions;
  readonly #waiting = new Map<string, () => void>();
  #count = 0;
  #heardAt: number;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(options: RedisCanaryOptions) {
    this.topic = options.topic;
    this.#options = options;
    this.#heardAt = options.clock.monotonic();
  }

  start(): void {
    const { everyMs = 3_000 } = this.#options;
    this.#heardAt = this.#options.clock.monotonic();
    this.#timer = setInterval(() => void this.#beat(everyMs), everyMs);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  heard(message: string): void {
    this.#heardAt = this.#options.clock.monotonic();
    this.#waiting.get(message)?.();
  }

  /** Resolves when a message sent now was heard; rejects after `timeoutMs`. */
  async probe(timeoutMs: number): Promise<void> {
    const message = String(++this.#count);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const heard = new Promise<void>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error('the message did not come back in time')), timeoutMs);
      this.#waiting.set(message, resolve);
    });
    try {
      await Promise.all([heard, this.#options.commands.publish(this.topic, message)]);
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(message);
    }
  }

  async #beat(timeoutMs: number): Promise<void> {
    const { clock, deaf, deafAfterMs = 10_000 } = this.#options;
    try {
      await this.probe(timeoutMs);
    } catch {
      // Redis away is told by the connections themselves; deafness shows by nothing else.
      if (clock.monotonic() - this.#heardAt < deafAfterMs) return;
      this.#heardAt = clock.monotonic();
      deaf();
    }
  }
}
