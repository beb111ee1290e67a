// Tickets in PostgreSQL, in a table that is written without a log: a crash forgets them all, which costs their holders
// another request. One row can be deleted once, so no two nodes get the same ticket.

import type { Database } from '../database/connect.ts';
import type { TicketStore } from './ticket-store.ts';

const forgetEveryMs = 60_000;

export interface PostgresTicketsOptions {
  readonly sql: Database;
  /** What was left over could not be deleted; it is tried again. */
  readonly failed: (error: unknown) => void;
}

export class PostgresTickets implements TicketStore {
  readonly #options: PostgresTicketsOptions;
  /** Set while tickets of this node may be left over: a server that issues none asks the database nothing. */
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: PostgresTicketsOptions) {
    this.#options = options;
  }

  async put(digest: string, text: string, seconds: number): Promise<void> {
    const { sql } = this.#options;
    await sql`
      INSERT INTO realtime.tickets (digest, claims, ends_at)
      VALUES (${digest}, ${text}, statement_timestamp() + ${`${seconds} seconds`}::interval)`;
    this.#timer ??= setTimeout(() => this.#forget(), forgetEveryMs);
  }

  async take(digest: string): Promise<string | undefined> {
    const { sql } = this.#options;
    const [row] = await sql<{ claims: string; live: boolean }[]>`
      DELETE FROM realtime.tickets WHERE digest = ${digest}
      RETURNING claims, ends_at > statement_timestamp() AS live`;
    return row?.live === true ? row.claims : undefined;
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #forget(): void {
    this.#timer = undefined;
    // Those of nodes that ended in between go along.
    const { sql, failed } = this.#options;
    sql`DELETE FROM realtime.tickets WHERE ends_at < statement_timestamp()`.catch((error: unknown) => {
      failed(error);
      this.#timer ??= setTimeout(() => this.#forget(), forgetEveryMs);
    });
  }
}
