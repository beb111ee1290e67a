// Limits over all nodes, counted in PostgreSQL: a row per key, in an unlogged table. A crash of the database forgets
// what was spent; the windows begin again.

import type { Database } from '../../database/connect.ts';
import type { Counted, LimitStore } from '../../limits/store.ts';

export interface PostgresLimitsOptions {
  readonly sql: Database;
  /** Windows that have ended could not be deleted; it is tried again. */
  readonly failed: (error: unknown) => void;
}

const forgetEveryMs = 60_000;

export class PostgresLimits implements LimitStore {
  readonly #options: PostgresLimitsOptions;
  /** Set by the first count: a server that limits nothing asks the database nothing. */
  #timer: ReturnType<typeof setInterval> | undefined;
  #closed = false;

  constructor(options: PostgresLimitsOptions) {
    this.#options = options;
  }

  /** One statement, which any number of nodes may run at once. Rejects with the driver's errors. */
  async count(key: string, points: number, windowMs: number): Promise<Counted> {
    const { sql } = this.#options;
    if (!this.#closed) this.#timer ??= setInterval(() => void this.#forget(), forgetEveryMs);
    const window = `${windowMs} milliseconds`;
    const [row] = await sql<Counted[]>`
      INSERT INTO realtime.limits AS l (key, points, ends_at)
      VALUES (${key}, ${points}, statement_timestamp() + ${window}::interval)
      ON CONFLICT (key) DO UPDATE SET
        points = excluded.points + CASE
          WHEN l.ends_at BETWEEN statement_timestamp() AND statement_timestamp() + ${window}::interval * 2 THEN l.points
          ELSE 0 END,
        ends_at = CASE
          WHEN l.ends_at BETWEEN statement_timestamp() AND statement_timestamp() + ${window}::interval * 2 THEN l.ends_at
          ELSE excluded.ends_at END
      RETURNING l.points, ceil(extract(epoch FROM l.ends_at - statement_timestamp()) * 1000)::bigint AS milliseconds`;
    if (row === undefined) throw new Error('an upsert returned no row');
    return row;
  }

  /** Deletes windows that have ended, also those of nodes that are gone. */
  async forget(): Promise<void> {
    await this.#options.sql`DELETE FROM realtime.limits WHERE ends_at < statement_timestamp() - interval '1 minute'`;
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
  }

  async #forget(): Promise<void> {
    try {
      await this.forget();
    } catch (error) {
      this.#options.failed(error);
    }
  }
}
