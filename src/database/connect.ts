// Creates clients of PostgreSQL: a pool for queries, and a direct connection for what needs a session of its own, such
// as LISTEN and session locks. A pooler in transaction mode would break those. Nothing is opened here: a client
// connects with its first query.

import postgres from 'postgres';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { backoffMs } from '../time/backoff.ts';
import { dataFault } from './data-fault.ts';
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
    max: options.max ?? 4,
    connect_timeout: connectSeconds,
    backoff,
    connection: { application_name: options.applicationName },
    // Array types are not used, and asking for them costs each new connection a round trip.
    fetch_types: false,
    types,
    onnotice: ignoreNotice,
    ...(options.pipelined === false ? { max_pipeline: 0 } : {}),
    // Ours, by the patch that this project applies to the driver: a socket whose other end is gone without a word
    // takes queries for a quarter of an hour before the system gives it up.
    answer_timeout: options.answerSeconds ?? 10,
  };
  return postgres(driverUrl(url), settings);
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
    max: 1,
    max_lifetime: null,
    idle_timeout: 0,
    connect_timeout: connectSeconds,
    backoff,
    connection: { application_name: options.applicationName },
    fetch_types: false,
    types,
    onnotice: ignoreNotice,
    onclose: options.onClosed,
    // Missing from the driver's types. Its own `listen` would open a second connection, whose LISTEN would say nothing
    // about the health of the session that is to be woken.
    onnotify: options.onNotification,
  };
  return postgres(driverUrl(url), settings);
}

/** Parameters of other clients, such as Prisma. The driver would send them to the database, which refuses them. */
const foreign =
  /^(?:schema|connection_limit|pool_timeout|pgbouncer|socket_timeout|statement_cache_size|channel_binding|gssencmode)=/;

/** The URL without what is meant for other clients. Several hosts make it no `URL`, so it is read as text. */
export function driverUrl(url: string): string {
  const [address = '', query] = url.split('?', 2);
  if (query === undefined) return url;
  const kept = query.split('&').filter((parameter) => !foreign.test(parameter));
  return kept.length === 0 ? address : `${address}?${kept.join('&')}`;
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
