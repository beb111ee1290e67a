// Who may do what: the port through which the core asks.

import type { Action } from '../rules/config.ts';
import type { ChannelPattern } from '../rules/pattern.ts';
import type { MaybePromise } from './maybe-promise.ts';

/** Who is on the other end of a connection. */
export interface Identity {
  /** The token's `sub`, or null for an anonymous connection. */
  readonly user: string | null;
  /** Unix seconds at which the token ends, and the connection with it. */
  readonly expiresAt?: number | undefined;
  /** Unix seconds from which the connection should be told that its end is near. */
  readonly warnAt?: number | undefined;
  readonly grants?: readonly Grant[] | undefined;
  /** All that the token says, as it says it. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined;
  /** Nothing tells it from the application's backend: they share their idempotency keys. */
  readonly actsAsBackend?: boolean | undefined;
}

/** Actions on the channels whose names match. */
export interface Grant {
  readonly pattern: ChannelPattern;
  readonly actions: ReadonlySet<Action>;
}

export interface Access {
  /**
   * Whether the identity may. Throws, or rejects with, a RealtimeError when whoever decides cannot be asked: that is a
   * no as well, but worth a retry. `account`: whose turn it takes where an answer takes long; by default the user's.
   */
  may(identity: Identity, action: Action, channel: string, account?: string): MaybePromise<boolean>;
  /** Connections that may be subscribed to the channel at once, on all nodes; undefined sets no limit. */
  subscribersMax(channel: string): number | undefined;
  /** The channels to which the identity is subscribed by itself, if it may. */
  joined(identity: Identity): readonly string[];
  /** Members that the channel's presence takes. */
  membersMax(channel: string): number;
  /** Another one after each renewal: an answer that was asked for under an earlier one says nothing any more. */
  readonly generation: number;
  /**
   * Forgets what it remembers of earlier answers: of one user, or of all, and then reads the rules anew. Rejects with
   * `unavailable` when these are faulty: the earlier ones stay in force, and the faults are in the log.
   */
  renew(user: string | undefined): Promise<void>;
}

/** A connection to a server that checks no tokens. */
export const anonymous: Identity = { user: null, actsAsBackend: true };

/** A connection without a token to a server that checks tokens and allows such connections. */
export const tokenless: Identity = { user: null };

/** The idempotency key under which a client's publication counts: nobody uses up a backend's, or another user's. */
export function keyOf(identity: Identity, key: string | undefined): string | undefined {
  if (key === undefined || identity.actsAsBackend === true) return key;
  return `\u0001${identity.user ?? ''}\u0001${key}`;
}

/** Turns a connection's token, if it has one, into who it is. Throws `unauthorized` or `token_expired`. */
export type Authenticate = (token: string | undefined) => MaybePromise<Identity>;

/** Without a key to check tokens by, everyone is anonymous and a token says nothing. */
export const everyoneAnonymous: Authenticate = () => anonymous;
