// An envelope that travelled by one bus alone was dropped when a later one, which travelled by two, came before it.

import { expect, test } from 'bun:test';
import { HeardNumbers } from '../../../src/sync/postgres/heard-numbers.ts';

test('what comes by two ways is new once, and what was overtaken is new all the same', () => {
  const heard = new HeardNumbers();
  const take = (numbers: readonly number[]): number[] => numbers.filter((number) => heard.isNew('a', number));
  expect(take([1, 2, 2, 1, 3])).toEqual([1, 2, 3]);
  // 4 and 5 are still on the slower way.
  expect(take([6, 7, 4, 6, 4, 5, 7, 5, 8])).toEqual([6, 7, 4, 5, 8]);
  expect([heard.isNew('b', 3), heard.isNew('b', 1), heard.isNew('b', 1), heard.isNew('b', 3)]).toEqual([
    ...[true, true, false, false],
  ]);
});

test('what never comes is forgotten, and so are senders', () => {
  const heard = new HeardNumbers();
  for (let number = 2; number <= 100_000; number += 2) heard.isNew('a', number);
  expect([heard.isNew('a', 99_999), heard.isNew('a', 99_001), heard.isNew('a', 98_999)]).toEqual([true, true, false]);
  expect(heard.isNew('a', 1e15)).toBe(true);
  expect([heard.isNew('a', 100_001), heard.isNew('a', 1e15 - 1)]).toEqual([false, true]);
  for (let sender = 0; sender < 1_001; sender++) heard.isNew(`sender ${sender}`, 5);
  expect([heard.isNew('sender 1000', 5), heard.isNew('sender 0', 5)]).toEqual([false, true]);
});
