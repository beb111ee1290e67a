// What a crowd reads in one walk must be what each would have read for itself: messages that are gone, a walk that is cut
// off and a log that became another one must leave no reader with a hole, which it would take for the end of the history.

import { expect, jest, test } from 'bun:test';
import type { Entry } from '../../../src/sync/nats/message.ts';
import { Sweep, type Swept } from '../../../src/sync/nats/sweep.ts';
import { systemClock } from '../../../src/time/clock.ts';
import { pick, randomFrom, seed, type Random } from '../../support/random.ts';

const subjects = Array.from({ length: 100 }, (_, index) => `log.${index}`);

/** In their order in the stream, of which every tenth message is gone: the oldest of their channels, as a stream deletes. */
function stream(random: Random): Swept[] {
  const counts = new Map<string, number>();
  const all: Swept[] = [];
  for (let seq = 1; seq <= 6_000; seq++) {
    const subject = pick(subjects, random);
    const offset = (counts.get(subject) ?? 0) + 1;
    counts.set(subject, offset);
    all.push({ subject, entry: { seq, offset, at: seq, sender: {}, data: 'x'.repeat(Math.floor(random() * 50)) } });
  }
  return all.filter(({ entry }) => entry.offset > 6);
}

/** As a consumer brings them: from the number on, in their order. */
function bring(all: readonly Swept[], from: number, take: (swept: Swept) => boolean): void {
  for (const swept of all.filter(({ entry }) => entry.seq >= from)) if (!take(swept)) return;
}

interface Ask {
  readonly sweep: Sweep;
  readonly all: readonly Swept[];
  readonly subject: string;
  /** From its own message of this index on. */
  readonly from: number;
}

async function ask({ sweep, all, subject, from }: Ask): Promise<'alone' | 'together'> {
  const own = all.filter((each) => each.subject === subject).map(({ entry }) => entry);
  const begin = own[from] as Entry;
  const newest = own.at(-1) as Entry;
  const found = await sweep.piece(subject, { seq: begin.seq, newest, count: 100, bytesMax: 1_000 });
  // Whoever knows the offset alone finds the same, or what another walk has read by then; nothing where it is too old.
  const { offset, at } = begin;
  const rest = { newest, count: 100, bytesMax: 1_000 };
  const known = await sweep.from(subject, { offset, after: at - 1 }, rest);
  if (known !== undefined) expect(known).toEqual(own.slice(from, from + Math.max(1, known.length)));
  expect(await sweep.from(subject, { offset, after: at }, rest)).toBeUndefined();
  if (found === undefined) return 'alone';
  expect(found.length).toBeGreaterThan(0);
  expect(found).toEqual(own.slice(from, from + found.length));
  return 'together';
}

function crowd(sweep: Sweep, all: readonly Swept[], random: Random): Promise<('alone' | 'together')[]> {
  const readers = Array.from({ length: 300 }, () => ({
    subject: pick(subjects, random),
    from: pick([0, 1, 2], random),
  }));
  return Promise.all(readers.map((reader) => ask({ sweep, all, ...reader })));
}

test(`each of a crowd gets what it would have read for itself, from one walk (SEED=${seed})`, async () => {
  const random = randomFrom(seed);
  const all = stream(random);
  let [brought, epoch] = [0, 'one'];
  const sweep = new Sweep({
    clock: systemClock,
    epoch: () => epoch,
    walk: (from, take) => {
      bring(all, from, (swept) => {
        brought++;
        return take(swept);
      });
      return Promise.resolve();
    },
  });
  const first = await crowd(sweep, all, random);
  expect(first.filter((how) => how === 'together').length).toBeGreaterThan(100);
  expect(brought).toBeLessThan(all.length * 1.5);
  expect(await ask({ sweep, all, subject: 'log.7', from: 5 })).toBe('together');
  const [own, newest] = [
    all.filter(({ subject }) => subject === 'log.7')[5],
    all.findLast(({ subject }) => subject === 'log.7'),
  ];
  const goal = { offset: own!.entry.offset, after: 0 };
  const rest = { newest: newest!.entry, count: 3, bytesMax: 1_000 };
  expect((await sweep.from('log.7', goal, rest))?.map(({ offset }) => offset - goal.offset)).toEqual([0, 1, 2]);
  epoch = 'two';
  expect(await sweep.from('log.7', goal, rest)).toBeUndefined();
  expect(await ask({ sweep, all, subject: 'log.7', from: 5 })).toBe('alone');
  sweep.close();
});

