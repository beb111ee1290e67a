// The presence store over Redis as the contract's tests want it: a server or a cluster, and any number of nodes on it.

import { Redis } from 'ioredis';
import type { PresenceEvents, PresenceStore } from '../../src/presence/store.ts';
import { openRedis } from '../../src/redis/client.ts';
import { redisTarget } from '../../src/redis/target.ts';
import { RedisAdapter } from '../../src/sync/redis/adapter.ts';
import { RedisPresence } from '../../src/sync/redis/presence.ts';
import { systemClock } from '../../src/time/clock.ts';
import type { PresenceHarness } from '../contract/presence-contract.ts';
import { silentObserver } from './doubles.ts';
import { startRedisCluster } from './redis-cluster.ts';
import { startRedis } from './redis.ts';

/** The server's clock cannot be turned, so the nodes grow older. */
const ageScript = `
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZINCRBY', KEYS[1], -ARGV[1], node) end
`;

export async function redisPresenceHarness(): Promise<PresenceHarness> {
  const redis = await startRedis();
  const lose = async (): Promise<void> => {
    await redis.kill9();
    await redis.start();
  };
  return harnessOf(redis.url, [redis.port], lose, () => redis.close());
}

export async function redisClusterPresenceHarness(): Promise<PresenceHarness> {
  const cluster = await startRedisCluster();
  const lose = async (): Promise<void> => {
    for (const port of cluster.ports) await asAdmin(port, (admin) => admin.flushall());
  };
  return harnessOf(cluster.url, cluster.ports, lose, () => cluster.close());
}

/** The store as one node has it, started. */
export async function openRedisPresence(
  url: string,
  prefix: string,
  nodeId: string,
  events: PresenceEvents,
): Promise<{ readonly store: PresenceStore; close(): Promise<void> }> {
  const target = redisTarget({ url });
  const adapter = new RedisAdapter({
    target,
    prefix,
    nodeId,
    clock: systemClock,
    observer: silentObserver,
    log: () => undefined,
  });
  const { client } = await openRedis({ target, clock: systemClock });
  const store = new RedisPresence({ client, adapter, prefix });
  await adapter.start({ publication: () => undefined, head: () => undefined, settled: () => undefined });
  store.start(events);
  return {
    store,
    close: async () => {
      await store.close();
      await adapter.close();
      client.disconnect();
    },
  };
}

function harnessOf(
  url: string,
  ports: readonly number[],
  lose: () => Promise<void>,
  closeServer: () => Promise<void>,
): PresenceHarness {
  const prefix = 'contract';
  const closers: (() => Promise<void>)[] = [];
  let nodes = 0;
  return {
    createNode: async (events) => {
      const { store, close } = await openRedisPresence(url, prefix, `node${++nodes}`, events);
      closers.push(close);
      return store;
    },
    lose,
    forgetNodes: async () => {
      for (const port of ports) await asAdmin(port, (admin) => admin.del(`${prefix}:presence:nodes`));
    },
    now: () => Date.now(),
    pass: async (milliseconds) => {
      for (const port of ports) {
        await asAdmin(port, (admin) => admin.eval(ageScript, 1, `${prefix}:presence:nodes`, milliseconds));
      }
    },
    close: async () => {
      await Promise.all(closers.map((close) => close()));
      await closeServer();
    },
  };
}

async function asAdmin(port: number, run: (admin: Redis) => Promise<unknown>): Promise<void> {
  const admin = new Redis(port, '127.0.0.1');
  try {
    await run(admin);
  } catch (error) {
    // Another master's keys are not this one's to change.
    if (!(error instanceof Error && error.message.startsWith('MOVED'))) throw error;
  } finally {
    admin.disconnect();
  }
}
