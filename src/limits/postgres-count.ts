// Counts what is limited over all nodes, in a table that survives no crash and needs not to.

import type { Database } from '../database/connect.ts';

/**
 * Adds to what was spent under the key, in one statement that any number of nodes may run at once. A window that ends
 * later than two windows from now was begun under another clock. Rejects with the driver's errors.
 */
export async function countSpent(
  sql: Database,
  key: string,
  points: number,
  windowMs: number,
): Promise<{ points: number; milliseconds: number }> {
  const window = `${windowMs} milliseconds`;
  const [row] = await sql<{ points: number; milliseconds: number }[]>`
    INSERT INTO realtime.limits AS l (key, points, ends_at)
    VALUES (${key}, ${points}, statement_timestamp() + ${window}::interval)
    ON CONFLICT (key) DO UPDATE SET
      points = excluded.points + CASE
        WHEN l.ends_at BETWEEN statement_timestamp() AND statement_timestamp() + ${window}::interval * 2 THEN l.points
        ELSE 0 END,
      ends_at = CASE
        WHEN l.ends_at BETWEEN statement_timestamp() AND statement_timestamp() + ${window}::interval * 2 THEN l.ends_at
        ELSE excluded.ends_at END
    RETURNING l.points, ceil(extract(epoch FROM l.ends_at - statement_timestamp()) * 1000)::float8 AS milliseconds`;
  if (row === undefined) throw new Error('an upsert returned no row');
  return row;
}

/** Deletes windows that have ended. */
export async function forgetSpent(sql: Database): Promise<void> {
  await sql`DELETE FROM realtime.limits WHERE ends_at < statement_timestamp() - interval '1 minute'`;
}
