// The bus over RabbitMQ: one exchange, and a queue of each node that ends with its connection. The log is in the database.
//
//   1. One connection hears and another sends: a server whose memory is full stops reading from those that send.
//   2. Messages carry the log's name as their routing key, so nodes of other logs share the exchange and hear nothing.
//   3. A queue is bounded: for a node that does not keep up the oldest messages are dropped. It finds the hole by the log.
//   4. Every second a canary is sent, and must come back: only that proves the exchange, the binding and the queue.
//   5. After each loss the canary's return is what makes it `connected`: the log is read then, by whoever hears that.

import type { ChannelModel, ConfirmChannel, ConsumeMessage } from 'amqplib';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import { patiently } from '../../time/patiently.ts';
import { BusPulse } from '../bus-pulse.ts';
import type { BusEvents, LogBus, LogName, OwnBusOptions } from '../log-bus.ts';
import { isPassing, RabbitFailure } from '../../rabbitmq/failure.ts';
import { RabbitLine } from '../../rabbitmq/line.ts';
import type { RabbitTarget } from '../../rabbitmq/target.ts';

type Kind = 'log' | 'envelope' | 'canary';

const exchange = 'sobranie';
const queueLimits = { maxLength: 20_000, arguments: { 'x-max-length-bytes': 64 << 20 } };
/** Messages that the server has not confirmed yet. Past it nothing more is given to the driver, which would keep it. */
const unconfirmedBytesMax = 32 << 20;

export class RabbitBus implements LogBus {
  readonly #options: OwnBusOptions<RabbitTarget>;
  readonly #events: BusEvents;
  #hearing = new RabbitLine();
  #sending = new RabbitLine();
  readonly #pulse: BusPulse;
  #key = '';
  #channel: ConfirmChannel | undefined;
  #isBlocked = false;
  #unconfirmedBytes = 0;
  #queues = 0;
  #closed = false;

