// The engine over Redis: one server, the master that Sentinels name, or a cluster. The stores share a connection of
// their own beside the adapter's.

import { IntoAdapter } from '../../changes/into-adapter.ts';
import { openRedis } from '../../redis/client.ts';
import { redisTarget } from '../../redis/target.ts';
import { isPassingFailure, patiently } from '../../time/patiently.ts';
import type { EngineParts, OpenEngine } from '../engine.ts';
import { RedisAdapter } from './adapter.ts';
import { RedisLayerName } from './layer-name.ts';
import { redisLimits } from './limits.ts';
import { RedisPresence } from './presence.ts';
import { redisTickets } from './tickets.ts';

export interface RedisSettings {
  readonly url: string;
  /** See `redisTarget`. */
  readonly tlsCa: string | undefined;
  /** Begins every key and topic, so that several servers can share one Redis. */
  readonly prefix: string;
  /** See the adapter. */
  readonly compressFrom: number;
}

/** Rejects when Redis cannot be reached, after a while if that may pass. */
export async function openRedisEngine(
  { url, tlsCa, prefix, compressFrom }: RedisSettings,
  parts: EngineParts,
): Promise<OpenEngine> {
  const { incarnation, observer, clock, log, closing } = parts;
  const target = redisTarget({ url, tlsCa });
  const adapter = new RedisAdapter({
    target,
    prefix,
    compressFrom,
    nodeId: incarnation,
    clock,
    observer,
    log: (message, error) => log.error({ err: error }, message),
  });
  const { client } = await patiently(() => openRedis({ target, clock }), {
    mayPass: isPassingFailure,
    waiting: (error) => log.warn({ err: error }, 'waiting for Redis'),
    clock,
  });
  closing.add('Redis client', () => client.disconnect());
  return {
    adapter,
    tickets: redisTickets(client, prefix),
    limits: redisLimits(client, prefix),
    presence: new RedisPresence({ client, adapter, prefix }),
    destination: (ports) => new IntoAdapter(ports),
    layer: new RedisLayerName(client, prefix, clock),
    follow: (generation) => adapter.follow(generation),
  };
}
