// What is kept of one channel, beside a plain list of the same: whatever comes in whatever order, a page is what the log
// would answer, it is there whenever all of it was seen, and the bytes are those of what is kept.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { KeptChannel, type KeptQuery } from '../../../src/core/kept-channel.ts';
import { Publication } from '../../../src/core/publication.ts';
import type { HistoryPage } from '../../../src/core/sync-adapter.ts';
import { Rules } from '../../../src/rules/rules.ts';

const ageSeconds = 60;
const now = 1_000_000;
const slotBytes = 8;
const slotsMin = 8;
const offsetMax = 60;

type Step =
  | {
      readonly do: 'add';
      readonly offset: number;
      readonly bytes: number;
      readonly epoch: string;
      readonly isOld: boolean;
    }
  | { readonly do: 'trimmed' | 'begin'; readonly offset: number; readonly epoch: string }
  | { readonly do: 'shrink'; readonly bytes: number }
  | {
      readonly do: 'page';
      readonly since: number;
      readonly head: number;
      readonly limit: number;
      readonly bytesMax: number;
      readonly sinceEpoch: string;
      readonly epoch: string;
    };

const offset = fc.integer({ min: 1, max: offsetMax });
/** Mostly the same. */
const epoch = fc.constantFrom('e', 'e', 'e', 'e', 'e', 'e', 'f');
const bytes = fc.integer({ min: 1, max: 20 });
const steps = fc.array(
  fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({ do: fc.constant('add' as const), offset, bytes, epoch, isOld: fc.boolean() }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('trimmed' as const, 'begin' as const), offset, epoch }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('shrink' as const), bytes: fc.nat(1_000) }) },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('page' as const),
        since: fc.integer({ min: 0, max: 62 }),
        head: offset,
        limit: fc.integer({ min: 1, max: 8 }),
        bytesMax: fc.integer({ min: 1, max: 60 }),
        sinceEpoch: epoch,
        epoch,
      }),
    },
  ),
  { minLength: 5, maxLength: 120, size: 'max' },
);

class Model {
  readonly kept = new KeptChannel();
  readonly #rule;
  readonly #size: number;
  readonly #seen = new Map<number, Publication>();
  #epoch = '';
  #trimmedTo = 0;
  /** Of what is kept, or of what was when the last was given up. */
  #high = 0;

  constructor(size: number) {
    this.#size = size;
    this.#rule = new Rules({ rules: [{ channels: '*', history: { size, seconds: ageSeconds } }] }).for('a');
  }

