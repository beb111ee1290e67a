// Rows and the stream after them: what a subscription that wants rows asks for, and what it gets. Who takes the rows
// stands in `src/snapshot/`; how they reach one subscriber, in `recovery.ts`.

import type { Position } from '../protocol/position.ts';
import type { ChannelRule } from '../rules/rules.ts';
import type { Identity } from './access.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { Publication } from './publication.ts';
import type { HistoryPage } from './sync-adapter.ts';

/** Rows of one moment, shared by all who asked for the same. */
export interface Snapshot {
  /** The `snapshot` frames, in order. */
  readonly frames: readonly string[];
  /** The rows hold everything up to here, and nothing after it but what `holds` says. */
  readonly position: Position;
  /** Whether the rows hold this later publication already. */
  holds(publication: Publication): boolean;
}

/** A channel of this node, which stays open while its rows are taken. */
export interface SnapshotChannel {
  readonly name: string;
  readonly rule: ChannelRule;
  /** Where this node stands. */
  readonly position: Position;
  /**
   * Resolves with where this node stands once it has taken in all that the log held at the call. Rejects with
   * `unavailable`.
   */
  reachLog(): Promise<Position>;
  /** A page of the log, also of what is past the rule but still stored. */
  readStored(since: Position): MaybePromise<HistoryPage>;
}

export interface SnapshotWish {
  readonly identity: Identity;
  /** Whose turn it takes. */
  readonly account: string;
  /** False for rows that are too old for this subscriber; others are taken then. */
  readonly isUsable: (snapshot: Snapshot) => boolean;
}

export interface OlderWish {
  readonly identity: Identity;
  readonly account: string;
  readonly before: string | number;
  readonly limit: number;
}

export interface OlderPage {
  /** JSON texts on one line, at most `limit`. */
  readonly rows: readonly string[];
  /** There are no more. */
  readonly complete: boolean;
}

export interface Snapshots {
  /** Whether a rule says which rows the channel describes. */
  has(channel: string): boolean;
  /** Rejects with `unavailable` when they cannot be read. */
  take(channel: SnapshotChannel, wish: SnapshotWish): Promise<Snapshot>;
  /**
   * Rows that are older than the channel's history. Rejects with `unavailable` when they cannot be read, with
   * `bad_request` when no rule says which they are, or when `before` makes no sense to the rule.
   */
  older(channel: string, wish: OlderWish): Promise<OlderPage>;
}

/** A node without a database to read from. */
export const noSnapshots: Snapshots = {
  has: () => false,
  take: () => Promise.reject(new Error('there are no snapshots here')),
  older: () => Promise.reject(new Error('there are no snapshots here')),
};