test(`a walk that is cut off leaves nobody with a hole (SEED=${seed})`, async () => {
  const random = randomFrom(seed);
  const all = stream(random);
  for (const end of [0, 1, 2_000, 4_000]) {
    const sweep = new Sweep({
      clock: systemClock,
      epoch: () => 'one',
      walk: async (from, take) => {
        await Bun.sleep(0);
        let brought = 0;
        bring(all, from, (swept) => {
          if (brought++ === end) throw new Error('NATS is gone');
          return take(swept);
        });
      },
    });
    await crowd(sweep, all, random);
    await crowd(sweep, all, random);
    sweep.close();
  }
});

test('a few readers each read for themselves, and so do those who skip few messages', async () => {
  const all = stream(randomFrom(seed));
  const sweep = new Sweep({
    clock: systemClock,
    epoch: () => 'one',
    walk: () => Promise.reject(new Error('nothing should be read')),
  });
  for (let count = 0; count < 15; count++) expect(await ask({ sweep, all, subject: 'log.3', from: 0 })).toBe('alone');
  const dense = all.map(({ entry }, index) => ({
    subject: 'log.3',
    entry: { ...entry, seq: index + 1, offset: index },
  }));
  for (let count = 0; count < 200; count++) {
    const newest = dense[99]!.entry;
    expect(await sweep.piece('log.3', { seq: 1, newest, count: 100, bytesMax: 1_000 })).toBeUndefined();
  }
  sweep.close();
});

/** A sweep that has read these, as sixteen who lack much have asked for them. */
async function sweptAll(all: readonly Swept[]): Promise<Sweep> {
  const sweep = new Sweep({
    clock: systemClock,
    epoch: () => 'one',
    walk: (from, take) => Promise.resolve(bring(all, from, take)),
  });
  const { entry: newest } = all.at(-1)!;
  await Promise.all(
    Array.from({ length: 16 }, () => sweep.piece('nobody', { seq: 1, newest, count: 1, bytesMax: 1_000 })),
  );
  return sweep;
}

const entry = (seq: number, offset: number): Entry => ({ seq, offset, at: seq, sender: {}, data: '1' });

test('what was read for all ends where a message is gone, and with the newest that the reader knows', async () => {
  const own = [entry(10, 1), entry(20, 2), entry(40, 4), entry(90, 5)];
  const all = [...own, entry(100, 1)].map((each) => ({ subject: each.seq === 100 ? 'b' : 'a', entry: each }));
  const sweep = await sweptAll(all);
  const found = async (seq: number, newest: Entry): Promise<number[] | undefined> => {
    const entries = await sweep.piece('a', { seq, newest, count: 10, bytesMax: 1_000 });
    return entries?.map(({ offset }) => offset);
  };
  const [first, second, , last] = own;
  expect(await found(1, last!)).toEqual([1, 2]);
  expect(await found(30, last!)).toEqual([4, 5]);
  expect(await found(1, first!)).toEqual([1]);
  expect(await found(20, second!)).toEqual([2]);
  sweep.close();
});

test('what was read for all is forgotten after some seconds', async () => {
  jest.useFakeTimers();
  try {
    const sweep = await sweptAll([{ subject: 'a', entry: entry(100, 1) }]);
    jest.advanceTimersByTime(4_000);
    expect(sweep.isCurrent).toBe(true);
    jest.advanceTimersByTime(1_001);
    expect(sweep.isCurrent).toBe(false);
  } finally {
    jest.useRealTimers();
  }
});
