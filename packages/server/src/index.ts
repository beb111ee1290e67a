// `@sobranie/server`: what a backend calls, on Node, Bun and Deno. The server inside an own Elysia app is
// `@sobranie/server/elysia`, and a server for tests `@sobranie/server/testing`; both run on Bun.

export { Backend } from './backend.ts';
export type {
  BackendOptions,
  ChannelCount,
  History,
  HistoryOptions,
  Member,
  Message,
  Present,
  Published,
  PublishOptions,
  Reached,
  Ticket,
  TicketRequest,
  UserState,
} from './backend.ts';
export type { CallOptions, Fetch } from './calls.ts';
export { BackendError } from './errors.ts';
export { verifyHook } from './hook.ts';
export type { HookEvent, HookOptions } from './hook.ts';
export { send, unwatch, watch } from './sql.ts';
export type { Query, WatchOptions } from './sql.ts';
export { signToken } from './token.ts';
export type { TokenClaims, TokenOptions } from './token.ts';
