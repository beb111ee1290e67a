// Reads the heads of channels. All that is asked for in one tick is one query, and what is asked for while that is under
// way is the next: a node that starts needs thousands. Each query has a second, not each who asks: the last of a crowd
// would have to be given up because of those before it.

import { unavailable, type Database } from '../../database/connect.ts';
import type { Position } from '../../protocol/position.ts';
import { within } from '../../time/within.ts';
import { readHeads } from './queries.ts';

interface Asked {
  readonly resolve: (head: Position) => void;
  readonly reject: (error: unknown) => void;
}

export const headsAtOnceMax = 5_000;
const answerTimeoutMs = 1_000;

export class PostgresHeads {
  readonly #sql: Database;
  readonly #failed: (error: unknown) => void;
  readonly #asked = new Map<string, Asked[]>();
  #asking = false;

  constructor(sql: Database, failed: (error: unknown) => void) {
    this.#sql = sql;
    this.#failed = failed;
  }

  /** Rejects with `unavailable` when the database does. */
  ask(channel: string): Promise<Position> {
    return new Promise((resolve, reject) => {
      const asked = this.#asked.get(channel) ?? [];
      asked.push({ resolve, reject });
      this.#asked.set(channel, asked);
      if (this.#asking) return;
      this.#asking = true;
      queueMicrotask(() => void this.#answer());
    });
  }

  async #answer(): Promise<void> {
    while (this.#asked.size > 0) {
      const asked = new Map([...this.#asked].slice(0, headsAtOnceMax));
      for (const channel of asked.keys()) this.#asked.delete(channel);
      try {
        const heads = await within(
          readHeads(this.#sql, [...asked.keys()]),
          answerTimeoutMs,
          'the answer of the database',
        );
        for (const [channel, waiting] of asked) {
          const head = heads.get(channel);
          for (const { resolve, reject } of waiting) {
            if (head === undefined) reject(new Error('the database left a channel out'));
            else resolve(head);
          }
        }
      } catch (error) {
        this.#failed(error);
        for (const waiting of asked.values()) for (const { reject } of waiting) reject(unavailable(error));
      }
    }
    this.#asking = false;
  }
}
