// The presence store: what the nodes share about who is in which channel. The port; each engine brings an adapter.
//
// The theory in one place:
//  - Of each channel the store holds its members, by connection, and a version: the number of changes that were told.
//    A change of the members, its version and what is told of it are one step. Nodes that watch the channel are told
//    every change in ascending version. An adapter may lose some (a lost connection): a node that misses a version reads
//    the list again. What an adapter may never do is reorder, or tell what did not happen.
//  - The epoch names the store's memory of a channel. It changes when that was lost, or forgotten after the last member
//    left; versions of different epochs have nothing to do with each other.
//  - The store decides what a change means to the user's other connections, in the same step: the first connection of a
//    user is a `join`, the last one that goes is a `leave`, everything between is an `update`. A connection without a
//    user is alone.
//  - A connection that parts stays a member, and is marked. The next one of the same user takes its place and its time:
//    that is an `update`, on whichever node it is. Its own node makes it leave when nobody did in time.
//  - Each node gives one sign of life, however many members it has. The members of a node without one are removed by
//    whoever notices: each of them once, since removal is a step of the store.
//  - Time is the store's. The clocks of nodes differ.

import type { OwnMember } from './member.ts';

/** One node's wish for one of its connections. Applying it twice is applying it once. */
export type Change =
  | {
      readonly kind: 'enter';
      readonly channel: string;
      readonly connection: string;
      /** Who enters, and with which data. A store in this process may keep it, and write since when it is there. */
      readonly member: OwnMember;
      /** A connection that is no member yet is refused where the channel has this many; 0 takes any number. */
      readonly membersMax: number;
    }
  | { readonly kind: 'part' | 'leave'; readonly channel: string; readonly connection: string };

/** A change as the nodes that watch the channel are told of it. */
export interface Told {
  readonly kind: 'join' | 'update' | 'leave';
  /** One more than the change before it. */
  readonly version: number;
  /** Whose member `member` is: of a `leave`, the one that was removed; of an `update`, one that is there. */
  readonly connection: string;
  /** The member as JSON text, as in `Member` of `protocol/frames.ts`. */
  readonly member: string;
  /** Of an `update`: another connection of the user, which is a member no more. */
  readonly left?: string | undefined;
}

/** What became of a wish. */
export interface Applied {
  /** Where the channel's list stands after it; an empty epoch where the store knows nothing of the channel. */
  readonly epoch: string;
  readonly version: number;
  /** Absent where nothing changed that others see. */
  readonly told?: Told | undefined;
  /** The channel had no room for it. */
  readonly isFull: boolean;
}

export interface StoredMember {
  readonly connection: string;
  /** Of the node that entered it. */
  readonly node: string;
  readonly member: string;
}

/**
 * The list of a channel. It holds every change up to `version` and may hold some of the later ones: whoever applies these
 * in order has the exact list, since a change is the same when it is applied twice.
 */
export interface Snapshot {
  /** Empty, with version 0, for a channel without a member. */
  readonly epoch: string;
  readonly version: number;
  /** Where it was read in several steps: the version at the last one. Members may show changes up to it. */
  readonly upTo?: number;
  readonly members: readonly StoredMember[];
}

export interface SignOfLife {
  /** False when the store did not know the node: it is new, or was taken for dead, or the store lost its memory. */
  readonly isKnown: boolean;
  /** Nodes without a sign of life in time, a few of them. */
  readonly dead: readonly string[];
  /** Milliseconds until the next node counts as dead if it gives no sign; undefined when there is no other node. */
  readonly nextDeathMs: number | undefined;
}

/** How far a list is: which changes it holds. */
export interface ListVersion {
  readonly epoch: string;
  readonly version: number;
}

/** What a store tells its node. All of it synchronous, none of it throws. */
export interface PresenceEvents {
  /** Of a watched channel, in ascending version. */
  changed(channel: string, epoch: string, told: readonly Told[]): void;
  /** Changes may have gone untold, or the store may have lost its memory. */
  interrupted(): void;
}

/**
 * Lifecycle: `start` once, after the engine's sync adapter has started; the calls in any order; `close` once, before the
 * adapter closes. Each call rejects with `unavailable` when the store cannot be reached, within a second or two.
 */
export interface PresenceStore {
  /** Channels that one call of `positions` may ask for. */
  readonly positionsMax: number;
  /** A store in this process has it: who waits for such a store pays for promises, and there are many who join. */
  readonly atOnce?: PresenceAtOnce | undefined;
  start(events: PresenceEvents): void;
  /**
   * Applies wishes of the node, in order for each channel, and answers each. When it rejects, some may have been applied.
   * A node calls it again only after the answer.
   */
  apply(node: string, changes: readonly Change[]): Promise<readonly Applied[]>;
  /** Changes of the channel reach this node from now on. Idempotent. */
  watch(channel: string): Promise<void>;
  /** Nothing of this node is in the channel any more, and nobody here asks for it. Idempotent, answers at once. */
  unwatch(channel: string): void;
  read(channel: string): Promise<Snapshot>;
  /**
   * Where the lists stand, in the order asked. Nodes ask this time and again of all
   * their lists, however little happens in them, so the store answers at one price, however many are asked for.
   */
  positions(channels: readonly string[]): Promise<readonly ListVersion[]>;
  /** The node lives, and does so for at least `milliseconds`. */
  live(node: string, milliseconds: number): Promise<SignOfLife>;
  /** The node ends: it counts as dead after `milliseconds`, unless it gives another sign. */
  end(node: string, milliseconds: number): Promise<void>;
  /**
   * Members of these nodes are in the channel's list. One that the store does not know, since it lost some of its memory,
   * counts as dead after `milliseconds`, unless it gives a sign of life.
   */
  suspect(channel: string, nodes: readonly string[], milliseconds: number): Promise<void>;
  /**
   * Removes some hundred members of a dead node. Resolves true when nothing is left of it. Each member is removed by one
   * call, however many nodes call at once; one that has entered again by another node is not.
   */
  bury(node: string): Promise<{ readonly isDone: boolean; readonly told: readonly BuriedMember[] }>;
  close(): Promise<void>;
}

/** What a store in this process answers on the spot. */
export interface PresenceAtOnce {
  /** As `apply`, of one wish. */
  apply(node: string, change: Change): Applied;
  /** As `watch` and then `read`. */
  read(channel: string): Snapshot;
}

export interface BuriedMember {
  readonly channel: string;
  readonly told: Told;
}
