// Which channels are looked at: those that were given much, and all once all of them together were. Nothing is left of
// those that are gone.

import { expect, test } from 'bun:test';
import { Unsettled } from '../../../src/core/unsettled.ts';

test('a channel that was given much is looked at by itself, and counted anew', () => {
  const unsettled = new Unsettled<string>({ channelBytes: 100, totalBytes: 1_000 });
  unsettled.add('a', 60);
  unsettled.add('b', 100);
  expect(unsettled.take()).toEqual([]);
  unsettled.add('a', 60);
  expect(unsettled.take()).toEqual(['a']);
  expect(unsettled.take()).toEqual([]);
  unsettled.add('a', 60);
  expect(unsettled.take()).toEqual([]);
});

test('all are looked at once all of them were given much', () => {
  const unsettled = new Unsettled<number>({ channelBytes: 100, totalBytes: 1_000 });
  for (let channel = 0; channel < 20; channel++) unsettled.add(channel, 50);
  expect(unsettled.take()).toEqual([]);
  unsettled.add(3, 1);
  expect(unsettled.take()).toHaveLength(20);
  expect(unsettled.take()).toEqual([]);
  expect(unsettled.size).toBe(0);
});

test('nothing is kept of a channel that is gone', () => {
  const unsettled = new Unsettled<number>({ channelBytes: 100, totalBytes: 1_000 });
  for (let channel = 0; channel < 1_000; channel++) {
    unsettled.add(channel, 150);
    unsettled.delete(channel);
  }
  expect([unsettled.size, unsettled.take()]).toEqual([0, []]);
  unsettled.add(1, 1);
  expect(unsettled.take()).toEqual([]);
});
