// One life of this node's connections to Kafka: it reads the only partition of a topic from its end on, and sends there.
// It ends for good with the first failure; whoever holds it opens another one, which reads from the end again.
//
// No group of consumers: each node reads everything, and nobody keeps its place. The driver's own repetitions are off,
// since a connection that was made again behind our back would hide that messages were lost.

import { Consumer, Producer } from '@platformatic/kafka';
import { endClients } from '../../kafka/end.ts';
import { KafkaFailure } from '../../kafka/failure.ts';
import { hearErrors, kafkaOptions } from '../../kafka/options.ts';
import type { KafkaTarget } from '../../kafka/target.ts';
import type { Clock } from '../../time/clock.ts';
import { KafkaSender } from './sender.ts';
import { ensureTopic } from './topic.ts';

export interface KafkaLineOptions {
  readonly target: KafkaTarget;
  /** As Kafka's own logs and quotas show it. */
  readonly clientId: string;
  readonly topic: string;
  /** Of the records that are sent, and of those that are taken. */
  readonly key: Buffer;
  readonly clock: Clock;
  /** One record. Must not throw. */
  readonly take: (value: Buffer) => void;
}

type Fetched = Awaited<ReturnType<Consumer['fetch']>>;

const fetchWaitMs = 1_000;
const fetchBytesMax = 16 << 20;

export class KafkaLine {
  /** Resolves with the failure that ended it. */
  readonly ended: Promise<KafkaFailure>;
  readonly sender: KafkaSender;
  readonly #options: KafkaLineOptions;
  readonly #consumer: Consumer;
  readonly #producer: Producer;
  readonly #end: (failure: KafkaFailure) => void;
  #isOver = false;

  /** Resolves when it reads and may send. Rejects with a `KafkaFailure`; nothing stays open then. */
  static async open(options: KafkaLineOptions): Promise<KafkaLine> {
    const line = new KafkaLine(options);
    try {
      await line.#begin();
      return line;
    } catch (error) {
      await line.close();
      throw error instanceof KafkaFailure ? error : new KafkaFailure(error, 'Kafka cannot be used');
    }
  }

  private constructor(options: KafkaLineOptions) {
    const base = kafkaOptions(options.target, options.clientId);
    this.#options = options;
    // The driver wants the name of a group, and joins none to fetch.
    this.#consumer = new Consumer({ ...base, groupId: options.topic });
    this.#producer = new Producer(base);
    for (const { connections } of [this.#consumer, this.#producer]) hearErrors(connections);
    const { promise, resolve } = Promise.withResolvers<KafkaFailure>();
    this.ended = promise;
    this.#end = (failure) => {
      this.#isOver = true;
      this.sender.end(failure);
      resolve(failure);
    };
    this.sender = new KafkaSender(this.#producer, options, this.#end);
  }

  drop(reason: string): void {
    if (!this.#isOver) this.#end(new KafkaFailure(new Error(reason), 'The connection to Kafka is given up'));
  }

  /** Never rejects. */
  async close(): Promise<void> {
    this.drop('it is closed');
    await endClients([this.#consumer, this.#producer]);
  }

  async #begin(): Promise<void> {
    const { target, clientId, topic, clock } = this.#options;
    await ensureTopic(kafkaOptions(target, clientId), topic, clock);
    this.#consumer.topics.track(topic);
    const offsets = await this.#consumer.listOffsets({ topics: [topic] });
    const next = offsets.get(topic)?.[0];
    const { topics } = await this.#consumer.metadata({ topics: [topic] });
    const found = topics.get(topic);
    const leader = found?.partitions[0]?.leader;
    if (next === undefined || found === undefined || leader === undefined)
      throw new Error('the topic has no partition');
    void this.#read(found.id, leader, next);
  }

  async #read(topicId: string, node: number, from: bigint): Promise<void> {
    let next = from;
    try {
      while (!this.#isOver) {
        const partition = {
          partition: 0,
          currentLeaderEpoch: -1,
          lastFetchedEpoch: -1,
          partitionMaxBytes: fetchBytesMax,
        };
        const topics = [{ topicId, partitions: [{ ...partition, fetchOffset: next }] }];
        const limits = { minBytes: 1, maxBytes: fetchBytesMax, maxWaitTime: fetchWaitMs };
        next = this.#deliver(await this.#consumer.fetch({ node, topics, ...limits }), next);
      }
    } catch (error) {
      if (!this.#isOver) this.#end(new KafkaFailure(error, 'Kafka could not be read'));
    }
  }

  /** Answers the offset behind the last record. */
  #deliver({ responses }: Fetched, from: bigint): bigint {
    const { key: own, take } = this.#options;
    let next = from;
    for (const batch of responses.flatMap(({ partitions }) => partitions).flatMap(({ records }) => records ?? [])) {
      for (const { offsetDelta, key, value } of batch.records) {
        // A batch comes whole, also where it began before what was asked for.
        const isNew = batch.firstOffset + BigInt(offsetDelta) >= next;
        if (isNew && value !== null && key?.equals(own) === true && !this.#isOver) take(value);
      }
      const end = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n;
      if (end > next) next = end;
    }
    return next;
  }
}
