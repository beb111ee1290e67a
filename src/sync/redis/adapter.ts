// The sync adapter over Redis: a stream and a head per recoverable channel, and one Lua script that numbers, appends and
// publishes in one step. Pub/Sub reaches the nodes that have subscribers; in a cluster it is sharded.
//
//   publish      recoverable: the script; ephemeral: PUBLISH, marked with the node that has delivered it already
//   subscribe    SUBSCRIBE first, then the head: every publication after it will be heard
//   reconnect    Pub/Sub forgets what was missed, so all channels are subscribed again and the hub gets their heads
//   canary       each node publishes to itself; silence for too long means a deaf connection, which is rebuilt
//
// The connections, and what keeps them alive, are in `connection.ts`.

import type { SyncObserver } from '../../core/observer.ts';
import { Publication } from '../../core/publication.ts';
import {
  pageBytesMax,
  type Appended,
  type HistoryPage,
  type HistoryQuery,
  type Outgoing,
  type SyncAdapter,
  type SyncEvents,
  type SyncHealth,
  type SyncTraits,
} from '../../core/sync-adapter.ts';
import type { Position } from '../../protocol/position.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import { withoutArguments } from '../../redis/error.ts';
import type { ChannelRule } from '../../rules/rules.ts';
import { isPassingFailure, patiently } from '../../time/patiently.ts';
import { RedisConnection, type RedisConnectionOptions } from './connection.ts';
import { headOf, readPage, type ReadReply } from './history.ts';
import { pack, unpack } from './packing.ts';
import { decodeSender, encodeCarried, encodeSender, termEnded } from './scripts.ts';

/** `prefix` begins every key and topic, so that several servers can share one Redis. */
export interface RedisAdapterOptions extends RedisConnectionOptions {
  /** Data of so many characters and more are compressed; 0, as by default, compresses none. */
  readonly compressFrom?: number;
  readonly observer: SyncObserver;
  readonly log: (message: string, error: unknown) => void;
}

/** What hears of messages that are no publications, and travel over the same connections. */
export interface Beside {
  message(channel: string, message: string): void;
  /** Messages may have been missed, or the server's data may not be what they were. */
  interrupted(): void;
}

interface Subscribed {
  readonly channel: string;
  readonly rule: ChannelRule;
}

export class RedisAdapter implements SyncAdapter {
  readonly name = 'redis';
  readonly traits: SyncTraits = { shared: true, durable: true };
  readonly #options: RedisAdapterOptions;
  readonly #compressFrom: number;
  /** Begins the topics. Databases of one server share its Pub/Sub, so the number tells them apart. */
  readonly #topicStart: string;
  /** By topic, since a message brings that and nothing else. */
  readonly #subscribed = new Map<string, Subscribed>();
  readonly #channelsBeside = new Map<string, string>();
  #beside: Beside | undefined;
  #connection: RedisConnection | undefined;
  #events: SyncEvents | undefined;
  #closed = false;
  #generation = 0;

  constructor(options: RedisAdapterOptions) {
    this.#options = options;
    this.#compressFrom = options.compressFrom ?? 0;
    const { database } = options.target;
    this.#topicStart = `${options.prefix}${database === 0 ? '' : `/${database}`}`;
  }

