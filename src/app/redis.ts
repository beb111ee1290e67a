// The Redis connection that parts of this node share beside the sync layer, which has its own.

import type { Cluster, Redis } from 'ioredis';
import { openRedis } from '../redis/client.ts';
import type { Settings } from '../settings/settings.ts';
import type { CloseStack } from './close-stack.ts';

export async function nodeRedis(settings: Settings, closing: CloseStack): Promise<Redis | Cluster> {
  if (settings.redisUrl === undefined) throw new Error('REDIS_URL is not set');
  return openRedis({ url: settings.redisUrl, tlsCa: settings.redisTlsCa }, closing);
}
