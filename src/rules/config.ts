// The types of `realtime.config.ts`. What its rules mean stands in rules.ts, and what can be wrong with them in
// faults.ts.

import type { SourceConfig } from './source-config.ts';

export type * from './source-config.ts';

export type Action = 'subscribe' | 'publish' | 'history' | 'presence';

export const actions: readonly Action[] = ['subscribe', 'publish', 'history', 'presence'];

/**
 * Who may do something:
 *
 *   everyone    with or without a token
 *   users       with any good token
 *   owner       whose claims equal the captures of the pattern, each by its name
 *   token       whom the token's `channels` claim grants it
 *   authorize   whom the rule's function allows it
 *   nobody
 */
export type Who = 'everyone' | 'users' | 'owner' | 'token' | 'authorize' | 'nobody';

export interface AuthorizeRequest {
  /** The token's `sub`; null for an anonymous connection. */
  readonly user: string | null;
  /** All that the token says; empty for an anonymous connection. */
  readonly claims: Readonly<Record<string, unknown>>;
  readonly channel: string;
  readonly action: Action;
  /** What the pattern's captures hold, by name. */
  readonly captures: Readonly<Record<string, string>>;
}

/** Anything but `true` forbids. After a failure, or without an answer in time, the caller gets `unavailable`. */
export type Authorize = (request: AuthorizeRequest) => boolean | Promise<boolean>;

/** A query with its parameters, `$1` the first. What `sql` makes, and what `toSQL` of a query builder answers. */
export interface SqlQuery {
  readonly sql: string;
  readonly params: readonly unknown[];
}

/**
 * Makes a query of a template: `` sql`select * from posts where room = ${room}` ``. A value becomes a parameter, and a
 * query that `sql` made a part of this one.
 */
export type SqlTag = (strings: TemplateStringsArray, ...values: readonly unknown[]) => SqlQuery;

export interface RowsRequest {
  /** The token's `sub`; null for an anonymous connection. */
  readonly user: string | null;
  /** All that the token says; empty for an anonymous connection. */
  readonly claims: Readonly<Record<string, unknown>>;
  readonly channel: string;
  /** What the pattern's captures hold, by name. */
  readonly captures: Readonly<Record<string, string>>;
  readonly sql: SqlTag;
}

/** A query, or what a query builder such as Drizzle's makes one of. */
export type RowsQuery = SqlQuery | { readonly toSQL: () => SqlQuery };

/**
 * Says which rows the channel describes. They are read once for all who ask with the same query and parameters. A query
 * builder runs its query when it is awaited, so an `async` function answers what its `toSQL` does.
 */
export type SnapshotRows = (request: RowsRequest) => RowsQuery | Promise<SqlQuery>;

export interface OlderRequest extends RowsRequest {
  /** What the client named: the key, or the place, of the oldest row that it has. It may name anything. */
  readonly before: string | number;
  /** Rows at most: one more than the client wants, which tells whether there are more. What exceeds it is cut off. */
  readonly limit: number;
}

/** Says which rows come before one that the client has, the nearest first. */
export type OlderRows = (request: OlderRequest) => RowsQuery | Promise<SqlQuery>;

/** A rule as `realtime.config.ts` writes it. */
export interface RuleConfig {
  /** A channel name with `*` for any characters and `{name}` for a part: `ephemeral:*`, `user:{sub}`, `*`. */
  readonly channels: string;
  /** Recoverable channels number and keep their publications; others do neither. Default: true. */
  readonly recoverable?: boolean;
  /** How much is kept, whichever is less. Default: 1,000 publications, 3,600 seconds. */
  readonly history?: { readonly size?: number; readonly seconds?: number };
  /** Who may do what; any of a list suffices. Default: `authorize` if there is such a function, else `token`. */
  readonly allow?: { readonly [Each in Action]?: Who | readonly Who[] };
  /** Decides what only the application knows. */
  readonly authorize?: Authorize;
  /** The rows that a subscription with `snapshot: true` begins with. */
  readonly snapshot?: SnapshotRows;
  /** The rows that `history` with `before` answers: what is older than the history that is kept. */
  readonly older?: OlderRows;
  /** Connections subscribed to one channel, on all nodes; one more is refused. Default: any number. */
  readonly subscribersMax?: number;
  /** Members of one channel's presence, on all nodes; one more is refused. Default: 10,000. */
  readonly membersMax?: number;
  /**
   * Connections are subscribed by themselves, on both transports: to the channel whose captures are their token's claims
   * of those names, such as `user:{sub}`. A token that lacks one of them, or a right, leaves the channel out.
   */
  readonly join?: 'always';
}

export interface RealtimeConfig {
  readonly rules: readonly RuleConfig[];
  /** For all `authorize` functions. */
  readonly authorize?: {
    /** Seconds for which an answer is remembered; 0 calls the function each time. Default: 5. */
    readonly cacheSeconds?: number;
    /** Milliseconds until a call without an answer fails. Default: 800. */
    readonly timeoutMs?: number;
  };
  /** Messages of other services that become publications, each once. Read when the server starts. */
  readonly sources?: readonly SourceConfig[];
}

/** Types the configuration file: `export default defineConfig({ rules: [...] })`. */
export function defineConfig(config: RealtimeConfig): RealtimeConfig {
  return config;
}
