// The wire as this client meets it: frames in both directions and the codes in them. Types alone; the package stands
// by itself, so they are written here again and a test holds them against the server's own.

/** Why the server refused something. */
export type ErrorCode =
  | 'bad_frame'
  | 'unknown_command'
  | 'bad_request'
  | 'bad_channel'
  | 'unauthorized'
  | 'token_expired'
  | 'forbidden'
  | 'not_subscribed'
  | 'too_large'
  | 'rate_limited'
  | 'limit_exceeded'
  | 'unavailable'
  | 'shutting_down'
  | 'internal';

/** Why publications may have been missed: the server's reasons, and `overflow` too when a reader here fell behind. */
export type GapReason = 'trimmed' | 'epoch_changed' | 'overflow';

/**
 * A place in a channel's log. `offset` is 1 for the first publication and one more for each next; `epoch` names the log
 * that is counted. Offsets of different epochs have nothing to do with each other.
 */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** Who published: `user` is null on an anonymous connection. */
export interface Sender {
  readonly user: string | null;
  readonly connection: string;
}

/** One publication. `offset` is absent on ephemeral channels, `at` is in Unix milliseconds. */
export interface Message<Data = unknown> {
  readonly type: 'message';
  readonly channel: string;
  readonly data: Data;
  readonly at: number;
  readonly offset?: number;
  /** Absent when a backend or a table change published. */
  readonly from?: Sender;
  /** True when it was sent to this connection alone. */
  readonly direct?: true;
}

/** Publications may have been missed: load what the channel describes again. */
export interface Gap extends Position {
  readonly type: 'gap';
  readonly channel: string;
  readonly reason: GapReason;
}

/** Who is in a channel. `since` is in Unix milliseconds. */
export interface Member<Data = unknown> {
  readonly user: string | null;
  readonly connection: string;
  /** Null where none was given. */
  readonly data: Data;
  readonly since: number;
}

/** What a watched table publishes for each changed row. */
export interface Change<Row = Record<string, unknown>> {
  readonly action: 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE';
  readonly schema: string;
  readonly table: string;
  /** The new row; null for DELETE and TRUNCATE. */
  readonly data: Row | null;
  /** UPDATE: the changed columns and the key as they were. DELETE: the row as it was. Else null. */
  readonly old: Partial<Row> | null;
  /** The row went from one channel to another: a DELETE here and an INSERT there. */
  readonly moved?: true;
}

interface Reply {
  readonly id?: number | string;
  readonly channel: string;
}

export interface Welcome {
  readonly type: 'welcome';
  readonly connection: string;
  readonly user: string | null;
  readonly node: string;
  /** Seconds between two pings of the server. */
  readonly heartbeat: number;
  /** Of a connection that tabs share: what carries it. */
  readonly transport?: 'websocket' | 'sse' | undefined;
  /** Event streams only. */
  readonly channels?: readonly SubscriptionState[];
}

export interface SubscriptionState {
  readonly channel: string;
  readonly recoverable: boolean;
  readonly epoch?: string;
  readonly offset?: number;
  /** Present when the subscription began with a position: whether all that was missed follows. */
  readonly recovered?: boolean;
}

export interface Published extends Reply {
  readonly type: 'published';
  readonly epoch?: string;
  readonly offset?: number;
}

export interface History<Data = unknown> extends Reply, Position {
  readonly type: 'history';
  readonly messages: readonly Message<Data>[];
  /** With `before`. */
  readonly rows?: readonly unknown[];
  readonly complete: boolean;
}

export interface PresenceList<Data = unknown> extends Reply {
  readonly type: 'presence';
  /** Of members, which are connections. */
  readonly count: number;
  readonly members: readonly Member<Data>[];
}

export interface Snapshot extends Position {
  readonly type: 'snapshot';
  readonly channel: string;
  readonly rows: readonly unknown[];
  readonly more: boolean;
}

export interface ErrorFrame {
  readonly type: 'error';
  readonly id?: number | string;
  readonly channel?: string;
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryable: boolean;
  /** Seconds. */
  readonly retryAfter?: number;
  /** Unix seconds at which the token ends, which has not ended yet. */
  readonly expires?: number;
}

export type ServerFrame =
  | Welcome
  | ({ readonly type: 'subscribed' } & SubscriptionState & Reply)
  | ({ readonly type: 'unsubscribed'; readonly reason?: string } & Reply)
  | Published
  | Message
  | History
  | PresenceList
  | Snapshot
  | Gap
  | { readonly type: 'join' | 'leave' | 'update'; readonly channel: string; readonly member: Member }
  | { readonly type: 'refreshed'; readonly id?: number | string; readonly expires?: number }
  | { readonly type: 'pong'; readonly id?: number | string }
  /** Event streams only, for whoever asked to see that the link lives. */
  | { readonly type: 'ping' }
  | { readonly type: 'drain'; readonly after: number; readonly deadline: number }
  | ErrorFrame;

/** One channel of a `subscribe`. */
export interface SubscribeEntry {
  readonly channel: string;
  readonly since?: Position | undefined;
  readonly presence?: unknown;
  readonly snapshot?: true | undefined;
}

export type Command = { readonly id?: number | string } & (
  | { readonly type: 'subscribe'; readonly channels: readonly SubscribeEntry[] }
  | { readonly type: 'unsubscribe'; readonly channel: string }
  | {
      readonly type: 'publish';
      readonly channel: string;
      readonly data: unknown;
      readonly echo?: boolean | undefined;
      readonly key?: string | undefined;
      readonly to?: string | undefined;
    }
  | {
      readonly type: 'history';
      readonly channel: string;
      readonly since?: Position | undefined;
      readonly before?: string | number | undefined;
      readonly limit?: number | undefined;
    }
  | {
      readonly type: 'presence';
      readonly channel: string;
      readonly data?: unknown;
      readonly limit?: number | undefined;
    }
  | { readonly type: 'refresh'; readonly token: string }
  | { readonly type: 'ping' }
);
