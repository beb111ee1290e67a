// The sync layer's two facing ports: what the hub asks of an adapter, and what an adapter tells the hub.
//
// The theory of the system in one place:
//  - A channel is either recoverable or ephemeral; the channel's rule says which, and the hub passes the rule along.
//  - For a recoverable channel the adapter is the sequencer. It keeps a log per channel, gives each publication the
//    next offset, and every node hears every publication of a channel it subscribed to, in ascending offset. An
//    adapter may repeat itself or leave a hole (a lost connection): the hub compares offsets, drops repeats and fills
//    holes from `history`. What it may never do is reorder or renumber within one epoch.
//  - The epoch names the log. When the log is lost or reset, the adapter answers with another epoch from then on.
//  - For an ephemeral channel the hub has already delivered locally; the adapter only carries it to the other nodes
//    and never brings a publication back to the node that sent it.
//  - An adapter says what it cannot do in its traits; callers ask the traits, and tests skip by them with a reason.

import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { ChannelRule } from '../rules/rules.ts';
import type { Publication, Sender } from './publication.ts';

export interface SyncTraits {
  /** Publications reach other processes. */
  readonly shared: boolean;
  /** Positions survive a restart of this process. */
  readonly durable: boolean;
}

/** What the hub hands over to be published. */
export interface Outgoing {
  readonly channel: string;
  readonly rule: ChannelRule;
  /** JSON text on one line. Empty for a gap of the log, which is numbered, told and kept as any publication. */
  readonly data: string;
  /** Unix milliseconds. Ephemeral publications keep it on every node; a log that numbers by its own clock may not. */
  readonly at: number;
  readonly from?: Sender | undefined;
  /** The connection that shall not hear it. */
  readonly except?: string | undefined;
  /** Idempotency key, at most 64 characters: within the channel's kept history, a second use changes nothing. */
  readonly key?: string | undefined;
  /** Kept with the publication, see there. */
  readonly xid?: string | undefined;
  /**
   * Of a publication with a key that its source made: what tells repeats by a mark per channel. An adapter that uses it
   * need not remember the key.
   */
  readonly carried?: Carried | undefined;
  /** Whose span it is a part of, as a W3C `traceparent`. It does not travel. */
  readonly trace?: string | undefined;
}

/**
 * A publication that its source may hand over again, until the row that it stands for is gone from there.
 *
 * One carrier at a time has the source, and each gets a higher term. It hands over batches, one after another: no row
 * of a batch can come again in the same term once the next batch has begun.
 */
export interface Carried {
  /** Names the source, without a blank. */
  readonly source: string;
  readonly term: number;
  /** From 1 in each term. */
  readonly batch: number;
  /** Among the batch's publications to this channel, from 1. */
  readonly place: number;
  /** Names the row. The same whoever carries it. */
  readonly id: string;
  /** Of all these publications, in order; only the first of them has it. */
  readonly ids: readonly string[];
  /** What earlier terms handed over cannot come any more. */
  readonly clean: boolean;
}

/** What a log answers to a publication: where it is. */
export interface Appended extends Position {
  /** Its key was used before. This is the position of the first one, and nothing was published. */
  readonly isRepeat?: true;
}

/** A carrier whose source has another one by now, of this term. Nothing was published. */
export class TermEnded extends RealtimeError {
  readonly term: number;

  constructor(term: number, options?: ErrorOptions) {
    super('unavailable', 'Another relay carries this source.', options);
    this.term = term;
  }
}

export interface HistoryQuery {
  /** Read what follows this position; without it, the newest `limit` publications. */
  readonly since?: Position | undefined;
  /** 1 or more. */
  readonly limit: number;
  /** Bytes of data that the page holds at most, about, but one publication in any case. Default: `pageBytesMax`. */
  readonly bytesMax?: number | undefined;
}

/** A thousand publications of the largest size would be 64 MB. */
export const pageBytesMax = 1 << 20;

/** A stretch of a channel's log. */
export interface HistoryPage {
  /** The log's head when it was read. */
  readonly head: Position;
  /** Ascending and without holes among themselves. */
  readonly publications: readonly Publication[];
  /**
   * With `since`: the page begins right after it and ends at the head; so an empty page at the head is complete.
   * Without: the page is all that is kept.
   */
  readonly complete: boolean;
  /** With `since`: why the page does not begin right after it; absent when it does. */
  readonly gap?: 'trimmed' | 'epoch_changed' | undefined;
}

export interface SyncHealth {
  readonly up: boolean;
}

/**
 * What the hub asks of the sync layer.
 *
 * Lifecycle: `start` once, then the calls in any order, then `close` once; after `close` nothing is told any more.
 * Each method throws `RealtimeError('unavailable')` when the layer cannot be reached, within a second; never hangs.
 */
export interface SyncAdapter {
  /** Of its engine; metrics and the log show it. */
  readonly name: string;
  readonly traits: SyncTraits;

  /** Connects. Resolves when publications flow; rejects when the layer cannot be reached at start. */
  start(events: SyncEvents): Promise<void>;

  /**
   * Publishes. For a recoverable channel it answers the publication's position once the log holds it. For a repeated key
   * that is the position which it had before, with a sign that it is a repeat. For an ephemeral channel it answers
   * undefined once the publication is on its way.
   * The publication itself comes back to this node through `SyncEvents.publication`, before or after the answer.
   */
  publish(outgoing: Outgoing): MaybePromise<Appended | undefined>;

  /**
   * Publications of the channel reach this node from now on. Answers the head: every publication with a higher offset
   * will be told. Idempotent. For an ephemeral channel the answer is undefined.
   */
  subscribe(channel: string, rule: ChannelRule): MaybePromise<Position | undefined>;

  /** The channel is of no interest any more; what is still told of it is ignored. Idempotent, answers at once. */
  unsubscribe(channel: string): void;

  /**
   * Reads the log of a recoverable channel within its rule's size and age. `internal` readers (this node filling a
   * hole) also get what is past the rule but still stored.
   */
  history(channel: string, rule: ChannelRule, query: HistoryQuery, internal?: boolean): MaybePromise<HistoryPage>;

  /** What is known now, without asking the network. */
  health(): SyncHealth;

  /** Sends a message through the real path and resolves when it came back. Rejects after `timeoutMs`. */
  probe(timeoutMs: number): Promise<void>;

  /** Lets go of every connection. Idempotent; never rejects. */
  close(): Promise<void>;
}

/** What an adapter tells the hub. All of it synchronous, none of it throws. */
export interface SyncEvents {
  /** A publication of a subscribed channel. */
  publication(publication: Publication): void;
  /**
   * The log's head is at least here: told after a connection was lost and regained, for each subscribed channel. The
   * hub fetches what it lacks, or says `gap` if the epoch differs or the offset went back.
   */
  head(channel: string, head: Position): void;
  /**
   * Resolves when the sockets of this node have taken in what they were given (or were found too slow to wait for).
   * An adapter that reads a log awaits it between batches, so that one huge statement floods nobody.
   */
  settled(): MaybePromise<void>;
}
