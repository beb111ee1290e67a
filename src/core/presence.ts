// Who is in a channel: the port through which the core enters connections, tells them, and answers who is there.
//
// A connection is a member of a channel from the moment in which it entered until it left, or parted and did not come
// back in time. Members are connections; joins and leaves are told of users: the first connection of a user joins, the
// last one leaves. A connection without a user is one of its own.

import type { PresenceList } from '../protocol/frames.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { Outlet } from './outlet.ts';

/** A connection as presence sees it. */
export interface Entrant {
  readonly id: string;
  readonly identity: { readonly user: string | null };
  readonly outlet: Outlet;
}

export interface Presence {
  /**
   * Makes the connection a member, or replaces its data if it is one: JSON text on one line. Resolves, or returns, when
   * this node's list holds it. Rejects with, or throws, `too_large`, `limit_exceeded` where the channel takes no more than
   * `membersMax`, and `unavailable` when the nodes' store cannot be reached; then the connection is no member.
   */
  enter(entrant: Entrant, channel: string, data: string, membersMax: number): MaybePromise<void>;
  /** From now on the member's outlet hears what changes in the channel. One that takes no commands gets the list first. */
  hear(entrant: Entrant, channel: string): void;
  /** Whether it entered and did not leave. */
  has(connection: string, channel: string): boolean;
  /** It leaves, and wants to: that is told at once. Does nothing to one that is no member. */
  leave(entrant: Entrant, channel: string): void;
  /** It is gone, and its user may be on the way to another node. Does nothing to one that is no member. */
  part(entrant: Entrant, channel: string): void;
  /** The first `limit` members, in the order in which they came. Rejects with `unavailable`. */
  list(channel: string, limit: number): PresenceList | Promise<PresenceList>;
}
