// A queue of RabbitMQ as a source. It is read with an exclusive consumer, so no other one takes of its messages and their
// order stands. A message leaves the queue when it was taken. A quorum queue lets others in all the same, such as a reader
// whose node stands still: then nothing is read of it before they are gone.
//
// A queue numbers nothing. So the mark is a list of what the last batch held: a digest of each message's id, or of the whole
// message where it has none. The next batch is taken only after RabbitMQ has the acknowledgement of the one before. So what
// it brings again is at most that batch, and it says `redelivered`.

import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib';
import { RabbitFailure } from '../rabbitmq/failure.ts';
import { RabbitLine } from '../rabbitmq/line.ts';
import type { RabbitTarget } from '../rabbitmq/target.ts';
import type { RabbitSource } from '../rules/source-config.ts';
import { within } from '../time/within.ts';
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

/** Of a message's properties; who sent it chose their values. */
interface Properties {
  readonly messageId: unknown;
  readonly headers: unknown;
  readonly timestamp: unknown;
  readonly correlationId: unknown;
  readonly type: unknown;
}

/** A quorum queue counts in them how often it has brought a message. */
const headersOfQueue = new Set(['x-delivery-count', 'x-acquired-count']);
const answerMsMax = 10_000;
const digestLength = 22;

export function rabbitBroker(options: RabbitSource, target: RabbitTarget, parts: BrokerParts): SourceBroker {
  return {
    ...onePartition,
    open: (_partition, mark) => begun(new RabbitReader(options.queue, mark), (reader) => reader.begin(target, parts)),
  };
}

class RabbitReader implements SourceReader {
  readonly #queue: string;
  readonly #line = new RabbitLine();
  readonly #buffer = new PushBuffer<ConsumeMessage>(batchMax);
  /** What was taken and may come again; each as often as it was there. */
  readonly #before = new Map<string, number>();
  #channel: Channel | undefined;
  #last: ConsumeMessage | undefined;
  readonly begins = undefined;

  constructor(queue: string, mark: string | undefined) {
    this.#queue = queue;
    for (const digest of mark?.split(' ') ?? []) this.#before.set(digest, (this.#before.get(digest) ?? 0) + 1);
  }

  async begin(target: RabbitTarget, { client }: BrokerParts): Promise<void> {
    await this.#line.open(target, client, {
      prepare: (model) => this.#prepare(model),
      lost: (error) => this.#buffer.fail(error),
      blocked: () => undefined,
    });
  }

  async next(): Promise<Batch> {
    const taken = await this.#buffer.take();
    this.#last = taken.at(-1);
    const digests = taken.map(digestOf);
    const fresh = taken.filter((message, place) => !this.#wasTaken(message, digests[place] ?? ''));
    // What was taken and has not come again yet may come again to the next reader.
    const outstanding = Array.from(this.#before, ([digest, count]) => Array.from({ length: count }, () => digest));
    const mark = [...digests, ...outstanding.flat()].join(' ');
    return { messages: fresh.map(messageOf), repeated: taken.length - fresh.length, mark };
  }

  async commit(): Promise<void> {
    if (this.#channel === undefined || this.#last === undefined) throw new Error('the reader of RabbitMQ is closed');
    this.#channel.ack(this.#last, true);
    // Answered after the acknowledgement was dealt with, which itself has no answer.
    await this.#count(this.#channel, 1);
  }

  async lag(): Promise<number | undefined> {
    return this.#channel === undefined ? undefined : (await this.#count(this.#channel)) + this.#buffer.size;
  }

  async close(): Promise<void> {
    this.#buffer.fail(new Error('the reader of RabbitMQ is closed'));
    await this.#line.close();
  }

  async #prepare(model: ChannelModel): Promise<void> {
    // The line comes back by itself. The messages do not: this reader has ended, and another one begins at the mark.
    if (this.#channel !== undefined) throw new Error('the connection to RabbitMQ was lost');
    const channel = await model.createChannel();
    this.#channel = channel;
    channel.on('error', (error) => this.#buffer.fail(error));
    channel.on('close', () => this.#buffer.fail(new Error('RabbitMQ closed the channel')));
    await this.#count(channel, 0);
    await channel.prefetch(batchMax);
    const take = (message: ConsumeMessage | null): void => {
      if (message === null) this.#buffer.fail(new Error(`the queue ${this.#queue} was deleted`));
      else this.#buffer.add(message);
    };
    await channel.consume(this.#queue, take, { exclusive: true });
  }

  /**
   * Messages that RabbitMQ has sent to nobody yet. Rejects when there is no such queue, or when more than `consumersMax`
   * read it.
   */
  async #count(channel: Channel, consumersMax = Infinity): Promise<number> {
    const answer = within(channel.checkQueue(this.#queue), answerMsMax, 'the answer of RabbitMQ');
    const { messageCount, consumerCount } = await answer;
    if (consumerCount > consumersMax) {
      throw RabbitFailure.of(
        new Error(`the queue ${this.#queue} is read by another consumer, and not in exclusive use`),
      );
    }
    return messageCount;
  }

  /** RabbitMQ has brought it before, and so has the batch that was taken last. */
  #wasTaken({ fields }: ConsumeMessage, digest: string): boolean {
    // Those that come again come first.
    if (!fields.redelivered) this.#before.clear();
    const count = this.#before.get(digest) ?? 0;
    if (count > 0) this.#before.set(digest, count - 1);
    return count > 0;
  }
}

function digestOf({ content, properties, fields }: ConsumeMessage): string {
  const hasher = new Bun.CryptoHasher('sha256');
  const { messageId, headers, timestamp, correlationId, type }: Properties = properties;
  if (typeof messageId === 'string' && messageId !== '') hasher.update(`id ${messageId}`);
  else {
    const given = Object.entries(headers ?? {}).filter(([name]) => !headersOfQueue.has(name));
    hasher.update(JSON.stringify([fields.exchange, fields.routingKey, given, timestamp, correlationId, type]));
    hasher.update(content);
  }
  return hasher.digest('base64url').slice(0, digestLength);
}

function messageOf({ content, properties, fields }: ConsumeMessage): RawMessage {
  const { headers, messageId, timestamp }: Properties = properties;
  const given: readonly (readonly [string, unknown])[] = Object.entries(headers ?? {});
  return {
    topic: fields.routingKey,
    key: null,
    headers: Object.fromEntries(
      given.map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)]),
    ),
    body: content,
    // In seconds.
    at: typeof timestamp === 'number' ? timestamp * 1_000 : undefined,
    position: typeof messageId === 'string' && messageId !== '' ? messageId : `delivery ${fields.deliveryTag}`,
  };
}
