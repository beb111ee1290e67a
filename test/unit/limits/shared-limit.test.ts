// A limit whose store is away: this node counts by itself, at once, whatever the wall clock says meanwhile; and nothing
// of that is left when the store is back.

import { afterEach, expect, setSystemTime, test } from 'bun:test';
import { Redis } from 'ioredis';
import { systemClock } from '../../../src/time/clock.ts';
import { Allowance } from '../../../src/limits/allowance.ts';
import { LocalCount } from '../../../src/limits/local-count.ts';
import { SharedLimit } from '../../../src/limits/shared-limit.ts';
import type { LimitStore } from '../../../src/limits/store.ts';
import { redisLimits } from '../../../src/sync/redis/limits.ts';
import { freePort } from '../../support/postgres.ts';
import { until } from '../../support/tcp-client.ts';

const clients: Redis[] = [];
afterEach(() => {
  setSystemTime();
  for (const client of clients.splice(0)) client.disconnect();
});

/** Over a Redis that is not there. */
async function createLimit(limit: number, windowMs: number): Promise<{ shared: SharedLimit; logged: unknown[] }> {
  const options = { enableOfflineQueue: false, maxRetriesPerRequest: 0, retryStrategy: () => 20 };
  const client = new Redis(await freePort(), '127.0.0.1', options);
  client.on('error', () => undefined);
  clients.push(client);
  const logged: unknown[] = [];
  const shared = new SharedLimit({
    name: 'n',
    limit,
    windowMs,
    store: redisLimits(client, 'test'),
    clock: systemClock,
    log: (error) => logged.push(error),
  });
  return { shared, logged };
}

test('a store that is away: the limit still holds, nobody waits, and it is told once', async () => {
  const { shared, logged } = await createLimit(30, 60_000);
  const allowance = new Allowance({
    limit: 30,
    windowMs: 60_000,
    fetch: (key, points) => shared.fetch(key, points),
    clock: systemClock,
  });
  const startedAt = performance.now();
  const answers = await Promise.all(Array.from({ length: 100 }, () => allowance.spend('ann')));
  expect(answers.filter((answer) => answer === undefined)).toHaveLength(30);
  expect(performance.now() - startedAt).toBeLessThan(400);
  expect(logged).toHaveLength(1);
});

test.each([-5, 5])('the wall clock jumps by %p hours: nobody is locked out for longer than a window', async (hours) => {
  const { shared } = await createLimit(10, 1_000);
  const allowance = new Allowance({
    limit: 10,
    windowMs: 1_000,
    fetch: (key, points) => shared.fetch(key, points),
    clock: systemClock,
  });
  const spent = async (): Promise<boolean> => (await allowance.spend('ann')) === undefined;
  for (let count = 0; count < 10; count++) expect(await spent()).toBe(true);
  setSystemTime(new Date(Date.now() + hours * 3_600_000));
  const refusal = await allowance.spend('ann');
  expect(refusal?.retryAfter).toBe(1);
  await until(spent, 'the next window', 4_000, 20);
});

test('a count of this node alone: windows end by themselves, and nothing of them is kept', () => {
  let now = 0;
  const count = new LocalCount(1_000, { monotonic: () => now });
  expect(count.count('ann', 3)).toEqual({ points: 3, milliseconds: 1_000 });
  now = 400;
  expect(count.count('bob', 1)).toEqual({ points: 1, milliseconds: 1_000 });
  expect(count.count('ann', 2)).toEqual({ points: 5, milliseconds: 600 });
  now = 999;
  expect(count.count('ann', 1)).toEqual({ points: 6, milliseconds: 1 });
  now = 1_000;
  expect(count.count('ann', 1)).toEqual({ points: 1, milliseconds: 1_000 });
  expect(count.size).toBe(2);
  now = 2_000;
  count.forgetEnded();
  expect(count.size).toBe(0);
});

test('a store that is back: nothing of what this node counted alone is kept after its window', async () => {
  let now = 0;
  let away = true;
  const store: LimitStore = {
    count: (_key, points) =>
      away ? Promise.reject(new Error('away')) : Promise.resolve({ points, milliseconds: 1_000 }),
  };
  const clock = { ...systemClock, monotonic: () => now };
  const shared = new SharedLimit({ name: 'n', limit: 10, windowMs: 1_000, store, clock, log: () => undefined });
  for (let user = 0; user < 100; user++) await shared.fetch(`user ${user}`, 1);
  expect(shared.size).toBe(100);
  away = false;
  now = 1_000;
  await shared.fetch('one', 1);
  expect(shared.size).toBe(0);
});

test('a store that answers a longer time than a window: nobody is refused for longer than a window', async () => {
  const store: LimitStore = { count: (_key, points) => Promise.resolve({ points, milliseconds: 5_000 }) };
  const options = { name: 'n', limit: 10, windowMs: 1_000, store, clock: systemClock, log: () => undefined };
  expect(await new SharedLimit(options).fetch('ann', 3)).toEqual({ granted: 3, milliseconds: 1_000 });
});
