// The engines that this server has: the only list of them. The first one is taken where the settings choose none. A
// folder is loaded when its engine is opened, so nobody pays for the driver of another one.

import { readFileSync } from 'node:fs';
import { certificates, matching, redisUrl, wholeNumber, type Kind } from '../settings/kinds.ts';
import { defaulted, optional } from '../settings/setting.ts';
import { kafkaUrlFault } from '../kafka/target.ts';
import { natsUrlFault } from '../nats/target.ts';
import { rabbitUrlFault } from '../rabbitmq/target.ts';
import { engine, type Engine } from './engine.ts';

const mebibyte = 1 << 20;

const natsUrl: Kind<string> = {
  allowed: 'a NATS URL: `nats://user:password@host:4222`, several hosts separated by commas; with TLS `tls://`',
  parse: (text) => (natsUrlFault(text) === undefined ? text : undefined),
  // A text that is no such URL may hold a password anywhere.
  show: () => undefined,
  why: natsUrlFault,
};

/** A file of a user of an account. The value is its text. */
const natsCredentials: Kind<string> = {
  allowed: 'the path of a credentials file, as NATS writes it for a user: a JWT and the seed of a key',
  parse: (path) => (natsCredentialsFault(path) === undefined ? readFileSync(path, 'utf8') : undefined),
  // Who pastes the file's text instead of its name pastes a key.
  show: (path) => (/^[\w./~-]{1,200}$/.test(path) ? path : undefined),
  why: natsCredentialsFault,
};

function natsCredentialsFault(path: string): string | undefined {
  try {
    const text = readFileSync(path, 'utf8');
    const parts = ['BEGIN NATS USER JWT', 'BEGIN USER NKEY SEED'];
    return parts.every((part) => text.includes(part)) ? undefined : 'the file does not hold both';
  } catch {
    return 'the file cannot be read';
  }
}

const rabbitUrl: Kind<string> = {
  allowed: 'a RabbitMQ URL: `amqp://user:password@host:5672/vhost`; with TLS `amqps://`',
  parse: (text) => (rabbitUrlFault(text) === undefined ? text : undefined),
  show: () => undefined,
  why: rabbitUrlFault,
};

const kafkaUrl: Kind<string> = {
  allowed:
    'a Kafka URL: `kafka://user:password@host:9092`, several brokers separated by commas; with TLS `kafka+ssl://`',
  parse: (text) => (kafkaUrlFault(text) === undefined ? text : undefined),
  show: () => undefined,
  why: kafkaUrlFault,
};

