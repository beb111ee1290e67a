// Tickets in PostgreSQL, in an unlogged table: a crash of the database forgets them all, which costs their holders
// another request. One row can be deleted once, so no two nodes get the same ticket.

import type { Database } from '../../database/connect.ts';
import type { TicketStore } from '../../auth/ticket-store.ts';

export interface PostgresTicketsOptions {
  readonly sql: Database;
  /** Expired tickets could not be deleted; it is tried again. */
  readonly failed: (error: unknown) => void;
  /** Milliseconds between a ticket and the deletion of those that have expired. Default: a minute. */
  readonly forgetAfterMs?: number;
}

export class PostgresTickets implements TicketStore {
  readonly #options: PostgresTicketsOptions;
  /** Set while tickets of this node may be left over: a server that issues none asks the database nothing. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(options: PostgresTicketsOptions) {
    this.#options = options;
  }

  async put(digest: string, text: string, seconds: number): Promise<void> {
    const { sql } = this.#options;
    await sql`
      INSERT INTO realtime.tickets (digest, claims, ends_at)
      VALUES (${digest}, ${text}, statement_timestamp() + ${`${seconds} seconds`}::interval)`;
    this.#forgetLater();
  }

  async take(digest: string): Promise<string | undefined> {
    const { sql } = this.#options;
    const [row] = await sql<{ claims: string; live: boolean }[]>`
      DELETE FROM realtime.tickets WHERE digest = ${digest}
      RETURNING claims, ends_at > statement_timestamp() AS live`;
    return row?.live === true ? row.claims : undefined;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #forgetLater(): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => this.#forget(), this.#options.forgetAfterMs ?? 60_000);
  }

  #forget(): void {
    this.#timer = undefined;
    // Those of nodes that are gone as well.
    const { sql, failed } = this.#options;
    sql`DELETE FROM realtime.tickets WHERE ends_at < statement_timestamp()`.catch((error: unknown) => {
      failed(error);
      this.#forgetLater();
    });
  }
}