  constructor(options: OwnBusOptions<RabbitTarget>, events: BusEvents) {
    this.#options = options;
    this.#events = events;
    this.#pulse = new BusPulse({
      name: 'RabbitMQ',
      clock: options.clock,
      events,
      send: (id) => this.#sendCanary(id),
      renew: () => this.#renew(),
    });
  }

  get up(): boolean {
    return this.#pulse.up;
  }

  async start(log: LogName): Promise<void> {
    const { clock, waiting } = this.#options;
    this.#key = keyOf(log);
    try {
      await patiently(() => this.#open(), { mayPass: isPassing, waiting, clock });
      await this.#pulse.start();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  follow(log: LogName): void {
    const key = keyOf(log);
    if (key === this.#key || this.#closed) return;
    this.#key = key;
    this.#hearing.drop('another log is followed');
  }

  tell(notice: string): void {
    // Nobody misses what is dropped: the others look at the log.
    if (this.#isOpen(notice)) this.#publish('log', notice, () => undefined);
  }

  send(envelope: string): Promise<void> {
    if (!this.#isOpen(envelope)) throw new RealtimeError('unavailable', 'RabbitMQ takes no messages now; retry.');
    return new Promise((resolve, reject) => {
      this.#publish('envelope', envelope, (error) => {
        if (error === null) resolve();
        else reject(new Error('RabbitMQ did not take the message', { cause: error }));
      });
    });
  }

  async probe(timeoutMs: number): Promise<void> {
    try {
      await this.#pulse.probe(timeoutMs);
    } catch (error) {
      throw this.#isBlocked ? RabbitFailure.full() : error;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#pulse.stop();
    this.#channel = undefined;
    await Promise.all([this.#hearing.close(), this.#sending.close()]);
  }

  /** Rejects when one of the two connections cannot be had; then none stays open. */
  async #open(): Promise<void> {
    const [hearing, sending] = [(this.#hearing = new RabbitLine()), (this.#sending = new RabbitLine())];
    try {
      await this.#openLines();
    } catch (error) {
      await Promise.all([hearing.close(), sending.close()]);
      throw error;
    }
  }

  async #openLines(): Promise<void> {
    const { target, nodeId } = this.#options;
    const lost = (error: unknown): void => this.#lose(error);
    await this.#hearing.open(target, `sobranie ${nodeId} hears`, {
      prepare: (model) => this.#hear(model),
      lost,
      blocked: () => undefined,
    });
    await this.#sending.open(target, `sobranie ${nodeId} sends`, {
      prepare: (model) => this.#prepareSending(model),
      lost: (error) => {
        this.#channel = undefined;
        lost(error);
      },
      blocked: (isBlocked) => (this.#isBlocked = isBlocked),
    });
  }

  async #hear(model: ChannelModel): Promise<void> {
    const channel = await model.createChannel();
    channel.on('error', (error) => this.#lose(error));
    await channel.assertExchange(exchange, 'direct', { durable: false });
    // The queue of a connection that is half open is not free yet, so each has a name of its own.
    const queue = `sobranie.${this.#options.nodeId}.${++this.#queues}`;
    await channel.assertQueue(queue, { exclusive: true, durable: false, autoDelete: true, ...queueLimits });
    const key = this.#key;
    await channel.bindQueue(queue, exchange, key);
    const take = (message: ConsumeMessage | null): void => {
      if (message === null) this.#hearing.drop('the queue was deleted');
      else if (key === this.#key && !this.#closed) this.#take(message);
    };
    await channel.consume(queue, take, { noAck: true });
  }

  async #prepareSending(model: ChannelModel): Promise<void> {
    const channel = await model.createConfirmChannel();
    channel.on('error', (error) => this.#lose(error));
    channel.on('close', () => {
      if (this.#channel !== channel) return;
      this.#channel = undefined;
      this.#sending.drop('the channel was closed');
    });
    await channel.assertExchange(exchange, 'direct', { durable: false });
    this.#unconfirmedBytes = 0;
    this.#channel = channel;
  }

  #take({ content, properties }: ConsumeMessage): void {
    const kind = properties.type as Kind;
    const isOwn = properties.appId === this.#options.nodeId;
    if (kind === 'canary' && isOwn) this.#pulse.heard(Number(content.toString()));
    if (isOwn) return;
    if (kind === 'canary') this.#events.peer(String(properties.appId));
    else if (kind === 'log') this.#events.appended(content.toString());
    else if (kind === 'envelope') this.#events.envelope(content.toString());
  }

  #isOpen(text: string): boolean {
    const isFull = this.#unconfirmedBytes + text.length > unconfirmedBytesMax;
    return this.#channel !== undefined && !this.#isBlocked && !isFull;
  }

  #publish(kind: Kind, text: string, confirmed: (error: unknown) => void): void {
    const channel = this.#channel;
    if (channel === undefined) return;
    const content = Buffer.from(text);
    this.#unconfirmedBytes += content.length;
    const done = (error: unknown): void => {
      if (this.#channel === channel) this.#unconfirmedBytes -= content.length;
      confirmed(error);
    };
    try {
      channel.publish(exchange, this.#key, content, { type: kind, appId: this.#options.nodeId }, done);
    } catch (error) {
      // The driver throws on a channel that has just ended.
      done(error);
    }
  }

  #sendCanary(id: number): boolean {
    const isOpen = this.#isOpen('');
    if (isOpen) this.#publish('canary', String(id), () => undefined);
    return isOpen;
  }

  /** A silence that the connections' own heartbeats did not explain. One whose memory is full brings none, and is well. */
  #renew(): void {
    if (this.#isBlocked) return;
    for (const line of [this.#hearing, this.#sending]) line.drop('nothing was heard');
  }

  #lose(error: unknown): void {
    if (!this.#closed) this.#pulse.lose(error);
  }
}

/** The topic is a secret of the database, so what names the log on the bus does not show it. */
function keyOf({ topic, epoch }: LogName): string {
  return new Bun.CryptoHasher('sha256').update(`${topic} ${epoch}`).digest('hex').slice(0, 32);
}
