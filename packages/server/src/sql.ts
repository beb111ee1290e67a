// The server's SQL functions as queries that any driver of PostgreSQL takes: a text with `$1`, and its values. Values
// travel beside the text, so that none of them can become a part of it.

/** As `query` of the package `pg` takes it; for other drivers its members, such as `sql.unsafe(text, values)`. */
export interface Query {
  readonly text: string;
  readonly values: unknown[];
}

export interface WatchOptions {
  /** Templates such as `orders:{customer_id}`. Default: the table's name. */
  readonly channels?: readonly string[];
  /** What leaves the database. Default: all columns. */
  readonly columns?: readonly string[];
  /** `text` sends `int8` and `numeric` columns as JSON strings, exactly. Default: `json`. */
  readonly numbers?: 'json' | 'text';
}

/**
 * From its commit on every change of the table is published. Belongs into a migration; again it replaces the watch.
 *
 * @example
 * await database.query(watch('public.orders', { channels: ['orders', 'orders:{customer_id}'] }));
 */
export function watch(table: string, { channels, columns, numbers = 'json' }: WatchOptions = {}): Query {
  return {
    text: 'select realtime.watch($1::regclass, $2::text[], $3::text[], $4::text)',
    values: [
      table,
      channels === undefined ? null : [...channels],
      columns === undefined ? null : [...columns],
      numbers,
    ],
  };
}

/**
 * Ends a watch.
 *
 * @example
 * await database.query(unwatch('public.orders'));
 */
export function unwatch(table: string): Query {
  return { text: 'select realtime.unwatch($1::regclass)', values: [table] };
}

/**
 * Publishes when, and only when, the transaction commits in which it runs.
 *
 * @example
 * await database.query(send('chat:42', { text: 'hello' }, 'message-1'));
 */
export function send(channel: string, data: unknown, key?: string): Query {
  const json = JSON.stringify(data) as string | undefined;
  if (json === undefined) throw new TypeError('The data is nothing that JSON has.');
  // As text: some drivers would print a parameter of the type jsonb as JSON once more.
  return { text: 'select realtime.send($1, $2::text::jsonb, $3)', values: [channel, json, key ?? null] };
}
