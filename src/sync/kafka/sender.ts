// Sends records to a topic in the order in which they are given, one request at a time: what comes meanwhile travels
// with the next one. So a slow Kafka gets larger requests, not more of them.

import { ProduceAcks, type Producer } from '@platformatic/kafka';
import { isTooLarge, KafkaFailure } from '../../kafka/failure.ts';

export interface KafkaPlace {
  readonly topic: string;
  readonly key: Buffer;
}

interface Waiting {
  readonly value: Buffer;
  readonly done: (error: KafkaFailure | null) => void;
}

/** A topic that was made by hand takes no more in one request by default; a larger record travels alone. */
const batchBytesMax = 900_000;
/** What waits. Past it nothing more is taken. */
const waitingBytesMax = 32 << 20;

export class KafkaSender {
  readonly #producer: Producer;
  readonly #place: KafkaPlace;
  readonly #lost: (failure: KafkaFailure) => void;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #sending = false;
  #failure: KafkaFailure | undefined;

  /** `lost`: the connection is of no use any more. */
  constructor(producer: Producer, place: KafkaPlace, lost: (failure: KafkaFailure) => void) {
    this.#producer = producer;
    this.#place = place;
    this.#lost = lost;
  }

  hasRoom(bytes: number): boolean {
    return this.#failure === undefined && this.#waitingBytes + bytes <= waitingBytesMax;
  }

  /** `done` is called once: the leader of the partition has it, or why not. */
  send(value: Buffer, done: Waiting['done']): void {
    if (this.#failure !== undefined) return done(this.#failure);
    this.#waiting.push({ value, done });
    this.#waitingBytes += value.length;
    if (!this.#sending) void this.#sendWaiting();
  }

  /** What waits is not sent any more. */
  end(failure: KafkaFailure): void {
    this.#failure ??= failure;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { done } of waiting) done(failure);
  }

  async #sendWaiting(): Promise<void> {
    this.#sending = true;
    // All that comes in this turn of the loop travels together.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const batch = this.#take();
      const failure = await this.#produce(batch);
      for (const { value, done } of batch) {
        this.#waitingBytes -= value.length;
        done(failure);
      }
      if (failure === null || isTooLarge(failure)) continue;
      this.end(failure);
      this.#lost(failure);
    }
    this.#sending = false;
  }

  #take(): Waiting[] {
    let [count, bytes] = [0, 0];
    for (const { value } of this.#waiting) {
      if (count > 0 && bytes + value.length > batchBytesMax) break;
      count++;
      bytes += value.length;
    }
    return this.#waiting.splice(0, count);
  }

  async #produce(batch: readonly Waiting[]): Promise<KafkaFailure | null> {
    const { topic, key } = this.#place;
    try {
      // A copy that its leader alone has may be lost with it. The log has it all the same.
      const acks = ProduceAcks.LEADER;
      await this.#producer.send({ acks, messages: batch.map(({ value }) => ({ topic, partition: 0, key, value })) });
      return null;
    } catch (error) {
      return new KafkaFailure(error, 'Kafka did not take messages');
    }
  }
}
