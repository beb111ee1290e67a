// A stream of JetStream as a source. An ordered consumer reads it from the mark on: the server keeps nothing of this
// reader, and brings messages in the stream's order.
//
// A mark is `<sequence> <created>`: the last message, and when the stream was made, since one that is made anew counts
// from 1 again.

import {
  DeliverPolicy,
  jetstream,
  jetstreamManager,
  type Consumer,
  type ConsumerMessages,
  type JsMsg,
  type StreamInfo,
} from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { connectNats } from '../nats/connect.ts';
import { NatsFailure } from '../nats/failure.ts';
import type { NatsTarget } from '../nats/target.ts';
import type { NatsSource } from '../rules/source-config.ts';
import { PushBuffer } from './buffer.ts';
import {
  batchMax,
  begun,
  onePartition,
  type Batch,
  type BrokerParts,
  type RawMessage,
  type SourceBroker,
  type SourceReader,
} from './source.ts';

const answerMsMax = 5_000;
/** What the driver tells of a consumer that brings nothing any more. */
const ends: ReadonlySet<string> = new Set([
  'stream_not_found',
  'consumer_not_found',
  'consumer_deleted',
  'heartbeats_missed',
]);

export function natsBroker(options: NatsSource, target: NatsTarget, parts: BrokerParts): SourceBroker {
  return {
    ...onePartition,
    async open(_partition, mark) {
      // One that is lost is not made again: the next reader has its own.
      const connection = await connectNats(target, { name: parts.client, reconnect: false });
      try {
        return await begun(new NatsReader(connection, options, parts), (reader) => reader.begin(mark));
      } catch (error) {
        throw new NatsFailure(error);
      }
    },
  };
}

class NatsReader implements SourceReader {
  readonly #connection: NatsConnection;
  readonly #options: NatsSource;
  readonly #parts: BrokerParts;
  readonly #buffer = new PushBuffer<JsMsg>(batchMax);
  #messages: ConsumerMessages | undefined;
  #created = '';
  /** Of the messages that the server has sent to its consumer. */
  #taken = 0;
  #consumer: Consumer | undefined;
  #closed = false;
  begins: string | undefined;

  constructor(connection: NatsConnection, options: NatsSource, parts: BrokerParts) {
    this.#connection = connection;
    this.#options = options;
    this.#parts = parts;
  }

  async begin(mark: string | undefined): Promise<void> {
    const { subject, from } = this.#options;
    const manager = await jetstreamManager(this.#connection, { timeout: answerMsMax });
    // Without a subject there is a stream: the configuration was checked.
    const stream = this.#options.stream ?? (await manager.streams.find(subject ?? ''));
    const info = await manager.streams.info(stream);
    if (info.config.retention !== 'limits') {
      throw new Error(
        `the stream ${stream} deletes what its consumers have taken (retention ${info.config.retention}): a source needs` +
          ' a stream with limits, such as one that has this one as its source',
      );
    }
    this.#created = String(info.created);
    const sequence = this.#sequence(mark, from, info);
    const consumer = await jetstream(this.#connection, { timeout: answerMsMax }).consumers.get(stream, {
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: sequence + 1,
      ...(subject === undefined ? {} : { filter_subjects: subject }),
    });
    this.#consumer = consumer;
    this.#messages = await consumer.consume({ max_messages: batchMax, idle_heartbeat: 2_000 });
    void this.#connection
      .closed()
      .then((error) => this.#buffer.fail(error ?? new Error('the connection to NATS was lost')));
    void this.#pump(this.#messages);
    void this.#watch(this.#messages);
  }

  async next(): Promise<Batch> {
    const taken = await this.#buffer.take();
    const last = taken.at(-1);
    this.#taken = last?.info.deliverySequence ?? 0;
    return { messages: taken.map(messageOf), repeated: 0, mark: `${last?.seq ?? 0} ${this.#created}` };
  }

  /** The server keeps no position of this reader. */
  commit(): Promise<void> {
    return Promise.resolve();
  }

  async lag(): Promise<number | undefined> {
    const info = await this.#consumer?.info();
    if (info === undefined) return undefined;
    // Those that were sent to this reader and that nobody has asked for yet wait too.
    return info.num_pending + Math.max(0, info.delivered.consumer_seq - this.#taken);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#buffer.fail(new Error('the reader of NATS is closed'));
    this.#messages?.stop();
    await this.#connection.close().catch((error: unknown) => this.#buffer.fail(error));
  }

  /** The last message that was taken. */
  #sequence(mark: string | undefined, from: NatsSource['from'], { state, config }: StreamInfo): number {
    const [text = '0', ...created] = mark?.split(' ') ?? [];
    const isAnew = mark !== undefined && created.join(' ') !== this.#created;
    if (mark !== undefined && !isAnew) {
      const sequence = Number(text);
      if (this.#options.subject === undefined && state.first_seq > sequence + 1 && sequence > 0) {
        this.#parts.warn(`${state.first_seq - sequence - 1} messages of ${config.name} are gone before they were read`);
      }
      if (state.last_seq >= sequence) return sequence;
      this.#parts.warn(`${config.name} ends before what was read of it: it is read on from its present end`);
      this.begins = `${state.last_seq} ${this.#created}`;
      return state.last_seq;
    }
    if (isAnew) this.#parts.warn(`the stream ${config.name} was made anew: it is read from its beginning`);
    const sequence = from === 'end' && !isAnew ? state.last_seq : 0;
    this.begins = `${sequence} ${this.#created}`;
    return sequence;
  }

  /** The driver asks the server for more as fast as the messages are taken from it here. */
  async #pump(messages: ConsumerMessages): Promise<void> {
    try {
      for await (const message of messages) await this.#buffer.push(message);
      throw new Error('NATS brings no more messages');
    } catch (error) {
      this.#buffer.fail(error);
    }
  }

  /**
   * The driver goes on for ever where the stream or its leader is gone; a new reader says what is the matter. The consumer
   * is on one server of a cluster: when that one dies, the others know of it and say nothing, so its heartbeats are missed.
   */
  async #watch(messages: ConsumerMessages): Promise<void> {
    for await (const { type } of messages.status()) {
      if (ends.has(type)) this.#buffer.fail(new Error(`NATS: ${type.replaceAll('_', ' ')}`));
    }
  }
}

function messageOf({ subject, headers, data, seq, time }: JsMsg): RawMessage {
  const fields: Record<string, string> = {};
  for (const [name, values] of headers ?? []) fields[name] = values.join(', ');
  return { topic: subject, key: null, headers: fields, body: data, at: time.getTime(), position: String(seq) };
}
