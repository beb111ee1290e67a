// Turns: never more at once than the limits say, users one after another, and nothing left when all have gone.

import { expect, test } from 'bun:test';
import { Turns } from '../../../src/auth/turns.ts';

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

test('more than may wait are refused', () => {
  const turns = new Turns({ total: 1, each: 1 });
  expect(turns.take('a')).toBeUndefined();
  const waiting = Array.from({ length: 10_000 }, () => turns.take('b'));
  expect(() => turns.take('c')).toThrow('too many');
  for (const turn of waiting) turn?.catch(() => undefined);
});
