// Creates clients of PostgreSQL: a pool for queries, and a direct connection for what needs a session of its own, such
// as LISTEN and session locks. A pooler in transaction mode would break those. Nothing is opened here: a client
// connects with its first query.

import postgres from 'postgres';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { backoffMs } from '../time/backoff.ts';
import { dataFault } from './data-fault.ts';
import { parseDatabaseUrl } from './url.ts';
import { systemClock } from '../time/clock.ts';

export interface ConnectOptions {
  /** Shown in pg_stat_activity. */
  readonly applicationName: string;
  /** Connections at most. Default: 4. */
  readonly max?: number;
  /**
   * Seconds until a query without an answer ends its connection, which may be half open; 0 is for ever. Default: 10.
   */
  readonly answerSeconds?: number;
  /** Several queries are sent on one connection at a time, so a slow one delays the others. Default: true. */
  readonly pipelined?: boolean;
}

/** Offsets and times stay far below 2^53, so they are numbers here, not strings. */
const types = {
  bigint: { to: 20, from: [20], parse: Number, serialize: String },
};

export type Database = postgres.Sql<{ bigint: number }>;

/** A pool. Its queries reject with the driver's errors, which the caller wraps by `unavailable`. */
export function connect(url: string, options: ConnectOptions): Database {
  const settings = {
    ...common(url, options.applicationName),
    max: options.max ?? 4,
    ...(options.pipelined === false ? { max_pipeline: 0 } : {}),
    // Ours, by the patch that this project applies to the driver: a socket whose other end is gone without a word
    // takes queries for a quarter of an hour before the system gives it up.
    answer_timeout: options.answerSeconds ?? 10,
  };
  return postgres(settings);
}

/** What every connection to this database has. */
function common(text: string, applicationName: string): postgres.Options<typeof types> {
  const url = parseDatabaseUrl(text);
  const { user, password, database, socket } = url;
  return {
    host: url.hosts.map(({ host }) => host),
    port: url.hosts.map(({ port }) => port),
    ...(socket === undefined ? {} : { path: socket }),
    // Where the URL names none, the driver looks for variables such as PGUSER.
    ...(user === undefined ? {} : { user }),
    ...(password === undefined ? {} : { password }),
    ...(database === undefined ? {} : { database }),
    ssl: url.tls,
    ...(url.tlsDirect ? { sslnegotiation: 'direct' } : {}),
    prepare: url.prepared,
    // A standby takes none of what this server writes. A session that it let in would stay with it for its whole life,
    // also when the address leads to the primary again. A single pooler is not asked: it may say what it heard of a
    // server that it has left.
    ...(url.prepared || url.hosts.length > 1 || url.target !== undefined
      ? { target_session_attrs: url.target ?? 'primary' }
      : {}),
    connect_timeout: url.connectSeconds ?? connectSeconds,
    backoff,
    connection: { ...url.session, application_name: applicationName },
    // Array types are not used, and asking for them costs each new connection a round trip.
    fetch_types: false,
    types,
    onnotice: ignoreNotice,
  };
}

/** Seconds before the next try; the driver counts from 0. */
function backoff(retries: number): number {
  return backoffMs(retries, { firstMs: 50, maxMs: 1_000 }, systemClock) / 1_000;
}

export interface SessionOptions {
  readonly applicationName: string;
  readonly onNotification: (channel: string, payload: string) => void;
  readonly onClosed: () => void;
}

/** One connection that is never replaced, and that reports notifications and its own end. */
export function connectSession(url: string, options: SessionOptions): Database {
  const settings = {
    ...common(url, options.applicationName),
    max: 1,
    max_lifetime: null,
    idle_timeout: 0,
    onclose: options.onClosed,
    // Missing from the driver's types. Its own `listen` would open a second connection, whose LISTEN would say nothing
    // about the health of the session that is to be woken.
    onnotify: options.onNotification,
  };
  return postgres(settings);
}

const connectSeconds = 5;

/** Notices such as `schema exists, skipping` are for people at a prompt. */
function ignoreNotice(): void {
  return undefined;
}

/**
 * Wraps a driver's error once; the client sees the code and a fixed text, the log also the cause. What no retry can help,
 * such as a character that the database's encoding lacks, is a `bad_request`.
 */
export function unavailable(cause: unknown): RealtimeError {
  if (cause instanceof RealtimeError) return cause;
  if (dataFault(cause) === undefined) return new RealtimeError('unavailable', undefined, { cause });
  return new RealtimeError('bad_request', 'The database cannot store this.', { cause });
}

/** A string as an SQL literal, for the simple protocol, which takes no parameters. */
export function literal(text: string): string {
  const quoted = text.replaceAll("'", "''");
  // The escape form reads the same whatever standard_conforming_strings says.
  return quoted.includes('\\') ? `E'${quoted.replaceAll('\\', '\\\\')}'` : `'${quoted}'`;
}

/** A text[] as a parameter: the array types that the driver would need for a JavaScript array are not fetched. */
export function textArray(values: readonly string[]): string {
  return `{${values.map((value) => `"${value.replace(/["\\]/g, '\\$&')}"`).join(',')}}`;
}
