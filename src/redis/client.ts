// A connection to what REDIS_URL names, for parts of the node that keep something small there beside the sync layer. As
// the sync layer's own it fails at once while Redis is away, and reconnects by itself for ever.

import { Cluster, Redis } from 'ioredis';
import { withoutArguments } from './error.ts';
import { redisTarget, type RedisClientOptions, type RedisTarget, type RedisTargetOptions } from './target.ts';
import { backoffMs } from '../time/backoff.ts';
import { systemClock } from '../time/clock.ts';
import { within } from '../time/within.ts';

const answerMsMax = 1_000;
const connectMsMax = 5_000;

/** Where what was opened is left to be closed. */
export interface Closing {
  add(what: string, close: () => void): void;
}

const opened = new WeakMap<Closing, Promise<Redis | Cluster>>();

/**
 * The one of this node, closed with it. Rejects when Redis cannot be reached. A node of a cluster is found to be one.
 */
export function openRedis(options: RedisTargetOptions, closing: Closing): Promise<Redis | Cluster> {
  const known = opened.get(closing);
  if (known !== undefined) return known;
  const opening = open(options, closing);
  opened.set(closing, opening);
  return opening;
}

async function open(options: RedisTargetOptions, closing: Closing): Promise<Redis | Cluster> {
  const target = redisTarget(options);
  try {
    const client = target.kind === 'cluster' ? await openCluster(target) : await openServer(target);
    closing.add('Redis client', () => client.disconnect());
    return client;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Redis could not be reached: ${reason}`, { cause: withoutArguments(error) });
  }
}

async function openServer(target: RedisTarget): Promise<Redis | Cluster> {
  const [host] = target.hosts;
  if (host === undefined) throw new Error('REDIS_URL names no host');
  const client = new Redis({
    ...target.optionsFor(host),
    ...behaviour,
    retryStrategy: delay,
    sentinelRetryStrategy: delay,
  });
  const last = lastError(client);
  try {
    // Where there are Sentinels the driver asks them for ever.
    await within(client.connect(), connectMsMax, 'connecting to Redis');
    // A user without the right to ask is on a server of someone else's, which says what it is by itself.
    const info = await client.info('cluster').catch(() => '');
    if (!info.includes('cluster_enabled:1')) return client;
  } catch (error) {
    client.disconnect();
    throw last() ?? error;
  }
  client.disconnect();
  return openCluster(target);
}

async function openCluster(target: RedisTarget): Promise<Cluster> {
  const [first] = target.hosts;
  const {
    host: _host,
    port: _port,
    ...account
  }: RedisClientOptions = first === undefined ? {} : target.optionsFor(first);
  const client = new Cluster([...target.hosts], {
    lazyConnect: true,
    enableOfflineQueue: false,
    enableAutoPipelining: true,
    clusterRetryStrategy: delay,
    redisOptions: { ...account, connectTimeout: connectMsMax, commandTimeout: answerMsMax, keepAlive: connectMsMax },
  });
  const last = lastError(client);
  try {
    await within(client.connect(), connectMsMax, 'connecting to the Redis Cluster');
    return client;
  } catch (error) {
    client.disconnect();
    throw last() ?? error;
  }
}

const behaviour: RedisClientOptions = {
  lazyConnect: true,
  enableOfflineQueue: false,
  enableAutoPipelining: true,
  maxRetriesPerRequest: 0,
  connectTimeout: connectMsMax,
  commandTimeout: answerMsMax,
  keepAlive: connectMsMax,
  // A master that became a replica keeps its connections: another one leads to the present master.
  reconnectOnError: (error) => error.message.startsWith('READONLY'),
};

/** The driver counts from 1. */
function delay(times: number): number {
  return backoffMs(times - 1, { firstMs: 100, maxMs: 2_000 }, systemClock);
}

/** Why the driver says only that the connection is closed. What happens later, each command tells by itself. */
function lastError(client: Redis | Cluster): () => unknown {
  let last: unknown;
  client.on('error', (error: unknown) => {
    last = error;
  });
  return () => last;
}