  take(step: Step): void {
    switch (step.do) {
      case 'add':
        this.#add(step);
        break;
      case 'trimmed':
        this.kept.trimmed(step.epoch, step.offset);
        if (step.epoch === this.#epoch) this.#trimmedTo = Math.max(this.#trimmedTo, step.offset);
        break;
      case 'begin':
        this.kept.begin(step);
        if (step.epoch === this.#epoch && step.offset >= this.#high) break;
        this.#seen.clear();
        this.#epoch = step.epoch;
        this.#trimmedTo = 0;
        this.#high = 0;
        break;
      case 'shrink':
        this.#shrink(step.bytes);
        break;
      case 'page':
        this.#page(step);
    }
    this.#count();
  }

  #add({ offset, bytes, epoch, isOld }: Extract<Step, { do: 'add' }>): void {
    const at = isOld ? now - ageSeconds * 1_000 : now - ageSeconds * 1_000 + 1;
    const publication = new Publication({ channel: 'a', epoch, offset, data: 'x'.repeat(bytes), at });
    this.kept.add(publication, this.#size);
    if (epoch !== this.#epoch || offset <= this.#high - this.#size || this.#seen.has(offset)) return;
    this.#high = this.#seen.size === 0 ? offset : Math.max(this.#high, offset);
    this.#seen.set(offset, publication);
    for (const each of this.#seen.keys()) if (each <= this.#high - this.#size) this.#seen.delete(each);
  }

  #shrink(wanted: number): void {
    const before = this.kept.bytes;
    const freed = this.kept.shrink(wanted);
    expect(freed).toBe(before - this.kept.bytes);
    let given = 0;
    for (const [offset, publication] of [...this.#seen].toSorted(([one], [other]) => one - other)) {
      if (given >= wanted) return;
      given += publication.bytes;
      this.#seen.delete(offset);
    }
  }

  #page({ since, head, limit, bytesMax, sinceEpoch, epoch }: Extract<Step, { do: 'page' }>): void {
    const position = { epoch, offset: head };
    const rule = this.#rule;
    const query = { since: { epoch: sinceEpoch, offset: since }, limit, bytesMax, head: position, rule, now };
    expect(this.kept.page(query)).toEqual(this.#expected(query));
  }

  #expected({ since, limit, bytesMax, head }: Omit<KeptQuery, 'rule' | 'now'>): HistoryPage | undefined {
    if (since.epoch !== this.#epoch || head.epoch !== this.#epoch || since.offset > head.offset) return undefined;
    const oldest = Math.max(this.#trimmedTo, head.offset - this.#size) + 1;
    const gap = since.offset + 1 < oldest ? 'trimmed' : undefined;
    const publications: Publication[] = [];
    let bytes = 0;
    for (let offset = Math.max(oldest, since.offset + 1); offset <= head.offset; offset++) {
      const publication = this.#seen.get(offset);
      bytes += publication?.data.length ?? 0;
      if (publication === undefined || publications.length === limit || (publications[0] && bytes > bytesMax)) break;
      publications.push(publication);
    }
    const [first] = publications;
    // Nothing of what is lacked was seen, or the log's clock has to say whether it is past its age.
    if (first === undefined && Math.max(oldest, since.offset + 1) <= head.offset) return undefined;
    if (first !== undefined && first.at <= now - ageSeconds * 1_000) return undefined;
    const complete = gap === undefined && (publications.at(-1)?.offset ?? since.offset) === head.offset;
    return { head, publications, complete, gap };
  }

  #count(): void {
    const seen = [...this.#seen.values()];
    const slots = (this.kept.bytes - seen.reduce((sum, each) => sum + each.bytes, 0)) / slotBytes;
    const offsets = seen.map((publication) => publication.offset);
    const span = seen.length === 0 ? 0 : Math.max(...offsets) - Math.min(...offsets) + 1;
    expect(slots).toBeGreaterThanOrEqual(span);
    // A power of two, of the rule's size and not of the hole's.
    expect(slots).toBeLessThanOrEqual(Math.max(slotsMin, 2 * Math.min(this.#size, offsetMax)));
  }
}

test('a page is what the log would answer, whenever all of it was seen', () => {
  const property = fc.property(fc.constantFrom(3, 20, 1_000), steps, (size, taken) => {
    const model = new Model(size);
    model.take({ do: 'begin', offset: 1, epoch: 'e' });
    for (const step of taken) model.take(step);
  });
  fc.assert(property, { numRuns: 700 });
}, 60_000);

// What lay between was given slots: a node that had missed five million took 67 MB and 60 ms for them, and pushed out what
// it kept of all other channels.
test('a hole of millions takes no room', () => {
  for (const size of [1_000, 1e9]) {
    const kept = new KeptChannel();
    kept.begin({ epoch: 'e', offset: 1 });
    for (const offset of [1, 2, 5_000_000, 5_000_001, 50_000_000]) {
      kept.add(new Publication({ channel: 'a', epoch: 'e', offset, data: 'x', at: now }), size);
      expect(kept.bytes).toBeLessThan(1_000);
    }
    kept.add(new Publication({ channel: 'a', epoch: 'e', offset: 50_000_000 - 999, data: 'x', at: now }), size);
    expect(kept.bytes).toBeLessThan(20_000);
  }
});

test('a window is no wider than it is of use', () => {
  const kept = new KeptChannel();
  kept.begin({ epoch: 'e', offset: 1 });
  const rule = new Rules({ rules: [{ channels: '*', history: { size: 1_000_000 } }] }).for('a');
  const [count, window] = [70_000, 1 << 16];
  for (let offset = 1; offset <= count; offset++) {
    kept.add(new Publication({ channel: 'a', epoch: 'e', offset, data: 'x', at: now }), rule.historySize);
  }
  const first = (since: number) => {
    const head = { epoch: 'e', offset: count };
    return kept.page({ since: { epoch: 'e', offset: since }, limit: 1, bytesMax: 1, head, rule, now })?.publications[0];
  };
  expect(first(count - window)?.offset).toBe(count - window + 1);
  expect(first(count - window - 1)).toBeUndefined();
});
