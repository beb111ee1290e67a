// Where table changes go: what the relay asks of a destination, and what a destination asks of the node. One takes
// batches into the log of this database (`into-log.ts`), the other into an adapter's (`into-adapter.ts`).

import type { Carried } from '../core/sync-adapter.ts';
import { literal, textArray, type Database } from '../database/connect.ts';
import type { Row } from '../database/direct-session.ts';
import type { ChannelRule } from '../rules/rules.ts';

/**
 * What has been taken from the outbox so far, in the words of `realtime.visible`, which alone reads and writes it. A
 * state is good for the session that it was answered to.
 */
export type OutboxState = string;

/** Whether more rows were visible than the batch that came with this state. */
export function waitsBeyond(state: OutboxState): boolean {
  return state.includes('|');
}

export interface Batch {
  /** Rows that left the outbox; also those that were dropped or whose key was used. */
  readonly rows: number;
  /** Rows whose channel is not a valid name. */
  readonly dropped: number;
  /** For the next read; undefined where that has to look at everything. */
  readonly state: OutboxState | undefined;
  /** Rows that are too large, which are parked, and those that the layer refused, which the next statement parks. */
  readonly parked: number;
  /** Why the layer took no more than these rows of the batch. The others come again, after `end` and `begin`. */
  readonly failure?: unknown;
}

/**
 * One for the life of a relay. Calls come one after another: `begin`, for each batch `statement` and `take`, then `end`.
 * A session that is lost ends the sequence anywhere: `interrupted`, and later `begin` again.
 */
export interface Destination {
  /** SQL that a session needs before its first batch. `begun` gets the rows of its last statement. */
  begin(): string;
  begun(rows: readonly Row[]): void;
  /**
   * SQL that reads the next batch after this state, or of everything. `take` gets the rows of its last statement. `max`
   * is how many rows at most, where that is not as many as always.
   */
  statement(state: OutboxState | undefined, max?: number): string;
  /** Takes the batch over, or a part of it. Rejects when it took nothing; then the same rows come again. */
  take(rows: readonly Row[]): Promise<Batch>;
  /** SQL for what is left to do when the relay stops; undefined when nothing is. */
  end(): string | undefined;
  /** The relay failed. Nobody knows whether its last statement was committed, nor which database it meets next. */
  interrupted(): void;
}

export interface Change {
  readonly channel: string;
  /** JSON text on one line. Empty for a gap: something of the channel could not be captured. */
  readonly data: string;
  readonly key?: string | undefined;
  /** The transaction that wrote it. */
  readonly xid?: string | undefined;
  readonly carried?: Carried | undefined;
}

/** What a destination may use of the node. */
export interface DestinationPorts {
  /** Data of a row at most; larger ones are parked. Default: 16 MiB. */
  readonly rowBytesMax?: number | undefined;
  readonly rules: readonly ChannelRule[];
  readonly sql: Database;
  /** Publishes a change. Throws or rejects when the sync layer did not take it. */
  readonly publish: (change: Change) => unknown;
  /** A change of this channel was published, though not by `publish`. */
  readonly published: (channel: string) => void;
  /** Resolves when the sockets of this node have taken in what was published, or were too slow to wait for. */
  readonly settled: () => void | Promise<void>;
  readonly failed: (message: string, error: unknown) => void;
}

export const rowBytesMaxDefault = 16 << 20;

/** SQL that parks rows, named as `realtime.peek` names them. A short `reason` is counted, the error is kept. */
export function parking(ids: readonly string[], reason: string, error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  // A text that quotes what could not be decoded may hold what cannot be encoded again.
  const given = [textArray(ids), reason, message.replaceAll('\0', '').toWellFormed()].map(literal);
  return `select realtime.park(${given.join(', ')})`;
}

/** Rows per batch at most. */
export const batchMaxDefault = 1_000;
