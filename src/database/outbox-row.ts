// A row of the outbox on its way to a log outside of the database.

export interface OutboxRow {
  /** Rises within a transaction and with the changes of one row; the same row keeps it when it is handed over again. */
  readonly id: number;
  readonly channel: string;
  /** JSON text on one line. */
  readonly data: string;
  /** Idempotency key of `realtime.send`. */
  readonly key: string | null;
  /** Unix milliseconds at which the writer left it, before its commit. */
  readonly at: number;
}
