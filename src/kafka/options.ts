// What every client of Kafka is made with: where it leads, as whom it enters, and that it repeats nothing by itself. A
// connection that was made again behind its user's back would hide that something was lost.

import type { BaseOptions, ConnectionPool } from '@platformatic/kafka';
import type { KafkaTarget } from './target.ts';

const connectTimeout = 5_000;
/** Longer than a fetch may wait for records. A connection without an answer for so long is given up. */
const requestTimeout = 6_000;
/** A leader that moved shows as a failure, so nothing is asked again because of its age. */
const metadataMaxAge = 10 * 60_000;

export function kafkaOptions({ brokers, tls, account, tlsCa }: KafkaTarget, clientId: string): BaseOptions {
  return {
    clientId,
    bootstrapBrokers: [...brokers],
    connectTimeout,
    requestTimeout,
    timeout: requestTimeout,
    metadataMaxAge,
    retries: false,
    ...(tls ? { tls: tlsCa === undefined ? {} : { ca: [tlsCa] } } : {}),
    ...(account === undefined ? {} : { sasl: account }),
  };
}

/** An error that nobody hears would end the process, and the driver itself hears only the first one. */
export function hearErrors(pool: ConnectionPool): void {
  pool.on('connecting', ({ connection }) => connection.on('error', () => undefined));
}
