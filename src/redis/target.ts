// How this server connects to what REDIS_URL names: the driver's options.

import { Redis, type RedisOptions } from 'ioredis';
import './tracing.ts';
import { parseRedisUrl, type RedisHost, type RedisUrl } from './url.ts';

/** The shape of replies stays the driver's own. */
export type RedisClientOptions = Omit<RedisOptions, 'replyMapping'>;

/** Options that lead to the server, without any about behaviour. */
export interface RedisTarget {
  readonly kind: RedisUrl['kind'];
  /** Any of them answers for all: one server, or nodes of a cluster, or Sentinels. */
  readonly hosts: readonly RedisHost[];
  readonly database: number;
  /** For a connection to this host; where there are Sentinels, to the master that they name. */
  optionsFor(host: RedisHost): RedisClientOptions;
}

export interface RedisTargetOptions {
  /** As `redis-url.ts` describes. */
  readonly url: string;
  /** Certificates in PEM form of those who may have signed the server's; the system's if undefined. */
  readonly tlsCa?: string | undefined;
}

/** Throws when the URL is none. */
export function redisTarget({ url, tlsCa }: RedisTargetOptions): RedisTarget {
  const { kind, hosts, tls, account, database, family, master, sentinelAccount } = parseRedisUrl(url);
  const security = tls ? { ...(tlsCa === undefined ? {} : { ca: tlsCa }) } : undefined;
  const common: RedisClientOptions = {
    ...(account.username === undefined ? {} : { username: account.username }),
    ...(account.password === undefined ? {} : { password: account.password }),
    ...(family === undefined ? {} : { family }),
    ...(security === undefined ? {} : { tls: security }),
    db: database,
  };
  if (kind !== 'sentinel') return { kind, hosts, database, optionsFor: (host) => ({ ...common, ...host }) };
  const { username, password } = sentinelAccount;
  const options: RedisClientOptions = {
    ...common,
    sentinels: [...hosts],
    name: master,
    sentinelCommandTimeout: 1_000,
    ...(security === undefined ? {} : { sentinelTLS: security, enableTLSForSentinelMode: true }),
    ...(username === undefined ? {} : { sentinelUsername: username }),
    ...(password === undefined ? {} : { sentinelPassword: password }),
  };
  return { kind, hosts, database, optionsFor: () => options };
}

/** Milliseconds for the other end to take leave; one that is given up often hangs, and another cannot take its place. */
export const disconnectTimeout = 100;

/** One that never connects by itself again: who holds it makes another, when the time has come. */
export function createListener(options: RedisClientOptions): Redis {
  const once: RedisClientOptions = {
    ...options,
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResubscribe: false,
    retryStrategy: () => null,
    sentinelRetryStrategy: () => null,
    connectTimeout: 5_000,
    disconnectTimeout,
    commandTimeout: 5_000,
    keepAlive: 5_000,
  };
  return new Redis(once);
}
