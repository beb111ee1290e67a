// A node that learned, after its start, which generation the database has, begins other epochs by it. Two seconds later it
// took its own doing for a loss of Redis' data: each member of a channel was told a fresh list, in place of who had joined.

import { expect, test } from 'bun:test';
import { Redis } from 'ioredis';
import { redisTarget } from '../../src/redis/target.ts';
import { RedisAdapter } from '../../src/sync/redis/adapter.ts';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from '../support/doubles.ts';
import { patient } from '../support/patience.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

test('another generation of the database interrupts nothing that does not depend on it; a lost mark does', async () => {
  const redis = await startRedis();
  const watcher = new Redis(redis.url);
  const adapter = new RedisAdapter({
    target: redisTarget({ url: redis.url }),
    prefix: 'generation',
    nodeId: 'node',
    compressFrom: 0,
    clock: systemClock,
    observer: silentObserver,
    log: () => undefined,
  });
  let [interruptions, canaries] = [0, 0];
  adapter.hearBeside({ message: () => undefined, interrupted: () => void interruptions++ });
  try {
    await adapter.start({ publication: () => undefined, head: () => undefined, settled: () => undefined });
    adapter.follow(1);
    // Each round of the canary has looked at the mark before.
    await watcher.psubscribe('generation*:n:*');
    watcher.on('pmessage', () => void canaries++);
    await until(() => canaries >= 2, 'two rounds', 60_000);
    expect(interruptions).toBe(0);

    const writer = new Redis(redis.url);
    await writer.flushall();
    writer.disconnect();
    await until(() => interruptions > 0, 'the loss is noticed', 60_000);
  } finally {
    watcher.disconnect();
    await adapter.close();
    await redis.close();
  }
});
