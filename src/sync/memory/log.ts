// The log of one channel in memory: a ring of its newest publications, limited by number and age, counted from 1.

import type { Publication } from '../../core/publication.ts';
import type { ChannelRule } from '../../rules/rules.ts';
import type { HistoryPage, HistoryQuery } from '../../core/sync-adapter.ts';
import type { Position } from '../../protocol/position.ts';

interface KeyUse {
  readonly offset: number;
  readonly at: number;
}

const ringStart = 8;

export class MemoryLog {
  readonly epoch: string;
  readonly rule: ChannelRule;
  usedAt = 0;
  /** Grows by doubling up to the rule's size, so that a quiet channel stays small. */
  #ring: (Publication | undefined)[] = new Array<Publication | undefined>(ringStart).fill(undefined);
  #head = 0;
  #size = 0;
  #keys: Map<string, KeyUse> | undefined;

  constructor(epoch: string, rule: ChannelRule) {
    this.epoch = epoch;
    this.rule = rule;
  }

  /** The offset of the newest publication, 0 before the first. */
  get head(): number {
    return this.#head;
  }

  /** Publications kept. */
  get size(): number {
    return this.#size;
  }

  /** Appends the next publication; answers by how many bytes the log grew. */
  append(publication: Publication, key: string | undefined, now: number): number {
    let bytes = publication.bytes;
    if (this.#size === this.rule.historySize) bytes -= this.#dropOldest();
    if (this.#size === this.#ring.length) this.#grow();
    this.#head = publication.offset;
    this.#ring[publication.offset % this.#ring.length] = publication;
    this.#size++;
    this.usedAt = now;
    if (key !== undefined) this.#remember(key, publication.offset, now);
    return bytes;
  }

  /** The position a key was first used at, within the kept history. */
  positionOf(key: string, now: number): Position | undefined {
    const use = this.#keys?.get(key);
    if (use === undefined) return undefined;
    const kept = use.offset > this.#head - this.rule.historySize && now - use.at <= this.rule.historySeconds * 1_000;
    return kept ? { epoch: this.epoch, offset: use.offset } : undefined;
  }

  /** Drops what is past the rule's age; answers the bytes freed. */
  expire(now: number): number {
    const oldest = now - this.rule.historySeconds * 1_000;
    let bytes = 0;
    while (this.#size > 0 && (this.#at(this.#head - this.#size + 1)?.at ?? 0) < oldest) bytes += this.#dropOldest();
    if (this.#size === 0) this.#keys = undefined;
    return bytes;
  }

  /** Drops the oldest publications until so many bytes are free, but never the newest; answers the bytes freed. */
  shrink(bytes: number): number {
    let freed = 0;
    while (freed < bytes && this.#size > 1) freed += this.#dropOldest();
    return freed;
  }

  /** Drops all publications and keeps the count; answers the bytes freed. */
  clear(): number {
    let bytes = 0;
    while (this.#size > 0) bytes += this.#dropOldest();
    this.#ring = new Array<Publication | undefined>(ringStart).fill(undefined);
    this.#keys = undefined;
    return bytes;
  }

  read({ since, limit }: HistoryQuery): HistoryPage {
    const head = { epoch: this.epoch, offset: this.#head };
    const oldest = this.#head - this.#size + 1;
    if (since === undefined) {
      const from = Math.max(oldest, this.#head - limit + 1);
      return { head, publications: this.#slice(from, this.#head), complete: from === oldest };
    }
    if (since.epoch !== this.epoch || since.offset > this.#head) {
      return { head, publications: [], complete: false, gap: 'epoch_changed' };
    }
    const from = Math.max(oldest, since.offset + 1);
    const to = Math.min(this.#head, from + limit - 1);
    const publications = this.#slice(from, to);
    if (from > since.offset + 1) return { head, publications, complete: false, gap: 'trimmed' };
    return { head, publications, complete: to === this.#head };
  }

  #at(offset: number): Publication | undefined {
    return this.#ring[offset % this.#ring.length];
  }

  #slice(from: number, to: number): Publication[] {
    const publications: Publication[] = [];
    for (let offset = from; offset <= to; offset++) {
      const publication = this.#at(offset);
      if (publication !== undefined) publications.push(publication);
    }
    return publications;
  }

  #dropOldest(): number {
    const offset = this.#head - this.#size + 1;
    const publication = this.#at(offset);
    this.#ring[offset % this.#ring.length] = undefined;
    this.#size--;
    return publication === undefined ? 0 : publication.bytes;
  }

  #grow(): void {
    const length = Math.min(this.#ring.length * 2, this.rule.historySize);
    const ring = new Array<Publication | undefined>(length).fill(undefined);
    for (let offset = this.#head - this.#size + 1; offset <= this.#head; offset++)
      ring[offset % length] = this.#at(offset);
    this.#ring = ring;
  }

  /** Keys live as long as history does; a map keeps them in order of use, so the oldest leave first. */
  #remember(key: string, offset: number, at: number): void {
    const keys = (this.#keys ??= new Map());
    keys.delete(key);
    keys.set(key, { offset, at });
    for (const [oldKey, use] of keys) {
      if (use.offset > offset - this.rule.historySize) break;
      keys.delete(oldKey);
    }
  }
}
