// Knows where in the outbox live rows can be, so that a read need not walk from the start through dead ones: while any
// long transaction is open, no vacuum can remove them, and they soon are many.
//
// Ids are given before their transactions commit. An id below the highest seen that was not seen itself belongs to a
// transaction that is still open, or that was rolled back: a gap. Rows can only appear in gaps and above the highest
// id. A gap is closed once every transaction that was open when it was noticed has ended, and a read after that found
// nothing more in it. Skipping gaps and visiting them later would be wrong: a late commit must come before what other
// transactions then did to the same row.

import type { Batch } from './destination.ts';

interface Gap {
  first: number;
  readonly last: number;
  /** The transaction that has ids of the gap, if one has, is below this. */
  readonly before: number;
}

const idMax = Number.MAX_SAFE_INTEGER;
/** Past this many, neighbours are joined, at the price of walking through the dead rows between them. */
const gapsMax = 1_000;

export class OutboxWindow {
  #gaps: Gap[] = [];
  #highest = 0;

  /** First and last id of each range in which a row can be, ascending. */
  ranges(): number[] {
    const ranges: number[] = [];
    for (const gap of this.#gaps) ranges.push(gap.first, gap.last);
    ranges.push(this.#highest + 1, idMax);
    return ranges;
  }

  /** Takes in what a read of these ranges, or of everything, found. */
  read({ ids, horizon }: Batch): void {
    const next: Gap[] = [];
    // A batch that is cut short by its size has still taken all that was visible below its last id.
    const complete = ids.at(-1) ?? idMax;
    let index = 0;
    for (const gap of this.#gaps) {
      while ((ids[index] ?? idMax) < gap.first) index++;
      let first = gap.first;
      for (let id = ids[index]; id !== undefined && id <= gap.last; id = ids[++index]) {
        if (id > first) keep(next, { first, last: id - 1, before: gap.before }, complete, horizon.oldest);
        first = id + 1;
      }
      if (first <= gap.last) keep(next, { first, last: gap.last, before: gap.before }, complete, horizon.oldest);
    }
    for (; index < ids.length; index++) {
      const id = ids[index] ?? 0;
      if (id <= this.#highest) continue;
      if (id > this.#highest + 1) next.push({ first: this.#highest + 1, last: id - 1, before: horizon.next });
      this.#highest = id;
    }
    this.#gaps = next.length > gapsMax ? joinNeighbours(next) : next;
  }
}

function keep(gaps: Gap[], gap: Gap, complete: number, oldest: number): void {
  if (gap.before > oldest || gap.last > complete) gaps.push(gap);
}

function joinNeighbours(gaps: readonly Gap[]): Gap[] {
  const joined: Gap[] = [];
  for (let index = 0; index < gaps.length; index += 2) {
    const left = gaps[index];
    const right = gaps[index + 1];
    if (left === undefined) continue;
    if (right === undefined) joined.push(left);
    else joined.push({ first: left.first, last: right.last, before: Math.max(left.before, right.before) });
  }
  return joined;
}
