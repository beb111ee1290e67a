// What may be spent in a window: exactly the limit on one node, never more on several, and true words about when more.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { Allowance, type Slice } from '../../../src/limits/allowance.ts';
import { HandClock, idle } from '../../support/hub.ts';

const windowMs = 60_000;

/** What all nodes share, exact to the millisecond: windows that begin with the first that is spent. */
class Store {
  readonly #clock: HandClock;
  readonly #limit: number;
  readonly #windows = new Map<string, { spent: number; endsAt: number }>();
  asked = 0;
  delayMs = 0;

  constructor(clock: HandClock, limit: number) {
    this.#clock = clock;
    this.#limit = limit;
  }

  readonly fetch = async (key: string, points: number): Promise<Slice> => {
    this.asked++;
    if (this.delayMs > 0) await this.#clock.sleep(this.delayMs);
    const now = this.#clock.monotonic();
    const open = this.#windows.get(key);
    const window = open !== undefined && now < open.endsAt ? open : { spent: 0, endsAt: now + windowMs };
    this.#windows.set(key, window);
    const granted = Math.min(points, Math.max(0, this.#limit - window.spent));
    window.spent += points;
    if (this.delayMs > 0) await this.#clock.sleep(this.delayMs);
    return { granted, milliseconds: window.endsAt - now };
  };
}

function here(limit: number): { allowance: Allowance; clock: HandClock } {
  const clock = new HandClock();
  return { allowance: new Allowance({ limit, windowMs, fetch: undefined, clock }), clock };
}

test('alone, a node answers at once: the limit passes, and no more until the window ends', () => {
  const { allowance, clock } = here(3);
  expect([1, 2, 3].map(() => allowance.spend('a'))).toEqual([undefined, undefined, undefined]);
  clock.advance(59_500);
  expect(allowance.spend('a')).toEqual({ retryAfter: 1, refused: 1 });
  expect(allowance.spend('b')).toBeUndefined();
  clock.advance(500);
  expect(allowance.spend('a')).toBeUndefined();
});

test('what is more than what is left is refused, and what fits still passes', () => {
  const { allowance, clock } = here(10);
  expect(allowance.spend('a', 8)).toBeUndefined();
  expect(allowance.spend('a', 3)).toMatchObject({ retryAfter: 60 });
  expect(allowance.spend('a', 2)).toBeUndefined();
  expect(allowance.exhausted('a')).toMatchObject({ retryAfter: 60 });
  clock.advance(windowMs);
  expect(allowance.exhausted('a')).toBeUndefined();
  expect(allowance.spend('a', 10)).toBeUndefined();
  expect(allowance.spend('a')).toMatchObject({ refused: 1 });
});

test('as many are taken as are left, over slices and windows, and what was refused is counted', async () => {
  const { allowance, clock } = here(10);
  expect(allowance.take('a', 4)).toEqual({ count: 4, exhausted: undefined });
  expect(allowance.take('a', 8)).toEqual({ count: 6, exhausted: { retryAfter: 60, refused: 2 } });
  expect(allowance.take('a', 3)).toEqual({ count: 0, exhausted: { retryAfter: 60, refused: 5 } });
  clock.advance(windowMs);
  expect(allowance.take('a', 25)).toEqual({ count: 10, exhausted: { retryAfter: 60, refused: 15 } });

  const store = new Store(clock, 100);
  const shared = new Allowance({ limit: 100, windowMs, fetch: store.fetch, clock });
  expect(await shared.take('b', 35)).toEqual({ count: 35, exhausted: undefined });
  expect(await shared.take('b', 90)).toEqual({ count: 65, exhausted: { retryAfter: 60, refused: 25 } });
});

// Ten thousand users who came back at once asked the store ten thousand times before anybody was let in.
test('what is free is given out without asking, and counted by the first question', async () => {
  const clock = new HandClock();
  const store = new Store(clock, 100);
  const allowance = new Allowance({ limit: 100, windowMs, fetch: store.fetch, free: 5, clock });
  expect(allowance.take('a', 5)).toEqual({ count: 5, exhausted: undefined });
  expect(store.asked).toBe(0);
  expect(await allowance.take('a', 200)).toMatchObject({ count: 95 });
  clock.advance(windowMs);
  expect(allowance.take('a', 3)).toEqual({ count: 3, exhausted: undefined });
  const { asked } = store;
  clock.advance(windowMs);
  expect(allowance.spend('a')).toBeUndefined();
  expect(store.asked).toBe(asked);
});

test('how often it was refused is counted within a window', () => {
  const { allowance, clock } = here(1);
  void allowance.spend('a');
  for (let refused = 1; refused <= 20; refused++) expect(allowance.spend('a')).toMatchObject({ refused });
  clock.advance(windowMs);
  void allowance.spend('a');
  expect(allowance.spend('a')).toMatchObject({ refused: 1 });
});

test('nothing is left when windows are over, and nothing of what is forgotten', () => {
  const { allowance, clock } = here(2);
  for (let user = 0; user < 1_000; user++) for (let sent = 0; sent < 3; sent++) void allowance.spend(`u${user}`);
  allowance.forget('u1');
  allowance.sweep();
  expect(allowance.size).toBe(999);
  clock.advance(windowMs);
  allowance.sweep();
  expect(allowance.size).toBe(0);
});

test('over nodes a slice is asked for once, however many wait for it, and is spent without asking', async () => {
  const clock = new HandClock();
  const store = new Store(clock, 100);
  const allowance = new Allowance({ limit: 100, windowMs, fetch: store.fetch, clock });
  const first = Array.from({ length: 10 }, () => allowance.spend('a'));
  expect(first.every((answer) => answer instanceof Promise)).toBe(true);
  expect(await Promise.all(first)).toEqual(Array.from({ length: 10 }, () => undefined));
  expect(store.asked).toBe(1);
  expect(await allowance.spend('a')).toBeUndefined();
  for (let spent = 12; spent <= 20; spent++) expect(allowance.spend('a')).toBeUndefined();
  expect(store.asked).toBe(2);
  const rest = await Promise.all(Array.from({ length: 200 }, () => allowance.spend('a')));
  expect(rest.filter((answer) => answer === undefined)).toHaveLength(80);
  // Who was refused is remembered here.
  const { asked } = store;
  expect(allowance.spend('a')).toMatchObject({ retryAfter: 60 });
  expect(store.asked).toBe(asked);
});

test('a limit that slices do not divide is given out to the last', async () => {
  for (const limit of [1, 7, 19, 25, 99]) {
    const clock = new HandClock();
    const allowance = new Allowance({ limit, windowMs, fetch: new Store(clock, limit).fetch, clock });
    let passed = 0;
    while ((await allowance.spend('a')) === undefined) passed++;
    expect(passed).toBe(limit);
  }
});

test('a slow store: nothing of a former window is spent in the next, and who waits as told is let through', async () => {
  const clock = new HandClock();
  const store = new Store(clock, 10);
  store.delayMs = 100;
  const allowance = new Allowance({ limit: 10, windowMs, fetch: store.fetch, clock });
  const spend = async (): Promise<{ retryAfter: number } | undefined> => {
    const answer = allowance.spend('a');
    let done = false;
    const settled = Promise.resolve(answer).then((value) => {
      done = true;
      return value;
    });
    await idle();
    while (!done) {
      clock.advance(50);
      await idle();
    }
    return settled;
  };
  for (let round = 0; round < 40; round++) {
    // A question that takes its time would let the rest of a window pass that was told too short.
    store.delayMs = 0;
    expect(await spend()).toBeUndefined();
    store.delayMs = 100;
    for (let spent = 1; spent < 10; spent++) expect(await spend()).toBeUndefined();
    // Whole seconds are told, so the moment within a second matters.
    clock.advance(round * 25);
    const refusal = await spend();
    expect(refusal).toBeDefined();
    clock.advance(refusal!.retryAfter * 1_000);
  }
});

// What a node had left of a window was added to the slice of the next one, for which it had asked before the first ended.
test('a window that ends while its node asks for more takes what was left of it along', async () => {
  const clock = new HandClock();
  const store = new Store(clock, 100);
  const allowance = new Allowance({ limit: 100, windowMs, fetch: store.fetch, clock });
  expect(await allowance.spend('a')).toBeUndefined();
  clock.advance(windowMs - 50);
  store.delayMs = 100;
  const asked = Promise.resolve(allowance.spend('a', 12));
  for (let step = 0; step < 8; step++) {
    clock.advance(50);
    await idle();
  }
  expect(await asked).toBeUndefined();
  store.delayMs = 0;
  let passed = 12;
  while ((await allowance.spend('a')) === undefined) passed++;
  expect(passed).toBe(100);
});

test('what is left of a slice is kept beside the next slice of the same window', async () => {
  const clock = new HandClock();
  const store = new Store(clock, 100);
  const allowance = new Allowance({ limit: 100, windowMs, fetch: store.fetch, clock });
  let passed = 0;
  for (const count of [1, 12, 7, 19, 3]) {
    expect(await allowance.spend('a', count)).toBeUndefined();
    passed += count;
    clock.advance(5_000);
  }
  while ((await allowance.spend('a')) === undefined) passed++;
  expect(passed).toBe(100);
});

test('whatever several nodes do, all together never pass the limit within a window', async () => {
  const action = fc.record({ node: fc.nat(2), count: fc.integer({ min: 1, max: 4 }), pauseMs: fc.nat(9_000) });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 30 }), fc.array(action, { maxLength: 120 }), async (limit, actions) => {
      const clock = new HandClock();
      const store = new Store(clock, limit);
      const nodes = [0, 1, 2].map(() => new Allowance({ limit, windowMs, fetch: store.fetch, clock }));
      const passed: { at: number; count: number }[] = [];
      let begun = Number.NEGATIVE_INFINITY;
      let sum = 0;
      for (const { node, count, pauseMs } of actions) {
        const points = Math.min(count, limit);
        if ((await nodes[node]!.spend('a', points)) === undefined)
          passed.push({ at: clock.monotonic(), count: points });
        clock.advance(pauseMs);
      }
      for (const { at, count } of passed) {
        if (at >= begun + windowMs) {
          begun = at;
          sum = 0;
        }
        sum += count;
        expect(sum).toBeLessThanOrEqual(limit);
      }
    }),
    { numRuns: 300 },
  );
});

test('what was given out before anybody was asked is counted once', async () => {
  const clock = new HandClock();
  const asked: number[] = [];
  const fetch = async (_key: string, points: number): Promise<Slice> => {
    asked.push(points);
    return { granted: points, milliseconds: windowMs };
  };
  const allowance = new Allowance({ limit: 100, windowMs, fetch, free: 5, clock });
  for (let spent = 0; spent < 25; spent++) expect(await allowance.spend('ann')).toBeUndefined();
  expect(asked).toEqual([15, 10]);
});

test('a key whose slice is on its way is not forgotten', async () => {
  const clock = new HandClock();
  const slices: ((slice: Slice) => void)[] = [];
  const fetch = (): Promise<Slice> => new Promise((resolve) => slices.push(resolve));
  const allowance = new Allowance({ limit: 100, windowMs, fetch, clock });
  const spending = allowance.spend('ann');
  allowance.sweep();
  slices[0]!({ granted: 10, milliseconds: windowMs });
  await idle();
  expect(slices).toHaveLength(1);
  expect(await spending).toBeUndefined();
});
