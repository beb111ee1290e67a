// A Redis Cluster as this server sees it: its masters by address, who serves which slot, and the driver's client for
// it.

import { Cluster } from 'ioredis';
import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';
import { behaviour, type RedisTarget } from './target.ts';
import type { RedisHost } from './url.ts';

export interface ClusterSlots {
  /** The masters, as `host:port`. */
  readonly keys: readonly string[];
  readonly bySlot: readonly (string | undefined)[];
}

interface ClusterOptions {
  readonly target: RedisTarget;
  readonly clock: Clock;
}

const slotCount = 16_384;

/**
 * The driver's client of the whole cluster, not yet connected. It begins with the masters `keys`, then the URL's hosts.
 */
export function createCluster(options: ClusterOptions, host: RedisHost, keys: readonly string[]): Cluster {
  const { clock, target } = options;
  const { host: _host, port: _port, ...account } = target.optionsFor(host);
  return new Cluster([...keys.map(addressOf), ...target.hosts], {
    lazyConnect: true,
    enableOfflineQueue: false,
    enableAutoPipelining: true,
    slotsRefreshInterval: 2_000,
    // The driver counts from 1.
    clusterRetryStrategy: (times) => backoffMs(times - 1, { firstMs: 100, maxMs: 2_000 }, clock),
    redisOptions: { ...account, ...behaviour },
  });
}

export function addressOf(key: string): { host: string; port: number } {
  const colon = key.lastIndexOf(':');
  return { host: key.slice(0, colon), port: Number(key.slice(colon + 1)) };
}

/** The answer to CLUSTER SLOTS: stretches of slots, each with its master first; one without a host is the one asked. */
export function parseSlots(reply: unknown, asked: RedisHost): ClusterSlots {
  const keys = new Set<string>();
  const bySlot: (string | undefined)[] = Array.from({ length: slotCount });
  for (const [from, to, master] of reply as [number, number, [host: string | null, port: number]][]) {
    const key = `${master[0] || asked.host}:${master[1]}`;
    keys.add(key);
    bySlot.fill(key, from, to + 1);
  }
  if (keys.size === 0) throw new Error('the Redis Cluster has no masters yet');
  return { keys: [...keys], bySlot };
}
