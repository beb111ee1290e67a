// The Redis adapter as the contract's tests want it: a server or a cluster, and any number of nodes on it.

import { Redis } from 'ioredis';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from './doubles.ts';
import { redisTarget } from '../../src/redis/target.ts';
import { RedisAdapter } from '../../src/sync/redis/adapter.ts';
import type { SyncHarness } from '../contract/sync-contract.ts';
import { startRedisCluster } from './redis-cluster.ts';
import { startRedis } from './redis.ts';

/** The server's clock cannot be turned, so what it has stored grows older: the streams are written anew. */
const ageScript = `
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. ':s:*')) do
  local entries = redis.call('XRANGE', key, '-', '+')
  redis.call('DEL', key)
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    for index = 1, #fields, 2 do
      if fields[index] == 'a' then fields[index + 1] = string.format('%.0f', fields[index + 1] - ARGV[2]) end
    end
    redis.call('XADD', key, entry[1], unpack(fields))
  end
end
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. ':k:*')) do
  if redis.call('PTTL', key) <= tonumber(ARGV[2]) then redis.call('DEL', key) end
end
`;

export async function redisHarness(): Promise<SyncHarness> {
  const redis = await startRedis();
  return harnessOf(redis.url, [redis.port], () => redis.close());
}

/** Every second node compresses all that shrinks, as while the setting is being changed. */
export async function redisCompressedHarness(): Promise<SyncHarness> {
  const redis = await startRedis();
  return harnessOf(redis.url, [redis.port], () => redis.close(), 1);
}

export async function redisClusterHarness(): Promise<SyncHarness> {
  const cluster = await startRedisCluster();
  return harnessOf(cluster.url, cluster.ports, () => cluster.close());
}

function harnessOf(url: string, ports: readonly number[], close: () => Promise<void>, compressFrom = 0): SyncHarness {
  const prefix = 'contract';
  let adapters: RedisAdapter[] = [];
  let nodes = 0;
  const closeNodes = async (): Promise<void> => {
    await Promise.all(adapters.map((adapter) => adapter.close()));
    adapters = [];
  };
  return {
    createNode: async (events) => {
      const adapter = new RedisAdapter({
        target: redisTarget({ url }),
        prefix,
        nodeId: `node${++nodes}`,
        compressFrom: nodes % 2 === 1 ? compressFrom : 0,
        clock: systemClock,
        observer: silentObserver,
        log: () => undefined,
      });
      adapters.push(adapter);
      await adapter.start(events);
      return adapter;
    },
    restart: closeNodes,
    clock: {
      now: () => Date.now(),
      advance: async (milliseconds) => {
        for (const port of ports) {
          const admin = new Redis(port, '127.0.0.1');
          await admin.eval(ageScript, 0, prefix, milliseconds);
          admin.disconnect();
        }
      },
    },
    close: async () => {
      await closeNodes();
      await close();
    },
  };
}
