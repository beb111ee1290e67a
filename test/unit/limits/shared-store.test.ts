// A limit whose store is away: this node counts by itself, at once, whatever the wall clock says meanwhile.

import { afterEach, expect, setSystemTime, test } from 'bun:test';
import { Redis } from 'ioredis';
import { systemClock } from '../../../src/time/clock.ts';
import { Allowance } from '../../../src/limits/allowance.ts';
import { SharedStore } from '../../../src/limits/shared-store.ts';
import { redisStore } from '../../../src/limits/stores.ts';
import { freePort } from '../../support/postgres.ts';
import { until } from '../../support/tcp-client.ts';

const clients: Redis[] = [];
afterEach(() => {
  setSystemTime();
  for (const client of clients.splice(0)) client.disconnect();
});

/** Over a Redis that is not there. */
async function createStore(limit: number, windowMs: number): Promise<{ store: SharedStore; logged: unknown[] }> {
  const options = { enableOfflineQueue: false, maxRetriesPerRequest: 0, retryStrategy: () => 20 };
  const client = new Redis(await freePort(), '127.0.0.1', options);
  client.on('error', () => undefined);
  clients.push(client);
  const logged: unknown[] = [];
  const store = new SharedStore({
    limit,
    windowMs,
    shared: redisStore(client, 'test', { name: 'n', limit, windowMs }),
    clock: systemClock,
    log: (error) => logged.push(error),
  });
  return { store, logged };
}

test('a store that is away: the limit still holds, nobody waits, and it is told once', async () => {
  const { store, logged } = await createStore(30, 60_000);
  const allowance = new Allowance({
    limit: 30,
    windowMs: 60_000,
    fetch: (key, points) => store.fetch(key, points),
    clock: systemClock,
  });
  const startedAt = performance.now();
  const answers = await Promise.all(Array.from({ length: 100 }, () => allowance.spend('ann')));
  expect(answers.filter((answer) => answer === undefined)).toHaveLength(30);
  expect(performance.now() - startedAt).toBeLessThan(400);
  expect(logged).toHaveLength(1);
});

test.each([-5, 5])('the wall clock jumps by %p hours: nobody is locked out for longer than a window', async (hours) => {
  const { store } = await createStore(10, 1_000);
  const allowance = new Allowance({
    limit: 10,
    windowMs: 1_000,
    fetch: (key, points) => store.fetch(key, points),
    clock: systemClock,
  });
  const spent = async (): Promise<boolean> => (await allowance.spend('ann')) === undefined;
  for (let count = 0; count < 10; count++) expect(await spent()).toBe(true);
  setSystemTime(new Date(Date.now() + hours * 3_600_000));
  const refusal = await allowance.spend('ann');
  // Ahead, the library's window is over at once; back, it would last for hours.
  expect(refusal?.retryAfter).toBe(hours < 0 ? 1 : undefined);
  await until(spent, 'the next window', 4_000, 20);
});
