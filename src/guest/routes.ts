// The types of the routes that `realtime()` adds to an app, for clients that derive theirs from the app's, as Eden does.
// What they answer at run time, the routes in src/api decide.

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
  response: { 200: Answer; 400: Failure; 401: Failure; 403: Failure; 429: Failure; 503: Failure };
}

interface OfUser {
  readonly user: string;
}

interface OfChannel {
  readonly channel: string;
}

export type RealtimeRoutes = {
  realtime: {
    publish: { post: Call<{ channel: string; data: unknown; key?: string }, Published> };
    ticket: { post: Call<{ user?: string; channels?: object; claims?: object; expires?: number }, Ticket> };
    channels: {
      get: Call<unknown, { channels: readonly ChannelCount[] }>;
      ':channel': {
        history: {
          get: Call<unknown, History & { messages: readonly Message[] }, OfChannel, { limit?: number }>;
        };
        presence: { get: Call<unknown, Present, OfChannel, { limit?: number }> };
      };
    };
    users: {
      ':user': {
        get: Call<unknown, UserState, OfUser>;
        notify: { post: Call<{ data: unknown; key?: string }, Published, OfUser> };
        disconnect: { post: Call<unknown, Reached, OfUser> };
      };
    };
  };
};
