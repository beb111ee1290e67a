// What the sync layer over Redis does where nothing else would notice its absence: the adapter stands alone here, on a
// real server.

import { afterEach, describe, expect, test } from 'bun:test';
import type { Publication } from '../../src/core/publication.ts';
import type { Position } from '../../src/protocol/position.ts';
import { redisTarget } from '../../src/redis/target.ts';
import { Rules } from '../../src/rules/rules.ts';
import { RedisAdapter } from '../../src/sync/redis/adapter.ts';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from '../support/doubles.ts';
import { patient } from '../support/patience.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

const rules = new Rules({ rules: [{ channels: 'ephemeral:*', recoverable: false }, { channels: '*' }] });

describe('The sync layer over Redis', () => {
  let closers: (() => Promise<unknown>)[] = [];

  afterEach(async () => {
    const closing = closers.reverse();
    closers = [];
    for (const close of closing) await close();
  }, 30_000);

  async function start(): Promise<{
    redis: TestRedis;
    adapter: RedisAdapter;
    told: Publication[];
    heads: Map<string, Position>;
  }> {
    const redis = await startRedis();
    closers.push(() => redis.close());
    const told: Publication[] = [];
    const heads = new Map<string, Position>();
    const adapter = new RedisAdapter({
      target: redisTarget({ url: redis.url }),
      prefix: 'test',
      nodeId: 'node',
      clock: systemClock,
      observer: silentObserver,
      log: () => undefined,
    });
    closers.push(() => adapter.close());
    await adapter.start({
      publication: (publication) => void told.push(publication),
      head: (channel, head) => void heads.set(channel, head),
      settled: () => undefined,
    });
    return { redis, adapter, told, heads };
  }

  test('a message whose node had another rule for the channel is ignored', async () => {
    const { redis, adapter, told } = await start();
    for (const channel of ['a', 'ephemeral:a']) await adapter.subscribe(channel, rules.for(channel));
    await redis.admin.publish('test:c:{a}', '- 0 1 other\n\n"ephemeral there, logged here"');
    await redis.admin.publish('test:c:{ephemeral:a}', 'epoch 1 1\n\n"logged there, ephemeral here"');
    await redis.admin.publish('test:c:{ephemeral:a}', '- 0 1 other\n\n"ephemeral on both"');
    await adapter.publish({ channel: 'a', rule: rules.for('a'), data: '"logged on both"', at: 1 });
    await until(() => told.length === 2, 'two publications', 5_000);
    expect(told.map(({ data }) => data)).toEqual(['"ephemeral on both"', '"logged on both"']);
  });

  // The heads of a few channels are read in each round: of a thousand, some would be late by twenty seconds.
  test('logs that are lost without a lost connection are noticed at once, of all channels', async () => {
    const { redis, adapter, heads } = await start();
    const channels = Array.from({ length: 1_000 }, (_, index) => `channel:${index}`);
    const before = await Promise.all(channels.map((channel) => adapter.subscribe(channel, rules.for(channel))));
    await redis.admin.flushall();
    const changed = (): number =>
      channels.filter((channel, index) => (heads.get(channel)?.epoch ?? before[index]!.epoch) !== before[index]!.epoch)
        .length;
    await until(() => changed() === channels.length, 'another epoch of every channel', 8_000, 50);
  }, 30_000);
});
