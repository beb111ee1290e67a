// Turns: never more at once than the limits say, users one after another, and nothing left when all have gone.

import { describe, expect, jest, test } from 'bun:test';
import { Turns } from '../../../src/core/turns.ts';

/** Takes turns, and says in which order they came. */
function taker(turns: Turns) {
  const served: string[] = [];
  return {
    served,
    take(user: string): void {
      const turn = turns.take(user);
      if (turn === undefined) served.push(user);
      else void turn.then(() => served.push(user));
    },
    async give(user: string): Promise<void> {
      turns.give(user);
      await Promise.resolve();
    },
  };
}

test('one user has his share, and the next free place is another’s', async () => {
  const { served, take, give } = taker(new Turns({ total: 3, each: 2 }));
  for (const user of ['a', 'a', 'a', 'a', 'b', 'b', 'c']) take(user);
  expect(served).toEqual(['a', 'a', 'b']);
  await give('b');
  expect(served.slice(3)).toEqual(['b']);
  await give('a');
  // b has been served after a.
  expect(served.slice(4)).toEqual(['a']);
  await give('b');
  expect(served.slice(5)).toEqual(['c']);
  await give('a');
  expect(served.slice(6)).toEqual(['a']);
});

test('each user’s turns are in order, and given back they are free again', async () => {
  const turns = new Turns({ total: 10, each: 1 });
  const order: number[] = [];
  const work = Array.from({ length: 50 }, async (_, index) => {
    await turns.take('a');
    order.push(index);
    await Promise.resolve();
    turns.give('a');
  });
  await Promise.all(work);
  expect(order).toEqual(Array.from({ length: 50 }, (_, index) => index));
  expect(turns.take('a')).toBeUndefined();
});

test('a crowd is served whole, within the limits at every moment', async () => {
  const turns = new Turns({ total: 7, each: 3 });
  const running = new Map<string, number>();
  let most = 0;
  const all = Array.from({ length: 2_000 }, async (_, index) => {
    const user = `u${index % 11}`;
    await turns.take(user);
    running.set(user, (running.get(user) ?? 0) + 1);
    const total = [...running.values()].reduce((sum, count) => sum + count, 0);
    most = Math.max(most, total);
    expect(running.get(user)).toBeLessThanOrEqual(3);
    await Promise.resolve();
    running.set(user, (running.get(user) ?? 0) - 1);
    turns.give(user);
  });
  await Promise.all(all);
  expect(most).toBeLessThanOrEqual(7);
});

// Whoever was refused, waited in vain or was served left an entry behind, for ever: 200,000 made-up users cost 73 MB.
describe('nothing is kept of users who are neither served nor waiting', () => {
  const crowd = Array.from({ length: 20_000 }, (_, index) => `made-up-${index}`);

  test('who were refused', () => {
    const turns = new Turns({ total: 1, each: 1 });
    expect(turns.take('first')).toBeUndefined();
    const waiting = Array.from({ length: 10_000 }, () => turns.take('patient'));
    expect(turns.size).toBe(2);
    for (const user of crowd) expect(() => turns.take(user)).toThrow('too many');
    expect(turns.size).toBe(2);
    for (const turn of waiting) turn?.catch(() => undefined);
  });

  test('who waited in vain', async () => {
    const turns = new Turns({ total: 1, each: 1 }, 20);
    expect(turns.take('first')).toBeUndefined();
    const waits = await Promise.allSettled(crowd.slice(0, 10_000).map((user) => turns.take(user)));
    expect(new Set(waits.map(({ status }) => status))).toEqual(new Set(['rejected']));
    expect(turns.size).toBe(1);
    turns.give('first');
    expect(turns.size).toBe(0);
  });

  test('who waited in vain beside a turn of their own that goes on', async () => {
    const turns = new Turns({ total: 2, each: 1 }, 20);
    expect(turns.take('slow')).toBeUndefined();
    await expect(turns.take('slow')).rejects.toThrow('no turn within 20 ms');
    expect(turns.size).toBe(1);
    // The place that became free is not given to one who left.
    turns.give('slow');
    expect(turns.size).toBe(0);
    expect(turns.take('slow')).toBeUndefined();
    expect(turns.take('next')).toBeUndefined();
  });

  test('who were served', async () => {
    const turns = new Turns({ total: 3, each: 2 });
    const work = crowd.slice(0, 5_000).map(async (_, index) => {
      const user = `u${index % 40}`;
      await turns.take(user);
      await Promise.resolve();
      turns.give(user);
    });
    expect(turns.size).toBe(40);
    await Promise.all(work);
    expect(turns.size).toBe(0);
  });
});

