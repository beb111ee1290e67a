// Limits over all nodes, counted in Redis: a number per key, which Redis forgets when its window ends.

import type { Cluster, Redis } from 'ioredis';
import type { LimitStore } from '../../limits/store.ts';

/**
 * KEYS  the counter
 * ARGV  points to add, milliseconds that a window lasts
 */
const countScript = `
local points = redis.call('INCRBY', KEYS[1], ARGV[1])
local left = redis.call('PTTL', KEYS[1])
local window = tonumber(ARGV[2])
if left < 0 or left > window then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', window)
  return {tonumber(ARGV[1]), window}
end
return {points, left}`;

interface Scripted {
  sobranieCount(key: string, points: number, windowMs: number): Promise<[points: number, milliseconds: number]>;
}

export function redisLimits(client: Redis | Cluster, prefix: string): LimitStore {
  client.defineCommand('sobranieCount', { numberOfKeys: 1, lua: countScript });
  const scripted = client as (Redis | Cluster) & Scripted;
  return {
    async count(key, points, windowMs) {
      const [counted, milliseconds] = await scripted.sobranieCount(`${prefix}:limit:${key}`, points, windowMs);
      return { points: counted, milliseconds };
    },
  };
}
