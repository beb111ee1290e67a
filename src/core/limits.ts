// What a node asks before it lets somebody in or runs a command: the port to the limits.

import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Identity } from './access.ts';
import type { MaybePromise } from './maybe-promise.ts';

/** What is limited, as the metric's label says it. */
export const limitKinds = [
  /** A user's commands and HTTP calls, or those of an anonymous connection. */
  'commands',
  /** Open connections: of this process, of a user, of an address. */
  'connections',
  /** Connections per second of an address. */
  'connects',
  /** Tokens and keys from an address that did not hold. */
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
  /** Seconds after which one more would be let through; of connections, after which to try again. */
  readonly retryAfter: number;
  /** The user goes on in spite of many refusals: the connection is closed. */
  readonly isAbuse: boolean;
}

/** Whose commands are counted together: those of a user, or of one connection that has none. */
export interface Commander {
  readonly id: string;
  readonly identity: Identity;
}

/**
 * Nothing here throws or rejects, and what cannot be asked about is let through. An address is what clients are told
 * apart by, see `transports/client-address.ts`; it is undefined where addresses are not limited.
 */
export interface Limits {
  /** Counts commands; undefined lets them run. Synchronous wherever it can be. */
  command(commander: Commander, count?: number): MaybePromise<Refusal | undefined>;

  /** Somebody asks for a connection; counts it. */
  arrival(address: string | undefined): MaybePromise<Refusal | undefined>;
  /** Whether the address may show a token or a key at all. */
  authentication(address: string | undefined): Refusal | undefined;
  /** What it showed did not hold. */
  authenticationFailed(address: string | undefined): void;
  /** As both, for a token that a connection shows to be refreshed. */
  refreshing(commander: Commander): Refusal | undefined;
  refreshFailed(commander: Commander): void;

  /** To be waited for before `room` is asked; undefined if what this node knows will do. */
  askForRoom(identity: Identity, address: string | undefined): Promise<void> | undefined;
  /** Whether one more connection may open, by what is known now; it counts once it has `joined`. */
  room(identity: Identity, address: string | undefined): Refusal | undefined;
  /** A connection has opened. */
  joined(commander: Commander, address: string | undefined): void;
  /** It has ended. Of one that never joined, nothing is known. */
  left(commander: Commander): void;
  /** Open connections of this node under a key of the limiter's own, which another node asks by. */
  connectionsOf(key: string): number;
}

const messages: { readonly [Kind in LimitKind]?: string } = {
  connections: 'There are too many connections.',
  connects: 'This address connects too often.',
  authentications: 'Too many tokens or keys of this address did not hold.',
};

export function refusalError({ kind, code, retryAfter }: Refusal): RealtimeError {
  return new RealtimeError(code, messages[kind], { retryAfter });
}

/** Counts a token that does not hold against the address that showed it. One that has merely ended is no guess. */
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