test('who waited in vain makes room for others to wait', async () => {
  const turns = new Turns({ total: 1, each: 1 }, 20);
  expect(turns.take('first')).toBeUndefined();
  const crowd = Array.from({ length: 10_000 }, () => turns.take('crowd'));
  expect(() => turns.take('next')).toThrow('too many');
  await Promise.allSettled(crowd);
  const turn = turns.take('next');
  turns.give('first');
  await turn;
  expect(() => turns.give('crowd')).toThrow('nobody took');
});

test('more than may wait are refused', () => {
  const turns = new Turns({ total: 1, each: 1 });
  expect(turns.take('a')).toBeUndefined();
  const waiting = Array.from({ length: 10_000 }, () => turns.take('b'));
  expect(() => turns.take('c')).toThrow('too many');
  for (const turn of waiting) turn?.catch(() => undefined);
});

test('those without a user have a share of their own, each and together, and leave the rest to users', () => {
  const turns = new Turns({ total: 10, each: 4, strangers: { total: 5, each: 2 } });
  const begins = (account: string, isStranger: boolean) => {
    const turn = turns.take(account, isStranger);
    turn?.catch(() => undefined);
    return turn === undefined;
  };
  expect([1, 2, 3].map(() => begins('a', true))).toEqual([true, true, false]);
  expect([1, 2].map(() => begins('b', true))).toEqual([true, true]);
  expect([1, 2].map(() => begins('c', true))).toEqual([true, false]);
  expect([1, 2, 3, 4, 5].map(() => begins('ann', false))).toEqual([true, true, true, true, false]);
  expect([1, 2].map(() => begins('bob', false))).toEqual([true, false]);
});

// What strangers gave back did not come back to strangers: once five had been served, nobody without a user was any more.
test('what those without a user give back is theirs again', () => {
  const turns = new Turns({ total: 10, each: 4, strangers: { total: 3, each: 2 } });
  for (let round = 0; round < 5; round++) {
    for (const account of ['a', 'a', 'b']) expect(turns.take(account, true)).toBeUndefined();
    const late = turns.take('c', true);
    late?.catch(() => undefined);
    expect(late).toBeInstanceOf(Promise);
    // It begins with the first that is given back.
    for (const account of ['a', 'a', 'b', 'c']) turns.give(account);
    expect(turns.size).toBe(0);
  }
});

test('who has had a turn is behind those who wait, however many it waits for', async () => {
  const { served, take, give } = taker(new Turns({ total: 1, each: 1 }));
  for (const user of ['a', 'a', 'a', 'a', 'b', 'b', 'c']) take(user);
  for (let turn = 1; turn <= 6; turn++) await give(served.at(-1)!);
  expect(served).toEqual(['a', 'a', 'b', 'c', 'a', 'b', 'a']);
});

test('where nothing is said of those without a user they are as others', () => {
  const turns = new Turns({ total: 3, each: 2 });
  expect([1, 2, 3].map(() => turns.take('a', true)?.catch(() => undefined))).toEqual([
    undefined,
    undefined,
    expect.any(Promise),
  ]);
});

// The end of its wait came all the same, and was counted: one more than may wait did, with each that had been served.
test('who was served in time does not leave the queue a second time', async () => {
  jest.useFakeTimers();
  try {
    const turns = new Turns({ total: 1, each: 1 }, 20);
    for (let served = 0; served < 5; served++) {
      expect(turns.take('a')).toBeUndefined();
      const waiting = turns.take('a');
      turns.give('a');
      await waiting;
      jest.advanceTimersByTime(30);
      turns.give('a');
    }
    expect(turns.take('a')).toBeUndefined();
    for (let count = 0; count < 10_000; count++) turns.take('b')?.catch(() => undefined);
    expect(() => turns.take('c')).toThrow('too many');
  } finally {
    jest.useRealTimers();
  }
});
