// What this node has seen of one channel's log: a window of the newest publications of one epoch, with holes where this
// node has not seen them. A publication never changes within its epoch, so what is here is what the log holds.
// The node-wide budget and the order of eviction are those of `kept.ts`.

import type { Position } from '../protocol/position.ts';
import type { ChannelRule } from '../rules/rules.ts';
import type { Publication } from './publication.ts';
import type { HistoryPage } from './sync-adapter.ts';

/** A stretch that a subscriber lacks. */
export interface KeptQuery {
  readonly since: Position;
  /** Publications at most. */
  readonly limit: number;
  /** Bytes of data at most; one publication in any case. */
  readonly bytesMax: number;
  /** Where this node stands. */
  readonly head: Position;
  readonly rule: ChannelRule;
  /** Unix milliseconds. */
  readonly now: number;
}

const ringStart = 8;
/** A wider window would cost more than what it spares: who is further behind reads the log. */
const windowMax = 1 << 16;
const slotBytes = 8;

export class KeptChannel {
  #epoch = '';
  /** A publication stands at its offset modulo the length, which is a power of two. */
  #ring: (Publication | undefined)[] = [];
  /** Nothing is kept outside of these offsets. */
  #low = 1;
  #high = 0;
  #bytes = 0;
  /** The log itself has nothing up to here. */
  #trimmedTo = 0;

  get bytes(): number {
    return this.#bytes;
  }

  /** Keeps nothing of another epoch, nor what lies past an offset to which the log went back. */
  begin({ epoch, offset }: Position): void {
    if (epoch !== this.#epoch || offset < this.#high) this.#clear(epoch);
  }

  /** Of the epoch that was begun, in any order. `sizeMax`: the rule's. */
  add(publication: Publication, sizeMax: number): void {
    const { offset } = publication;
    const size = Math.min(sizeMax, windowMax);
    if (publication.epoch !== this.#epoch || offset <= this.#high - size || this.#at(offset) !== undefined) return;
    this.#dropUpTo(offset - size);
    // With nothing left the window begins here: it does not span what lies between.
    if (this.#high < this.#low) {
      this.#low = offset;
      this.#high = offset;
    }
    const low = Math.min(this.#low, offset);
    const high = Math.max(this.#high, offset);
    if (high - low >= this.#ring.length) this.#grow(low, high);
    this.#low = low;
    this.#high = high;
    this.#ring[offset & (this.#ring.length - 1)] = publication;
    this.#bytes += publication.bytes;
  }

  /** A page of the log said that nothing up to there is left. */
  trimmed(epoch: string, upTo: number): void {
    if (epoch === this.#epoch) this.#trimmedTo = Math.max(this.#trimmedTo, upTo);
  }

  /** What the log would answer; undefined if this node has not seen enough to know. */
  page({ since, limit, bytesMax, head, rule, now }: KeptQuery): HistoryPage | undefined {
    const isOfThisLog = since.epoch === head.epoch && head.epoch === this.#epoch && since.offset <= head.offset;
    if (!isOfThisLog) return undefined;
    const trimmedTo = Math.max(this.#trimmedTo, head.offset - rule.historySize);
    const gap = since.offset < trimmedTo ? 'trimmed' : undefined;
    const from = gap === undefined ? since.offset + 1 : trimmedTo + 1;
    const publications = this.#run(from, Math.min(head.offset, from + limit - 1), bytesMax);
    const [first] = publications;
    if (first === undefined) {
      if (from <= head.offset) return undefined;
    } else if (first.at <= now - rule.historySeconds * 1_000) {
      // Whether it is past its age is for the log's clock to say.
      return undefined;
    }
    const complete = gap === undefined && (publications.at(-1)?.offset ?? since.offset) === head.offset;
    return { head, publications, complete, gap };
  }

  /** Frees about so many bytes, the oldest publications first; answers how many. */
  shrink(bytes: number): number {
    const before = this.#bytes;
    while (before - this.#bytes < bytes && this.#low <= this.#high) this.#dropUpTo(this.#low);
    if (this.#low > this.#high) {
      this.#ring = [];
      this.#bytes = 0;
    }
    return before - this.#bytes;
  }

  #clear(epoch: string): void {
    this.#epoch = epoch;
    this.#ring = [];
    this.#low = 1;
    this.#high = 0;
    this.#bytes = 0;
    this.#trimmedTo = 0;
  }

  #at(offset: number): Publication | undefined {
    return offset < this.#low || offset > this.#high ? undefined : this.#ring[offset & (this.#ring.length - 1)];
  }

  /** Those that follow each other without a hole. */
  #run(from: number, to: number, bytesMax: number): Publication[] {
    const run: Publication[] = [];
    let bytes = 0;
    for (let offset = from; offset <= to; offset++) {
      const publication = this.#at(offset);
      if (publication === undefined) break;
      bytes += publication.data.length;
      if (run.length > 0 && bytes > bytesMax) break;
      run.push(publication);
    }
    return run;
  }

  #dropUpTo(offset: number): void {
    const last = Math.min(offset, this.#high);
    for (; this.#low <= last; this.#low++) {
      const slot = this.#low & (this.#ring.length - 1);
      const publication = this.#ring[slot];
      if (publication === undefined) continue;
      this.#bytes -= publication.bytes;
      this.#ring[slot] = undefined;
    }
  }

  #grow(low: number, high: number): void {
    let length = Math.max(ringStart, this.#ring.length);
    while (length <= high - low) length *= 2;
    const ring = new Array<Publication | undefined>(length).fill(undefined);
    for (let offset = this.#low; offset <= this.#high; offset++) ring[offset & (length - 1)] = this.#at(offset);
    this.#bytes += (length - this.#ring.length) * slotBytes;
    this.#ring = ring;
  }
}
