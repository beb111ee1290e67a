// How one batch leaves the outbox: what `drain-log` and `drain-carry` do in their own ways.

import type { Row } from '../database/direct-session.ts';

/** What is known of the transactions around one read. */
export interface Horizon {
  /** Every transaction below this had ended before the read. */
  readonly oldest: number;
  /** Every transaction that had an id lower than one of the batch is below this. */
  readonly next: number;
}

export interface Batch {
  /** Ids that left the outbox, ascending; also of rows that were dropped or whose key was used. */
  readonly ids: readonly number[];
  readonly dropped: number;
  readonly horizon: Horizon;
}

export interface Drain {
  /** SQL that a session needs before its first statement; undefined when it needs none. */
  setup(): string | undefined;
  /** SQL that reads the next batch and ends with a statement whose rows `finish` takes. */
  statement(ranges: readonly number[] | undefined): string;
  /** Hands the batch over. Rejects when it could not be, and then nothing was lost. */
  finish(rows: readonly Row[]): Promise<Batch>;
  /** SQL for what is left to do when the relay stops; undefined when nothing is. */
  remainder(): string | undefined;
}

/** `oldest:next`, as the SQL functions report it. */
export function parseHorizon(text: unknown): Horizon {
  const [oldest, next] = String(text).split(':');
  return { oldest: Number(oldest), next: Number(next) };
}

/** An array parameter of the SQL functions; `null` reads everything. */
export function arrayLiteral(numbers: readonly number[] | undefined): string {
  return numbers === undefined ? 'null' : `'{${numbers.join(',')}}'`;
}

export function parseArray(text: unknown): number[] {
  const inner = String(text).slice(1, -1);
  return inner === '' ? [] : inner.split(',').map(Number);
}
