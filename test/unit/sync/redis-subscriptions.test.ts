// Which topics a node hears: subscribed in batches, left late, and never left twice or on a guess.

import { afterEach, beforeEach, expect, jest, test } from 'bun:test';
import type { RedisListeners } from '../../../src/sync/redis/listeners.ts';
import { RedisSubscriptions } from '../../../src/sync/redis/subscriptions.ts';

let up = true;
let subscribed: string[][] = [];
let left: string[] = [];
let fails = false;

function subscriptions(): RedisSubscriptions {
  const listeners: Pick<RedisListeners, 'up' | 'subscribe' | 'unsubscribe'> = {
    get up() {
      return up;
    },
    subscribe(names: readonly string[]) {
      subscribed.push([...names]);
      return fails ? Promise.reject(new Error('away')) : Promise.resolve();
    },
    unsubscribe(name: string) {
      left.push(name);
    },
  };
  return new RedisSubscriptions(listeners as RedisListeners);
}

beforeEach(() => {
  jest.useFakeTimers();
  [up, subscribed, left, fails] = [true, [], [], false];
});
afterEach(() => jest.useRealTimers());

test('those of one moment go together, 500 at most', async () => {
  const topics = subscriptions();
  await Promise.all(Array.from({ length: 1_100 }, (_, index) => topics.add(`t${index}`)));
  expect(subscribed.map(({ length }) => length)).toEqual([500, 500, 100]);
  expect(topics.names.length).toBe(1_100);
});

test('a topic is left 3 s after its last subscriber, once, however often that is said', async () => {
  const topics = subscriptions();
  await topics.add('a');
  topics.remove('a');
  jest.advanceTimersByTime(2_000);
  topics.remove('a');
  jest.advanceTimersByTime(900);
  expect(left).toEqual([]);
  jest.advanceTimersByTime(100);
  expect(left).toEqual(['a']);
  jest.advanceTimersByTime(10_000);
  expect(left).toEqual(['a']);
  expect(topics.names).toEqual([]);
});

test('a topic that nobody wanted is not left', () => {
  const topics = subscriptions();
  topics.remove('never');
  jest.advanceTimersByTime(10_000);
  expect(left).toEqual([]);
});

test('who comes back in time costs no command, unless the connections are being renewed', async () => {
  const topics = subscriptions();
  await topics.add('a');
  topics.remove('a');
  expect(topics.add('a')).toBeUndefined();
  jest.advanceTimersByTime(10_000);
  expect(left).toEqual([]);
  expect(subscribed).toEqual([['a']]);
  topics.remove('a');
  up = false;
  await topics.add('a');
  expect(subscribed).toEqual([['a'], ['a']]);
  expect(topics.names).toEqual(['a']);
});

test('who cannot be subscribed is told, and closing leaves nothing to come', async () => {
  const topics = subscriptions();
  fails = true;
  await expect(topics.add('a')).rejects.toThrow('away');
  topics.remove('a');
  topics.close();
  jest.advanceTimersByTime(10_000);
  expect(left).toEqual([]);
  expect(topics.names).toEqual([]);
});
