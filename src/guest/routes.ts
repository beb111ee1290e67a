// The types of the routes that `realtime()` adds to an app, for clients that derive theirs from the app's, as Eden does.
// What they answer at run time, the routes in src/api decide. `…/users/:user/subscribe` is not among them: to Eden a part
// of that name is a WebSocket.

import type { ChannelCount, History, Message, Present, Published, Reached, Ticket, UserState } from '@sobranie/server';

/** The body of every failed call. */
export interface Failure {
  readonly error: { readonly code: string; readonly message: string; readonly retryable: boolean };
}

interface Call<Body, Answer, Params = {}, Query = unknown> {
  body: Body;
  params: Params;
  query: Query;
  headers: { readonly authorization?: string };
  response: { 200: Answer; 400: Failure; 401: Failure; 403: Failure; 404: Failure; 429: Failure; 503: Failure };
}

interface OfUser {
  readonly user: string;
}

interface OfChannel {
  readonly channel: string;
}

/** Nodes that did not answer in time, if there are any. */
interface Incomplete {
  readonly incomplete?: readonly string[];
}

interface HistoryQuery {
  readonly limit?: number;
  /** Together: what follows this position. */
  readonly epoch?: string;
  readonly offset?: number;
  /** Rows that are older than the history, where a rule says which. */
  readonly before?: string;
}

interface StreamQuery {
  /** Separated by commas. */
  readonly channels: string;
  readonly token?: string;
  readonly since?: string;
  readonly snapshot?: 1;
  readonly presence?: 1;
  readonly ping?: 1;
}

/** What a stream brings, and a WebSocket: `type` or the event's name says which of the protocol's frames it is. */
export interface Frame {
  readonly type: string;
  readonly channel?: string;
  readonly offset?: number;
  readonly data?: unknown;
  readonly [member: string]: unknown;
}

export interface StreamEvent {
  readonly event?: string;
  readonly id?: string;
  readonly data: Frame;
}

export interface HealthAnswer {
  readonly status: 'ok' | 'starting' | 'unavailable' | 'draining';
  readonly checks: Readonly<Record<string, { readonly ok: boolean; readonly since: string; readonly age: number }>>;
}

interface Health {
  get: {
    body: unknown;
    params: {};
    query: unknown;
    headers: unknown;
    response: { 200: HealthAnswer; 503: HealthAnswer };
  };
}

export type RealtimeRoutes = {
  realtime: {
    publish: { post: Call<{ channel: string; data: unknown; key?: string }, Published> };
    ticket: { post: Call<{ user?: string; channels?: object; claims?: object; expires?: number }, Ticket> };
    channels: {
      get: Call<unknown, { readonly channels: readonly ChannelCount[] } & Incomplete>;
      ':channel': {
        history: { get: Call<unknown, History & { messages: readonly Message[] }, OfChannel, HistoryQuery> };
        presence: { get: Call<unknown, Present, OfChannel, { limit?: number }> };
      };
    };
    users: {
      ':user': {
        get: Call<unknown, UserState, OfUser>;
        notify: { post: Call<{ data: unknown; key?: string }, Published, OfUser> };
        disconnect: { post: Call<unknown, Reached, OfUser> };
        reauthorize: {
          post: Call<unknown, { readonly user: string; readonly unsubscribed: number } & Incomplete, OfUser>;
        };
        unsubscribe: { post: Call<{ channel: string }, Reached & { readonly channel: string }, OfUser> };
      };
    };
    connections: {
      ':connection': {
        send: { post: Call<{ data: unknown }, { readonly connection: string }, { readonly connection: string }> };
      };
    };
    nodes: {
      get: Call<
        unknown,
        { readonly nodes: readonly { readonly node: string; readonly connections: number; readonly since: number }[] }
      >;
      ':node': {
        drain: { post: Call<unknown, { readonly node: string; readonly draining: true }, { readonly node: string }> };
      };
    };
    events: { get: Call<unknown, AsyncGenerator<StreamEvent, void, unknown>, {}, StreamQuery> };
    ws: { subscribe: Call<object, Frame, {}, { readonly token?: string; readonly channels?: string }> };
  };
  health: { live: Health; started: Health; ready: Health };
  metrics: { get: { body: unknown; params: {}; query: unknown; headers: unknown; response: { 200: string } } };
};
