// Where REDIS_URL leads, as the driver's options.

import type { RedisOptions } from 'ioredis';
import { parseRedisUrl, type RedisHost, type RedisUrl } from './url.ts';

/** The shape of replies stays the driver's own. */
export type RedisClientOptions = Omit<RedisOptions, 'replyMapping'>;

/** Knows where to connect, and as whom; how a connection behaves is decided in `client.ts`. */
export interface RedisTarget {
  readonly kind: RedisUrl['kind'];
  /** Any of them answers for all: one server, or nodes of a cluster, or Sentinels. */
  readonly hosts: readonly RedisHost[];
  readonly database: number;
  /** For a connection to this host; where there are Sentinels, to the master that they name. */
  optionsFor(host: RedisHost): RedisClientOptions;
}

export interface RedisTargetOptions {
  /** One of the forms that `url.ts` describes. */
  readonly url: string;
  /** Certificates in PEM form: the authorities that are trusted. Undefined: those that the system trusts. */
  readonly tlsCa?: string | undefined;
}

/** Throws when the URL is not of any of its forms. */
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

export const connectTimeoutMs = 5_000;
/** No command is waited for longer. */
export const answerTimeoutMs = 1_000;

/** What all connections of this server have in common. */
export const behaviour = {
  connectTimeout: connectTimeoutMs,
  commandTimeout: answerTimeoutMs,
  // For the other end to take leave. A connection that is given up often hangs, and no other can take its place before.
  disconnectTimeout: 100,
  keepAlive: 5_000,
  // A Redis that loads its data says how long it will take, and is often wrong.
  maxLoadingRetryTime: 1_000,
} as const satisfies RedisClientOptions;
