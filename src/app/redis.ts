// The Redis connection that parts of this node share beside the sync layer, which has its own.

import type { Cluster, Redis } from 'ioredis';
import { openRedis } from '../redis/client.ts';
import { redisTarget } from '../redis/target.ts';
import type { Settings } from '../settings/settings.ts';
import { systemClock } from '../time/clock.ts';
import type { CloseStack } from './close-stack.ts';

const opened = new WeakMap<CloseStack, Promise<Redis | Cluster>>();

export function nodeRedis(settings: Settings, closing: CloseStack): Promise<Redis | Cluster> {
  const opening = opened.get(closing) ?? open(settings, closing);
  opened.set(closing, opening);
  return opening;
}

async function open({ redisUrl, redisTlsCa }: Settings, closing: CloseStack): Promise<Redis | Cluster> {
  if (redisUrl === undefined) throw new Error('REDIS_URL is not set');
  const { client } = await openRedis({ target: redisTarget({ url: redisUrl, tlsCa: redisTlsCa }), clock: systemClock });
  closing.add('Redis client', () => client.disconnect());
  return client;
}
