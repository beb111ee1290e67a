// What a node asks before it lets somebody in or runs a command: the port to the limits.

import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Identity } from './access.ts';
import type { MaybePromise } from './maybe-promise.ts';

/** What is limited, as the metric's label says it. */
export const limitKinds = [
  /** A user's messages and queries, also over HTTP, or those of an anonymous connection. */
  'commands',
  /** Channels that a user subscribes to, or an anonymous connection. */
  'subscribes',
  /** Open connections: of this process, of a user, of an address. */
  'connections',
  /** Connections per second of an address. */
  'connects',
  /** Tokens and keys from an address that were wrong. */
  'authentications',
  /** A frame over the size limit. */
  'frames',
  /** Commands that came on and on behind a slow one. */
  'queue',
] as const;

export type LimitKind = (typeof limitKinds)[number];

export interface Refusal {
  readonly kind: LimitKind;
  readonly code: 'rate_limited' | 'limit_exceeded';
  /** Seconds after which one more would be let through; of connections, after which to try again. Undefined: never. */
  readonly retryAfter: number | undefined;
  /** The user goes on in spite of many refusals: the connection is closed. */
  readonly isAbuse: boolean;
}

/** How a command counts: `commands` are messages and queries, `others` are those that cost little, such as `ping`. */
export type CommandKind = 'commands' | 'others';

/** As many as the allowance still held, and the refusal of the rest. */
export interface Taken {
  readonly count: number;
  readonly refusal: Refusal | undefined;
}

/** Whose commands count together: those of a user, or of one connection without a user. */
export interface Caller {
  readonly id: string;
  readonly identity: Identity;
}

/**
 * Nothing here throws or rejects: what cannot be counted is let through. An address is what tells clients apart, see
 * `http/client-address.ts`; it is undefined where addresses are not limited.
 */
export interface Limits {
  /** Counts commands; undefined lets them run. Synchronous wherever it can be. */
  command(caller: Caller, count?: number, kind?: CommandKind): MaybePromise<Refusal | undefined>;
  /** Counts channels that are subscribed to, as many as may be. Synchronous wherever it can be. */
  subscribe(caller: Caller, channels: number): MaybePromise<Taken>;

  /** Counts an attempt to connect. */
  arrival(address: string | undefined): MaybePromise<Refusal | undefined>;
  /** Whether the address may show a token or a key at all. */
  authentication(address: string | undefined): Refusal | undefined;
  /** Its token or key was wrong. */
  authenticationFailed(address: string | undefined): void;
  /** As both, for a token that an open connection brings. */
  refreshing(caller: Caller): Refusal | undefined;
  refreshFailed(caller: Caller): void;

  /** Asks the other nodes for their counts; wait for it before `connection`. Undefined if this node knows enough. */
  countConnections(identity: Identity, address: string | undefined): Promise<void> | undefined;
  /** Whether one more connection may open, by what is known now. It counts once it has `joined`. */
  connection(identity: Identity, address: string | undefined): Refusal | undefined;
  /** A connection has opened. */
  joined(caller: Caller, address: string | undefined): void;
  /** A connection has ended. Without effect for one that never joined. */
  left(caller: Caller): void;
  /** This node's open connections under a key of the limiter's own. Other nodes ask for it. */
  connectionsOf(key: string): number;
}

const tooMuchAtOnce = 'This call publishes to more channels than a user may in a minute.';
const messages: { readonly [Kind in LimitKind]?: string } = {
  connections: 'There are too many connections.',
  connects: 'This address connects too often.',
  authentications: 'Too many tokens or keys from this address were wrong.',
};

export function refusalError({ kind, code, retryAfter }: Refusal): RealtimeError {
  if (retryAfter === undefined) return new RealtimeError(code, tooMuchAtOnce);
  return new RealtimeError(code, messages[kind], { retryAfter });
}

/** Counts a wrong token against the address that sent it. One that has merely expired is no guess. */
export function noteFailure<Known>(
  limits: Limits,
  address: string,
  check: () => MaybePromise<Known>,
): MaybePromise<Known> {
  const failed = (error: unknown): never => {
    if (error instanceof RealtimeError && error.code === 'unauthorized') limits.authenticationFailed(address);
    throw error;
  };
  try {
    const known = check();
    return known instanceof Promise ? known.catch(failed) : known;
  } catch (error) {
    return failed(error);
  }
}