  async start(events: SyncEvents): Promise<void> {
    this.#events = events;
    const connection = await patiently(() => this.#open(), {
      mayPass: isPassingFailure,
      waiting: (error) => this.#options.log('waiting for Redis', withoutArguments(error)),
      clock: this.#options.clock,
    });
    if (this.#closed) connection.close();
    else this.#connection = connection;
    if (this.#generation > 0) connection.followDatabase(this.#generation);
    this.#tellHealth();
  }

  #open(): Promise<RedisConnection> {
    return RedisConnection.open(this.#options, {
      message: (topic, message) => this.#message(topic, message),
      loggedChannels: () => this.#loggedChannels(),
      readHead: (channel) => this.#readHead(channel),
      readHeads: (channels) => this.#readHeads(channels),
      head: (channel, head) => this.#events?.head(channel, head),
      upChanged: () => this.#tellHealth(),
      reconnected: () => {
        this.#options.observer.reconnected(this.name);
        this.#beside?.interrupted();
      },
      dataChanged: () => this.#beside?.interrupted(),
      failed: (error) => this.#failed(error),
    });
  }

  /** The database whose changes are carried has this generation. */
  follow(generation: number): void {
    if (generation <= this.#generation) return;
    this.#generation = generation;
    this.#connection?.followDatabase(generation);
  }

  publish(outgoing: Outgoing): Promise<Appended | undefined> {
    this.#options.observer.message(this.name, 'out', 1);
    return this.#available(outgoing.rule.recoverable ? this.#append(outgoing) : this.#sendEphemeral(outgoing));
  }

  async subscribe(channel: string, rule: ChannelRule): Promise<Position | undefined> {
    this.#subscribed.set(this.#topicOf(channel), { channel, rule });
    return this.#available(this.#subscribe(channel, rule));
  }

  unsubscribe(channel: string): void {
    const topic = this.#topicOf(channel);
    this.#subscribed.delete(topic);
    this.#connection?.subscriptions.remove(topic);
  }

  history(channel: string, rule: ChannelRule, query: HistoryQuery, internal = false): Promise<HistoryPage> {
    return this.#available(this.#history(channel, rule, query, internal));
  }

  health(): SyncHealth {
    return { up: !this.#closed && this.#connection?.up === true };
  }

  async probe(timeoutMs: number): Promise<void> {
    await this.#live.probe(timeoutMs);
  }

  // What travels beside publications, over the same connections: changes of presence

  hearBeside(beside: Beside): void {
    this.#beside = beside;
  }

  /** Resolves when messages of the channel's second topic arrive. */
  async listenBeside(channel: string): Promise<void> {
    const topic = this.topicBeside(channel);
    this.#channelsBeside.set(topic, channel);
    await this.#available(Promise.resolve(this.#live.subscriptions.add(topic)));
  }

  leaveBeside(channel: string): void {
    const topic = this.topicBeside(channel);
    this.#channelsBeside.delete(topic);
    this.#connection?.subscriptions.remove(topic);
  }

  topicBeside(channel: string): string {
    return `${this.#topicStart}:p:{${channel}}`;
  }

  /** For scripts. Throws `unavailable` while there is no connection. */
  get publishCommand(): 'PUBLISH' | 'SPUBLISH' {
    return this.#live.commands.publishCommand;
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#events = undefined;
    this.#connection?.close();
    this.#options.observer.up(this.name, false);
    return Promise.resolve();
  }

  // Commands

  async #append({ channel, rule, data, from, except, key, xid, carried }: Outgoing): Promise<Appended> {
    const head = this.#key('m', channel);
    const [epoch, offset, isRepeat] = await this.#live.commands.append(
      head,
      this.#key('s', channel),
      // In a cluster a key that is not there holds up the script for as long as its slot moves.
      key === undefined || carried !== undefined ? head : `${this.#key('k', channel)}:${key}`,
      pack(data, this.#compressFrom),
      encodeSender({ from, except, xid }),
      rule.historySize,
      rule.historySeconds * 1_000,
      this.#live.commands.publishCommand,
      this.#topicOf(channel),
      encodeCarried(carried),
    );
    return { epoch, offset: Number(offset), ...(isRepeat === 1 ? { isRepeat: true } : {}) };
  }

  async #sendEphemeral({ channel, data, at, from, except }: Outgoing): Promise<undefined> {
    const head = `- 0 ${at} ${this.#options.nodeId}`;
    const packed = pack(data, this.#compressFrom);
    await this.#live.commands.publish(this.#topicOf(channel), `${head}\n${encodeSender({ from, except })}\n${packed}`);
    return undefined;
  }

  async #subscribe(channel: string, rule: ChannelRule): Promise<Position | undefined> {
    await this.#live.subscriptions.add(this.#topicOf(channel));
    return rule.recoverable ? this.#readHead(channel) : undefined;
  }

  async #readHead(channel: string): Promise<Position> {
    return headOf(await this.#read(channel, '', 0, 0, 0, 0));
  }

  async #readHeads(channels: readonly string[]): Promise<readonly Position[]> {
    const keys = channels.flatMap((channel) => [this.#key('m', channel), this.#key('s', channel)]);
    const heads = await this.#live.reads.heads(keys);
    return heads.map(([epoch, offset]) => ({ epoch, offset: Number(offset) }));
  }

  async #history(channel: string, rule: ChannelRule, query: HistoryQuery, internal: boolean): Promise<HistoryPage> {
    const { since, limit, bytesMax = pageBytesMax } = query;
    const within = internal ? [0, 0] : [rule.historySize, rule.historySeconds * 1_000];
    const count = since === undefined ? limit + 1 : limit;
    const reply = await this.#read(channel, since?.offset ?? '', count, bytesMax, ...within);
    return readPage(channel, reply, { ...query, bytesMax });
  }

  #read(channel: string, ...range: (string | number)[]): Promise<ReadReply> {
    return this.#live.reads.read(this.#key('m', channel), this.#key('s', channel), ...range);
  }

  /** Whatever the driver rejects with becomes `unavailable`. */
  async #available<Value>(answer: Promise<Value>): Promise<Value> {
    try {
      return await answer;
    } catch (cause) {
      this.#options.observer.failed(this.name);
      const ended = termEnded(cause);
      if (ended !== undefined) throw ended;
      throw cause instanceof RealtimeError ? cause : new RealtimeError('unavailable', undefined, { cause });
    }
  }

  // Messages

  #message(topic: string, message: string): boolean {
    const subscribed = this.#subscribed.get(topic);
    if (subscribed !== undefined) {
      this.#publication(subscribed, message);
      return true;
    }
    const channel = this.#channelsBeside.get(topic);
    if (channel !== undefined) this.#messageBeside(channel, message);
    return channel !== undefined;
  }

  #messageBeside(channel: string, message: string): void {
    try {
      this.#beside?.message(channel, message);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** One line of head words, one of the sender, then the data: from the script, or from a node's `#sendEphemeral`. */
  #publication({ channel, rule }: Subscribed, message: string): void {
    const headEnd = message.indexOf('\n');
    const senderEnd = message.indexOf('\n', headEnd + 1);
    if (headEnd === -1 || senderEnd === -1) return;
    const [epoch = '', offset = '0', at = '0', node] = message.slice(0, headEnd).split(' ');
    const isEphemeral = epoch === '-';
    // The rule may have changed with a new configuration while another node still has the old one.
    if (isEphemeral === rule.recoverable || node === this.#options.nodeId) return;
    const { observer, clock } = this.#options;
    observer.message(this.name, 'in', 1);
    observer.delay(this.name, Math.max(0, clock.now() - Number(at)) / 1_000);
    try {
      const sender = decodeSender(message.slice(headEnd + 1, senderEnd));
      this.#events?.publication(
        new Publication({
          channel,
          offset: Number(offset),
          epoch: isEphemeral ? '' : epoch,
          data: unpack(message.slice(senderEnd + 1)),
          at: Number(at),
          ...sender,
        }),
      );
    } catch (error) {
      this.#failed(error);
    }
  }

  // Connection

  get #live(): RedisConnection {
    if (this.#connection === undefined || this.#closed) throw new RealtimeError('unavailable');
    return this.#connection;
  }

  #loggedChannels(): readonly string[] {
    return [...this.#subscribed.values()].filter(({ rule }) => rule.recoverable).map(({ channel }) => channel);
  }

  #tellHealth(): void {
    if (!this.#closed) this.#options.observer.up(this.name, this.health().up);
  }

  #failed(error: unknown): void {
    this.#options.observer.failed(this.name);
    this.#options.log('Redis or a connection to it failed', withoutArguments(error));
  }

  #key(kind: string, channel: string): string {
    return `${this.#options.prefix}:${kind}:{${channel}}`;
  }

  #topicOf(channel: string): string {
    return `${this.#topicStart}:c:{${channel}}`;
  }
}
