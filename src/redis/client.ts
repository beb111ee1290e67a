// Opens the driver's clients. One for commands leads to one server, to the master that Sentinels name, or to all
// masters of a cluster. It fails at once while Redis is away: a command that waited for a lost connection would be sent
// late, or hang. It reconnects by itself for ever, with full jitter, since all nodes lose Redis in the same instant.
// One that listens never reconnects by itself.

import { Redis, type Cluster } from 'ioredis';
import './tracing.ts';
import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';
import { isPassingFailure } from '../time/patiently.ts';
import { within } from '../time/within.ts';
import { createCluster, parseSlots } from './cluster.ts';
import { withoutArguments } from './error.ts';
import { endSilentConnections } from './silence.ts';
import { connectTimeoutMs, behaviour, type RedisClientOptions, type RedisTarget } from './target.ts';
import type { RedisHost } from './url.ts';

export interface OpenRedisOptions {
  readonly target: RedisTarget;
  readonly clock: Clock;
  /** Errors of the connection, now and later. Those of a command reject its own promise. */
  readonly failed?: (error: unknown) => void;
}

export interface OpenRedis {
  readonly client: Redis | Cluster;
  /** The one of the URL's hosts through which it was opened. */
  readonly host: RedisHost;
  /** What INFO answered; empty for a user who may not ask. */
  readonly info: string;
}

/**
 * Connects. Rejects when Redis cannot be reached. A server that is a node of a cluster makes it a client of the
 * cluster.
 */
export async function openRedis(options: OpenRedisOptions): Promise<OpenRedis> {
  const { kind, hosts } = options.target;
  let last: unknown;
  // A cluster is entered through any of its nodes that answers; Sentinels are asked one after the other by the driver.
  for (const host of kind === 'cluster' ? hosts : hosts.slice(0, 1)) {
    try {
      const opened = await openThrough(host, options);
      endSilentConnections(opened.client);
      return opened;
    } catch (error) {
      last = error;
    }
  }
  const reason = last instanceof Error ? last.message : String(last);
  throw new Error(`Redis could not be reached: ${reason}`, { cause: last });
}

async function openThrough(host: RedisHost, options: OpenRedisOptions): Promise<OpenRedis> {
  const { target } = options;
  let client: Redis | Cluster = new Redis(commandOptions(options, host));
  // What a lost connection rejects with says only that it is closed; why, the event before it says.
  let last: unknown;
  const failed = (error: unknown): void => {
    last = withoutArguments(error);
    options.failed?.(error);
  };
  client.on('error', failed);
  try {
    // Where there are Sentinels the driver asks them for ever.
    await within(client.connect(), connectTimeoutMs, 'connecting to Redis');
    // The driver goes on where the database could not be selected: with another one.
    if (last instanceof Error && 'command' in last && last.command === 'select') throw last;
    const info = await client.info().catch((error: unknown) => {
      // Not answered: a node of a cluster would be taken for a server alone.
      if (isPassingFailure(error)) throw error;
      // A user without the right to ask is on a server of someone else's, where clusters answer CLUSTER all the same.
      return '';
    });
    if (target.kind !== 'cluster' && !info.includes('cluster_enabled:1')) return { client, host, info };
    const { keys } = parseSlots(await client.cluster('SLOTS'), host);
    client.disconnect();
    last = undefined;
    client = createCluster(options, host, keys);
    client.on('error', failed);
    await within(client.connect(), connectTimeoutMs, 'connecting to the Redis Cluster');
    return { client, host, info };
  } catch (error) {
    client.disconnect();
    throw last ?? withoutArguments(error);
  }
}

function commandOptions({ clock, target }: OpenRedisOptions, host: RedisHost): RedisClientOptions {
  // The driver counts from 1.
  const delay = (times: number): number => backoffMs(times - 1, { firstMs: 100, maxMs: 2_000 }, clock);
  return {
    ...target.optionsFor(host),
    ...behaviour,
    lazyConnect: true,
    enableOfflineQueue: false,
    enableAutoPipelining: true,
    maxRetriesPerRequest: 0,
    retryStrategy: delay,
    sentinelRetryStrategy: delay,
    // A master that became a replica keeps its connections: another one leads to the present master.
    reconnectOnError: (error) => error.message.startsWith('READONLY'),
  };
}

/** One that never connects by itself again: its owner makes another when the time has come. */
export function createListener(options: RedisClientOptions): Redis {
  return new Redis({
    ...options,
    ...behaviour,
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResubscribe: false,
    retryStrategy: () => null,
    sentinelRetryStrategy: () => null,
    commandTimeout: 5_000,
  });
}
