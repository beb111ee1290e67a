// The types of `sources` in `realtime.config.ts`: messages of other services' brokers that become publications. What can
// be wrong with them stands in source-faults.ts.

/** A message as the functions of a source get it. */
export interface SourceMessage {
  /** The name of the source. */
  readonly source: string;
  readonly partition: string;
  /** Kafka’s topic, NATS’s subject, RabbitMQ’s routing key, or the key of the Redis stream. */
  readonly topic: string;
  /** Of Kafka; null with others, and where it has none. */
  readonly key: string | null;
  /** With Redis, all fields of the entry. */
  readonly headers: Readonly<Record<string, string>>;
  /** The body. Of a Redis entry: the field that the source names, else all fields as a JSON object of strings. */
  readonly text: string;
  /** The body, parsed. Throws where it is no JSON, and the message is parked. */
  readonly json: unknown;
  /** Unix milliseconds, where the broker tells it. */
  readonly at: number | undefined;
}

/** What all sources have. The functions answer at once; a message with which one throws is parked. */
export interface SourceOptions {
  /** Names it in metrics, in the log, and in the table of positions. Default: its kind and what it reads. */
  readonly name?: string;
  /** Where a message is published: a channel, several, or none, which leaves the message out. */
  readonly channel: string | ((message: SourceMessage) => string | readonly string[] | null | undefined);
  /** What is published, any JSON. Default: the body as it is, which must be JSON. */
  readonly data?: (message: SourceMessage) => unknown;
  /** Where the broker is. Default: the setting of that broker, such as `NATS_URL`. */
  readonly url?: string;
  /** Where to begin when the source is read for the first time. Default: `start`, with the oldest that is there. */
  readonly from?: 'start' | 'end';
}

export interface KafkaSource extends SourceOptions {
  readonly topic: string;
  /** The consumer group whose offsets follow, for tools that show lag. Default: `sobranie`. */
  readonly group?: string;
}

/** A queue that is there. What is in it is read, so it has no `from`. */
export interface RabbitSource extends Omit<SourceOptions, 'from'> {
  readonly queue: string;
}

export interface NatsSource extends SourceOptions {
  /** A stream of JetStream. Default: the one that has the subject. */
  readonly stream?: string;
  /** Of the stream's messages, those of this subject; `*` and `>` stand for any. Default: all. */
  readonly subject?: string;
}

export interface RedisStreamSource extends SourceOptions {
  readonly key: string;
  /** The field of an entry that holds the body. */
  readonly field?: string;
  /** A consumer group whose position follows, for tools that show lag. It is made where it is not there. */
  readonly group?: string;
}

/** One source, under the name of its kind. */
export type SourceConfig =
  | { readonly kafka: KafkaSource }
  | { readonly rabbitmq: RabbitSource }
  | { readonly nats: NatsSource }
  | { readonly redisStream: RedisStreamSource };

/** Named and with its kind as a member, as the server works with it. */
export type NamedSource = { readonly name: string } & (
  | { readonly kind: 'kafka'; readonly options: KafkaSource }
  | { readonly kind: 'rabbitmq'; readonly options: RabbitSource }
  | { readonly kind: 'nats'; readonly options: NatsSource }
  | { readonly kind: 'redisStream'; readonly options: RedisStreamSource }
);

export type SourceKind = NamedSource['kind'];

/** Of a configuration without faults. */
export function namedSources(sources: readonly SourceConfig[] = []): readonly NamedSource[] {
  return sources.map((source) => {
    if ('kafka' in source) return { kind: 'kafka', options: source.kafka, name: nameOf('kafka', source.kafka) };
    if ('rabbitmq' in source) {
      return { kind: 'rabbitmq', options: source.rabbitmq, name: nameOf('rabbitmq', source.rabbitmq) };
    }
    if ('nats' in source) return { kind: 'nats', options: source.nats, name: nameOf('nats', source.nats) };
    return { kind: 'redisStream', options: source.redisStream, name: nameOf('redisStream', source.redisStream) };
  });
}

/** The name that is given, or the kind and what is read. */
export function nameOf(kind: SourceKind, options: Readonly<Record<string, unknown>> | SourceOptions): string {
  if (typeof options.name === 'string') return options.name;
  const { topic, queue, key, stream, subject } = options as Readonly<Record<string, unknown>>;
  const read = [topic, queue, key, stream, subject].filter((part) => typeof part === 'string');
  return `${kind}:${read.join(':')}`.slice(0, sourceNameLengthMax);
}

export const sourceNameLengthMax = 128;
