// Reads and writes the rows of public.posts for the demo page's buttons. Nothing here knows channels: other browsers
// get the changes through the watch on the table. Rows are PostgreSQL's own JSON, so that a listed row and a published
// one have the same shape (a bigint stays a number).

import type { PendingQuery, Row, Sql } from 'postgres';
import { RealtimeError } from '../protocol/realtime-error.ts';

/** A row of public.posts as `row_to_json` prints it. Columns that the page does not use are passed on as they are. */
export interface Post {
  readonly id: number;
  readonly title: string;
  readonly body: string | null;
}

export interface PostFields {
  readonly title?: string;
  readonly body?: string;
}

/** The page shows only the newest rows: it must open even if the table holds a million. */
export const listedPostsMax = 50;

const statementTimeoutMs = 5_000;

/** Every method throws `unavailable` when the database does not answer. Undefined says that the row is gone. */
export interface Posts {
  /** The newest rows, newest first. */
  newest(): Promise<readonly Post[]>;
  insert(fields: Required<PostFields>): Promise<Post | undefined>;
  /** Changes only the given fields. */
  update(id: string, fields: PostFields): Promise<Post | undefined>;
  remove(id: string): Promise<Post | undefined>;
}

export function createPosts(sql: Sql): Posts {
  return {
    newest: () =>
      run(sql`select row_to_json(p) as post from public.posts p order by p.id desc limit ${listedPostsMax}`),

    insert: async ({ title, body }) => {
      const rows = await run(
        sql`insert into public.posts as p (title, body) values (${title}, ${body}) returning row_to_json(p) as post`,
      );
      return rows[0];
    },

    update: async (id, { title = null, body = null }) => {
      const rows = await run(sql`
        update public.posts as p
        set title = coalesce(${title}::text, p.title), body = coalesce(${body}::text, p.body), updated_at = now()
        where p.id = ${id}::bigint
        returning row_to_json(p) as post`);
      return rows[0];
    },

    remove: async (id) => {
      const rows = await run(
        sql`delete from public.posts as p where p.id = ${id}::bigint returning row_to_json(p) as post`,
      );
      return rows[0];
    },
  };
}

// A row that is locked elsewhere, or a database that went away in silence, must not hold a request and its connection
// for ever. Cancelling gives the connection back to the pool.
async function run(query: PendingQuery<Row[]>): Promise<readonly Post[]> {
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    query.cancel();
  }, statementTimeoutMs);
  try {
    return (await query).map((row) => row['post'] as Post);
  } catch (cause) {
    throw describeFailure(cause, timedOut);
  } finally {
    clearTimeout(timer);
  }
}

// The database may have another table of that name, or deny it to this server's role. Then a retry does not help.
function describeFailure(cause: unknown, timedOut: boolean): RealtimeError {
  const state = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  if (state === '42P01') {
    const message = 'This database has no table public.posts: start the server with DEMO_TABLES=true, which makes it.';
    return new RealtimeError('bad_request', message, { cause });
  }
  if (/^(22|23|42)...$/.test(state)) {
    const message = 'The table public.posts of this database is not the demo table, or this server may not write it.';
    return new RealtimeError('bad_request', message, { cause });
  }
  const message = timedOut ? 'The database did not answer in time; retry.' : undefined;
  return new RealtimeError('unavailable', message, { cause });
}
