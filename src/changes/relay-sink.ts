// Where table changes go, and who hears how it goes: what the relay asks of the rest of the server.

import type { LogRow } from '../database/log-row.ts';
import type { OutboxRow } from '../database/outbox-row.ts';

/** The log is in the same database: the relay has appended before it tells. */
export interface LogSink {
  readonly kind: 'log';
  /**
   * A committed batch, in the order of the log, with ephemeral rows (offset 0) in their places. The relay reads no
   * further before a returned promise resolves. A batch may be missed when the connection breaks between commit and
   * answer: recoverable rows are then in the log all the same.
   */
  delivered(rows: readonly LogRow[], dropped: number): void | Promise<void>;
}

/** The log is elsewhere: rows leave the outbox once `append` has resolved. */
export interface CarrySink {
  readonly kind: 'carry';
  /**
   * Appends in order, each id once: after a crash between append and deletion the same ids come again and must be
   * ignored. Rejecting leaves the rows in the outbox, to be handed over again.
   */
  append(rows: readonly OutboxRow[]): Promise<void>;
}

export type RelaySink = LogSink | CarrySink;

/** Calls come from the relay's loop: cheap, and none throws. */
export interface RelayObserver {
  /** This process began or ceased to be the one that relays. */
  leader(leader: boolean): void;
  /** A batch was moved: rows taken, of these dropped (their channel is no channel), seconds from query to hand-over. */
  batch(rows: number, dropped: number, seconds: number): void;
  /** What waits: rows, counted up to 10,000, and the age of the oldest in seconds. Every few seconds, by the leader. */
  waiting(rows: number, lagSeconds: number): void;
  /** The relay met an error and will try again. */
  error(error: unknown): void;
}
