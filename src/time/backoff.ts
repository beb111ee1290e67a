// How long to wait before the next try. The ceiling of the pause doubles with each failure in a row, up to a maximum.

import type { Clock } from './clock.ts';

export interface BackoffRange {
  /** The ceiling of the first pause. */
  readonly firstMs: number;
  /** No ceiling is higher. */
  readonly maxMs: number;
}

/**
 * The pause before the next try, in milliseconds. `index` is 0 for the first pause of a row of failures. The pause is
 * drawn evenly from 0 to the ceiling ("full jitter"): nodes that lose a server in the same instant return spread out.
 */
export function backoffMs(index: number, range: BackoffRange, clock: Pick<Clock, 'random'>): number {
  return clock.random() * backoffCeilingMs(index, range);
}

/** The ceiling itself: the pause of someone who has no peers to be spread from, such as the keeper of a process. */
export function backoffCeilingMs(index: number, { firstMs, maxMs }: BackoffRange): number {
  return Math.min(maxMs, firstMs * 2 ** index);
}