export const engines: readonly Engine[] = [
  engine({
    name: 'postgres',
    title: 'PostgreSQL',
    shared: true,
    // It is in the node's own database, which every node has.
    settings: {},
    open: async (_values, parts) => (await import('../sync/postgres/engine.ts')).openPostgres(parts),
  }),
  engine({
    name: 'redis',
    title: 'Redis',
    shared: true,
    settings: {
      url: optional(
        'REDIS_URL',
        redisUrl,
        'no Redis',
        'Redis 6.2 or newer, or Valkey. `redis://` leads to a cluster too: the server asks the node. `?sentinelPassword=`' +
          ' is the password of the Sentinels, where it is another one than that of Redis.',
      ),
      tlsCa: optional(
        'REDIS_TLS_CA',
        certificates,
        'the authorities that the operating system trusts',
        'Certificates of the authorities that may sign the certificate of Redis, for a `REDIS_URL` with TLS.',
      ),
      prefix: defaulted(
        'REDIS_PREFIX',
        matching(/^[A-Za-z0-9._:-]{1,32}$/, '1 to 32 characters of `A-Z a-z 0-9 . _ : -`'),
        'sobranie',
        'Beginning of every key and channel in Redis, so that several clusters of servers can share one Redis.',
      ),
      compressFrom: defaulted(
        'REDIS_COMPRESS_FROM',
        wholeNumber(0, 1_024 * mebibyte),
        '32768',
        'Data of so many characters and more travel through Redis, and are kept there, compressed; `0` compresses none. Less' +
          ' than the default costs the nodes more time than it spares.',
      ),
    },
    url: 'url',
    tlsScheme: 'rediss://',
    open: async ({ url, ...values }, parts) => {
      if (url === undefined) throw new Error('REDIS_URL is not set');
      return (await import('../sync/redis/engine.ts')).openRedisEngine({ url, ...values }, parts);
    },
  }),
  engine({
    name: 'nats',
    title: 'NATS',
    shared: true,
    settings: {
      url: optional(
        'NATS_URL',
        natsUrl,
        'no NATS',
        'NATS 2.12 or newer with JetStream, one server or a cluster. It carries publications and keeps history; tickets,' +
          ' limits and presence stay in the database, which all nodes must share.',
      ),
      credentials: optional(
        'NATS_CREDENTIALS',
        natsCredentials,
        'none',
        'For a NATS whose accounts are known by JWTs. `nsc generate creds` writes the file.',
      ),
      tlsCa: optional(
        'NATS_TLS_CA',
        certificates,
        'the authorities that the operating system trusts',
        'Certificates of the authorities that may sign the certificate of NATS, for a `NATS_URL` that begins with `tls://`.',
      ),
      prefix: defaulted(
        'NATS_PREFIX',
        matching(/^[A-Za-z0-9_-]{1,32}$/, '1 to 32 characters of `A-Z a-z 0-9 _ -`'),
        'sobranie',
        'Beginning of every stream and subject in NATS, so that several clusters of servers can share one NATS.',
      ),
      replicas: optional(
        'NATS_REPLICAS',
        wholeNumber(1, 5),
        '3 in a cluster, else 1',
        'Copies of each stream that the server makes. Streams that are there keep theirs.',
      ),
      keySeconds: defaulted(
        'NATS_KEY_SECONDS',
        wholeNumber(60, 7 * 24 * 3_600),
        '3600',
        'For how long NATS knows idempotency keys, and rows that were published. It keeps them in memory, about 100 bytes' +
          ' each.',
      ),
    },
    url: 'url',
    tlsScheme: 'tls://',
    open: async ({ url, credentials, ...values }, parts) => {
      if (url === undefined) throw new Error('NATS_URL is not set');
      const [{ openNats }, { openStores }] = await Promise.all([
        import('../sync/nats/engine.ts'),
        import('../sync/postgres/stores.ts'),
      ]);
      return openNats({ url, credentials, ...values }, parts, await openStores(parts));
    },
  }),
  engine({
    name: 'rabbitmq',
    title: 'RabbitMQ',
    shared: true,
    settings: {
      url: optional(
        'RABBITMQ_URL',
        rabbitUrl,
        'no RabbitMQ',
        'RabbitMQ 3.10 or newer. It carries publications from node to node; the log, tickets, limits and presence stay in' +
          ' the database, which all nodes must share.',
      ),
      tlsCa: optional(
        'RABBITMQ_TLS_CA',
        certificates,
        'the authorities that the operating system trusts',
        'Certificates of the authorities that may sign the certificate of RabbitMQ, for a `RABBITMQ_URL` with TLS.',
      ),
    },
    url: 'url',
    tlsScheme: 'amqps://',
    open: async ({ url, tlsCa }, parts) => {
      if (url === undefined) throw new Error('RABBITMQ_URL is not set');
      const [{ openPostgres }, { rabbitBus }] = await Promise.all([
        import('../sync/postgres/engine.ts'),
        import('../sync/rabbitmq/engine.ts'),
      ]);
      return openPostgres(parts, rabbitBus({ url, tlsCa }, parts));
    },
  }),
  engine({
    name: 'kafka',
    title: 'Kafka',
    shared: true,
    settings: {
      url: optional(
        'KAFKA_URL',
        kafkaUrl,
        'no Kafka',
        'Kafka 4. It carries publications from node to node; the log, tickets, limits and presence stay in the database,' +
          ' which all nodes must share. A user logs in with `PLAIN`, or as `?sasl=scram-sha-256` or' +
          ' `?sasl=scram-sha-512` says.',
      ),
      tlsCa: optional(
        'KAFKA_TLS_CA',
        certificates,
        'the authorities that the operating system trusts',
        'Certificates of the authorities that may sign the certificates of Kafka, for a `KAFKA_URL` with TLS.',
      ),
    },
    url: 'url',
    tlsScheme: 'kafka+ssl://',
    open: async ({ url, tlsCa }, parts) => {
      if (url === undefined) throw new Error('KAFKA_URL is not set');
      const [{ openPostgres }, { kafkaBus }] = await Promise.all([
        import('../sync/postgres/engine.ts'),
        import('../sync/kafka/engine.ts'),
      ]);
      return openPostgres(parts, kafkaBus({ url, tlsCa }, parts));
    },
  }),
  engine({
    name: 'memory',
    shared: false,
    settings: {
      historyBytesMax: defaulted(
        'HISTORY_BYTES_MAX',
        wholeNumber(mebibyte, 1_024 * 1_024 * mebibyte),
        String(256 * mebibyte),
        'Bytes of history that `SYNC=memory` keeps over all channels. The oldest go first.',
      ),
    },
    open: async (values, parts) => (await import('../sync/memory/engine.ts')).openMemory(values, parts),
  }),
];
