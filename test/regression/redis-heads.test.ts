// What a channel leaves in Redis to which many subscribe and nobody publishes.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { Redis } from 'ioredis';
import type { ChannelRule } from '../../src/rules/rules.ts';
import { RedisAdapter } from '../../src/sync/redis/adapter.ts';
import { emptyHeadKeptMs } from '../../src/sync/redis/scripts.ts';
import { redisTarget } from '../../src/redis/target.ts';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from '../support/doubles.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

const rule: ChannelRule = { pattern: '^.*$', recoverable: true, historySize: 10, historySeconds: 60 };
let redis: TestRedis;
let admin: Redis;
let adapter: RedisAdapter;

beforeAll(async () => {
  redis = await startRedis();
  admin = new Redis(redis.url);
  const options = { target: redisTarget({ url: redis.url }), prefix: 'p', nodeId: 'n', clock: systemClock };
  adapter = new RedisAdapter({ ...options, observer: silentObserver, log: () => undefined });
  await adapter.start({ publication: () => undefined, head: () => undefined, settled: () => undefined });
}, 30_000);
afterAll(async () => {
  await adapter.close();
  admin.disconnect();
  await redis.close();
}, 30_000);

function kept(channel: string): Promise<number> {
  return admin.pttl(`p:m:{${channel}}`);
}

// A hundred connects with made-up names left 79,000 keys for a day.
test('is gone soon after the last subscriber, and not while somebody is subscribed', async () => {
  const names = Array.from({ length: 300 }, (_, index) => `made-up:${index}`);
  const heads = await Promise.all(names.map((name) => adapter.subscribe(name, rule)));
  for (const name of names) expect(await kept(name)).toBeLessThanOrEqual(emptyHeadKeptMs);
  // As if nearly all of the time had passed.
  for (const name of names) await admin.pexpire(`p:m:{${name}}`, 20_000);
  const renewed = async (): Promise<boolean> => {
    const times = await Promise.all(names.map(kept));
    return times.every((time) => time > emptyHeadKeptMs - 60_000);
  };
  await until(renewed, 'every head of a subscribed channel is kept on', 15_000);
  // The log that subscribers were told of is the one that begins.
  const first = await adapter.publish({ channel: 'made-up:7', rule, data: '1', at: Date.now() });
  expect(first).toEqual({ epoch: heads[7]!.epoch, offset: 1 });
  expect(await kept('made-up:7')).toBeGreaterThan(24 * 3_600_000);
}, 30_000);
