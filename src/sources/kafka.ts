// A topic of Kafka as a source: each of its partitions by itself. A partition is fetched from the mark on. No consumer joins
// a group: a lease of the database says which node reads a partition, and its loss is known sooner than that of a member.
// The group that the source names gets the offsets, for tools that show lag.
//
// A mark is `<offset> <topic>`: the offset of the next message, and the topic's id, since a topic that is made anew counts
// from 0 again.

import { Admin, Consumer, type KafkaRecord } from '@platformatic/kafka';
import { KafkaFailure } from '../kafka/failure.ts';
import { hearErrors, kafkaOptions } from '../kafka/options.ts';
import type { KafkaTarget } from '../kafka/target.ts';
import type { KafkaSource } from '../rules/source-config.ts';
import { isDoneWithin } from '../time/within.ts';
import {
  batchBytesMax,
  batchMax,
  begun,
  type Batch,
  type BrokerParts,
  type RawMessage,
  type SourceBroker,
  type SourceReader,
} from './source.ts';

type Fetched = Awaited<ReturnType<Consumer['fetch']>>['responses'][number]['partitions'][number];

/** Bits of a batch's attributes. */
const [isTransactional, isControl] = [1 << 4, 1 << 5];
const committedOnly = 1;
const [earliest, latest] = [-2n, -1n];
const fetchWaitMs = 1_000;
const commitEveryMs = 1_000;
const closeMsMax = 1_000;
const groupDefault = 'sobranie';

export function kafkaBroker(options: KafkaSource, target: KafkaTarget, { client, warn }: BrokerParts): SourceBroker {
  const { topic, group = groupDefault } = options;
  const base = kafkaOptions(target, client.replaceAll(/[^\w.-]/g, '-'));
  let admin: Admin | undefined;
  const opened = (): Admin => {
    if (admin === undefined || admin.closed) {
      admin = new Admin(base);
      hearErrors(admin.connections);
    }
    return admin;
  };
  const commit = (partition: number, offset: bigint): Promise<void> => {
    const topics = [{ name: topic, partitionOffsets: [{ partition, offset }] }];
    return opened().alterConsumerGroupOffsets({ groupId: group, topics });
  };
  return {
    async partitions() {
      try {
        const { topics } = await opened().metadata({ topics: [topic], forceUpdate: true });
        return Array.from({ length: topics.get(topic)?.partitionsCount ?? 0 }, (_, number) => String(number));
      } catch (error) {
        throw new KafkaFailure(error, `Kafka does not tell of the topic ${topic}`);
      }
    },
    async open(partition, mark) {
      const consumer = new Consumer({ ...base, groupId: group });
      hearErrors(consumer.connections);
      const reader = new KafkaReader(consumer, { options, partition: Number(partition), warn, commit });
      try {
        return await begun(reader, () => reader.begin(mark));
      } catch (error) {
        throw new KafkaFailure(error, `The topic ${topic} cannot be read`);
      }
    },
    async close() {
      if (admin !== undefined)
        await isDoneWithin(
          admin.close().catch(() => undefined),
          closeMsMax,
        );
    },
  };
}

interface KafkaReaderParts {
  readonly options: KafkaSource;
  readonly partition: number;
  readonly warn: (message: string) => void;
  readonly commit: (partition: number, offset: bigint) => Promise<void>;
}

class KafkaReader implements SourceReader {
  readonly #consumer: Consumer;
  readonly #parts: KafkaReaderParts;
  #topicId = '';
  #leader = -1;
  /** Of the next fetch. */
  #next = 0n;
  /** Behind the batch that came last. */
  #taken = 0n;
  #committed = -1n;
  #committedAt = 0;
  #isRefused = false;
  /** Fetched and not asked for yet, each with the offset behind it. */
  #fetched: (RawMessage & { readonly end: bigint })[] = [];
  #closed = false;
  begins: string | undefined;

  constructor(consumer: Consumer, parts: KafkaReaderParts) {
    this.#consumer = consumer;
    this.#parts = parts;
  }

