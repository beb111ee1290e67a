// Where a stretch of a channel's log begins. The server finds a channel's next message after a number of the stream,
// which counts the messages of all channels. So the place is estimated between two entries that are known, a little too
// early, and read from there: most often the first piece holds the beginning. A channel that slept for long and was busy
// then makes bad estimates, so halving takes turns with them.

import type { Entry } from './message.ts';

/** What a reader may see: nothing before the offset, and nothing of that moment or before it. */
export interface Goal {
  readonly offset: number;
  /** Unix milliseconds. */
  readonly after: number;
}

/** Two entries of one log, the first one earlier. */
export interface Known {
  readonly oldest: Entry;
  readonly newest: Entry;
}

/** Reads one after another from a number of the stream on: as many as the reader wants, and `more`. */
export type ReadPiece = (seq: number, more: number) => Promise<readonly Entry[]>;

interface Bounds {
  /** Not wanted, and nothing before it is. */
  low: Entry;
  /** Wanted. */
  high: Entry;
  /** None lies from this number up to `high`. */
  end: number;
}

/** So often the estimate is the better guess, wherever the channel's messages lie. */
const estimatesFirst = 3;

/** Of two entries the later one is wanted if the earlier one is. */
export function isWanted({ offset, at }: Entry, goal: Goal): boolean {
  return offset >= goal.offset && at > goal.after;
}

/** The piece that begins with the first entry that is wanted; empty if none is. */
export async function readFromGoal(goal: Goal, { oldest, newest }: Known, read: ReadPiece): Promise<readonly Entry[]> {
  if (!isWanted(newest, goal)) return [];
  if (isWanted(oldest, goal)) return read(oldest.seq, 0);
  const bounds: Bounds = { low: oldest, high: newest, end: newest.seq };
  for (let tries = 0; bounds.low.seq + 1 < bounds.end; tries++) {
    const isEstimate = tries < estimatesFirst || tries % 2 === 0;
    const { seq, more } = isEstimate ? estimate(goal, bounds) : { seq: middle(bounds), more: 0 };
    const piece = await read(seq, more);
    const index = piece.findIndex((entry) => isWanted(entry, goal));
    const [first] = piece;
    if (index > 0 || first === undefined || (index === 0 && seq === bounds.low.seq + 1)) return piece.slice(index);
    if (index === 0) Object.assign(bounds, { high: first, end: seq });
    else bounds.low = piece.at(-1) ?? first;
  }
  return read(bounds.high.seq, 0);
}

/** The messages of other channels lie between in no order, so how many do varies by the root of their number. */
function estimate(goal: Goal, { low, high, end }: Bounds): { readonly seq: number; readonly more: number } {
  const count = Math.max(1, high.offset - low.offset);
  const share = Math.max(shareOf(goal.offset, low.offset, high.offset), shareOf(goal.after + 1, low.at, high.at));
  const more = Math.ceil(2 * Math.sqrt(count * share * (1 - share)));
  const early = Math.max(0, share - (more + 1) / count);
  return { seq: low.seq + 1 + Math.floor((end - low.seq - 1) * early), more };
}

function middle({ low, end }: Bounds): number {
  return Math.floor((low.seq + end) / 2);
}

/** How far the value lies on the way from `low` to `high`. */
function shareOf(value: number, low: number, high: number): number {
  return high <= low ? 0 : Math.min(1, Math.max(0, (value - low) / (high - low)));
}
