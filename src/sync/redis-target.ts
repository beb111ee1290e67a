// Where Redis is, as REDIS_URL says it, and how this server connects there:
//
//   redis://user:password@host:6379/2                 one server, or any node of a Redis Cluster; rediss:// with TLS
//   redis+sentinel://password@a:26379,b:26379/main    the master that these Sentinels name; ?db=2, rediss+sentinel://

import { Redis, type RedisOptions } from 'ioredis';

/** The shape of replies stays the driver's own. */
export type RedisClientOptions = Omit<RedisOptions, 'replyMapping'>;

/** Options that lead to the server, without any about behaviour. */
export interface RedisTarget {
  readonly options: RedisClientOptions;
  readonly sentinel: boolean;
}

const hostPattern = /^(\[[0-9A-Fa-f:.]+\]|[^:[\]]+)(?::(\d{1,5}))?$/;

/** Throws when the text is no such URL; the message never shows it, for it may hold a password. */
export function parseRedisUrl(url: string): RedisTarget {
  const match = /^(rediss?)(\+sentinel)?:\/\/(?:([^@/]*)@)?([^/?#@]+)(?:\/([^?#]*))?(?:\?([^#]*))?$/.exec(url);
  if (match === null) throw new Error('the Redis URL is not of the form redis://user:password@host:port/database');
  const [, scheme, sentinelPart, account = '', hostList = '', path = '', queryText = ''] = match;
  const query = new URLSearchParams(queryText);
  const sentinel = sentinelPart !== undefined;
  const hosts = hostList.split(',').map((text) => parseHost(text, sentinel ? 26_379 : 6_379));
  const [first] = hosts;
  if (first === undefined || (!sentinel && hosts.length > 1)) {
    throw new Error('a Redis URL names one host; those of Sentinels begin with redis+sentinel://');
  }
  const tls = scheme === 'rediss';
  const family = query.get('family');
  const common: RedisClientOptions = {
    ...credentials(account, sentinel),
    db: databaseNumber(query.get('db') ?? (sentinel ? '' : path)),
    ...(family === null ? {} : { family: Number(family) }),
  };
  if (!sentinel) return { sentinel, options: { ...common, ...first, ...(tls ? { tls: {} } : {}) } };
  const name = decodeURIComponent(path);
  if (name === '') throw new Error('a Sentinel URL names the master after the hosts: redis+sentinel://host:26379/main');
  const sentinelPassword = query.get('sentinelPassword');
  return {
    sentinel,
    options: {
      ...common,
      sentinels: hosts,
      name,
      ...(tls ? { tls: {}, sentinelTLS: {}, enableTLSForSentinelMode: true } : {}),
      ...(sentinelPassword === null ? {} : { sentinelPassword }),
    },
  };
}

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
    commandTimeout: 5_000,
    keepAlive: 5_000,
  };
  return new Redis(once);
}

function parseHost(text: string, portDefault: number): { host: string; port: number } {
  const match = hostPattern.exec(text);
  const port = Number(match?.[2] ?? portDefault);
  if (match?.[1] === undefined || port > 65_535) throw new Error('the Redis URL has a host that is none');
  return { host: match[1].replace(/^\[|\]$/g, ''), port };
}

function credentials(account: string, passwordAlone: boolean): RedisClientOptions {
  if (account === '') return {};
  const at = account.indexOf(':');
  // Sentinel URLs are often written with a password alone.
  if (at === -1) {
    return passwordAlone ? { password: decodeURIComponent(account) } : { username: decodeURIComponent(account) };
  }
  const username = decodeURIComponent(account.slice(0, at));
  return { password: decodeURIComponent(account.slice(at + 1)), ...(username === '' ? {} : { username }) };
}

function databaseNumber(text: string): number {
  if (text === '') return 0;
  if (!/^\d{1,5}$/.test(text)) throw new Error('the Redis URL ends with a database number that is none');
  return Number(text);
}