  async begin(mark: string | undefined): Promise<void> {
    const { options, partition, warn } = this.#parts;
    const { topic, from } = options;
    this.#consumer.topics.track(topic);
    const { topics } = await this.#consumer.metadata({ topics: [topic], forceUpdate: true });
    const found = topics.get(topic);
    this.#topicId = found?.id ?? '';
    this.#leader = found?.partitions[partition]?.leader ?? -1;
    const [first, end] = [await this.#offset(earliest), await this.#offset(latest)];
    const [text = '', topicId] = mark?.split(' ') ?? [];
    this.#next = mark === undefined && from === 'end' ? end : first;
    if (mark !== undefined && topicId !== this.#topicId) {
      warn(`the topic ${topic} was made anew: partition ${partition} is read from its beginning`);
    } else if (mark !== undefined) {
      this.#next = this.#within(BigInt(text), first, end);
    }
    this.#taken = this.#next;
    if (mark !== this.#mark) this.begins = this.#mark;
  }

  async next(): Promise<Batch> {
    while (this.#fetched.length === 0) {
      try {
        await this.#fetch();
      } catch (error) {
        throw new KafkaFailure(error, `The topic ${this.#parts.options.topic} could not be read`);
      }
    }
    const messages = this.#fetched.splice(0, batchMax);
    this.#taken = messages.at(-1)?.end ?? this.#taken;
    return { messages, repeated: 0, mark: this.#mark };
  }

  async commit(): Promise<void> {
    const now = performance.now();
    if (now - this.#committedAt < commitEveryMs && this.#fetched.length > 0) return;
    this.#committedAt = now;
    await this.#commit();
  }

  async lag(): Promise<number | undefined> {
    const end = await this.#offset(latest);
    // What was committed at the end, so that a source that rests shows no lag in Kafka's own tools.
    if (this.#committed < this.#taken) await this.#commit();
    return Math.max(0, Number(end - this.#taken));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const sockets = Array.from(this.#consumer.connections, ([, { socket }]) => socket);
    const isDone = await isDoneWithin(this.#consumer.close(true), closeMsMax).catch(() => false);
    if (!isDone) for (const socket of sockets) socket.destroy();
  }

  get #mark(): string {
    return `${this.#taken} ${this.#topicId}`;
  }

  /** A mark that lies where the partition has nothing was lost by Kafka, or is not kept any more. */
  #within(offset: bigint, first: bigint, end: bigint): bigint {
    const { options, partition, warn } = this.#parts;
    if (offset < first) {
      warn(`${first - offset} messages of ${options.topic}, partition ${partition}, are gone before they were read`);
      return first;
    }
    if (offset > end) {
      warn(
        `Kafka has lost messages of ${options.topic}, partition ${partition}, that were published: it goes on behind`,
      );
      return end;
    }
    return offset;
  }

  async #offset(timestamp: bigint): Promise<bigint> {
    const { options, partition } = this.#parts;
    const topics = { topics: [options.topic], partitions: { [options.topic]: [partition] } };
    const offsets = await this.#consumer.listOffsets({ ...topics, timestamp, isolationLevel: committedOnly });
    const found = offsets.get(options.topic)?.[partition];
    if (found === undefined) throw new Error(`the topic has no partition ${partition}`);
    return found;
  }

  async #commit(): Promise<void> {
    const offset = this.#taken;
    try {
      await this.#parts.commit(this.#parts.partition, offset);
    } catch (error) {
      // Nothing rests on them: the group may be another's, or a right is missing.
      if (!this.#isRefused)
        this.#parts.warn(new KafkaFailure(error, 'The offsets of the group cannot be told').message);
      this.#isRefused = true;
    }
    this.#committed = offset;
  }

  async #fetch(): Promise<void> {
    const { partition } = this.#parts;
    const from = { partition, currentLeaderEpoch: -1, lastFetchedEpoch: -1, fetchOffset: this.#next };
    const { responses } = await this.#consumer.fetch({
      node: this.#leader,
      topics: [{ topicId: this.#topicId, partitions: [{ ...from, partitionMaxBytes: batchBytesMax }] }],
      minBytes: 1,
      maxBytes: batchBytesMax,
      maxWaitTime: fetchWaitMs,
      isolationLevel: committedOnly,
    });
    for (const { partitions } of responses) for (const each of partitions) this.#keep(each);
  }

  #keep({ records, abortedTransactions }: Fetched): void {
    const start = this.#next;
    const aborted = (abortedTransactions ?? []).toSorted((one, other) => Number(one.firstOffset - other.firstOffset));
    /** Producers whose transaction is under way and will be aborted. */
    const aborting = new Set<bigint>();
    for (const batch of records ?? []) {
      const end = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n;
      while ((aborted[0]?.firstOffset ?? end) < end) aborting.add(aborted.shift()?.producerId ?? -1n);
      if ((batch.attributes & isControl) !== 0) {
        // A control record's key is a version and a kind, 0 for the end of an aborted transaction.
        if (batch.records[0]?.key?.readInt16BE(2) === 0) aborting.delete(batch.producerId);
      } else if ((batch.attributes & isTransactional) === 0 || !aborting.has(batch.producerId)) {
        for (const record of batch.records) {
          const offset = batch.firstOffset + BigInt(record.offsetDelta);
          // A batch comes whole, also where it began before what was asked for.
          if (offset < start) continue;
          const message = this.#messageOf(record, offset, Number(batch.firstTimestamp + record.timestampDelta));
          this.#fetched.push({ ...message, end: offset + 1n });
        }
      }
      if (end > this.#next) this.#next = end;
    }
  }

  #messageOf({ key, value, headers }: KafkaRecord, offset: bigint, at: number): RawMessage {
    const fields = headers.map(([name, text]) => [name?.toString() ?? '', text?.toString() ?? ''] as const);
    return {
      topic: this.#parts.options.topic,
      key: key?.toString() ?? null,
      headers: Object.fromEntries(fields),
      // A tombstone has none, which is no JSON.
      body: value ?? '',
      at,
      position: String(offset),
    };
  }
}
