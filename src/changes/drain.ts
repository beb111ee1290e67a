// How one batch leaves the outbox: what `drain-log` and `drain-carry` do in their own ways.

import type { Row } from '../database/direct-session.ts';

/** Snapshot of the transactions that one read saw: every id below `xmin` had ended, none from `xmax` on had begun. */
export interface Snapshot {
  readonly xmin: number;
  readonly xmax: number;
}

export interface Batch {
  /** Ids that left the outbox, ascending; also of rows that were dropped or whose key was used. */
  readonly ids: readonly number[];
  readonly dropped: number;
  readonly snapshot: Snapshot;
}

export interface Drain {
  /** SQL that reads the next batch and ends with a statement whose rows `finish` takes. */
  statement(ranges: readonly number[] | undefined): string;
  /** Hands the batch over. Rejects when it could not be, and then nothing was lost. */
  finish(rows: readonly Row[]): Promise<Batch>;
  /** SQL for what is left to do when the relay stops; undefined when nothing is. */
  remainder(): string | undefined;
}

/** `xmin:xmax`, as the SQL functions report it. */
export function parseSnapshot(text: unknown): Snapshot {
  const [xmin, xmax] = String(text).split(':');
  return { xmin: Number(xmin), xmax: Number(xmax) };
}

/** An array parameter of the SQL functions; `null` reads everything. */
export function arrayLiteral(numbers: readonly number[] | undefined): string {
  return numbers === undefined ? 'null' : `'{${numbers.join(',')}}'`;
}

export function parseArray(text: unknown): number[] {
  const inner = String(text).slice(1, -1);
  return inner === '' ? [] : inner.split(',').map(Number);
}
