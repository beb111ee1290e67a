// The sync adapter over Redis: a stream and a head per recoverable channel, one Lua script that numbers, appends and
// publishes in one step, and Pub/Sub to reach the nodes that have subscribers.
//
//   two connections   one for commands, which fails at once while Redis is away, and one that listens
//   publish           recoverable: the script; ephemeral: PUBLISH, marked with the node that has delivered it already
//   subscribe         SUBSCRIBE first, then the head: every publication after it will be heard
//   reconnect         Pub/Sub forgets what was missed, so all channels are subscribed anew and their heads told
//   canary            each node publishes to itself; silence for too long means a deaf connection, which is rebuilt

import { Redis } from 'ioredis';
import { randomId, type Clock } from '../core/clock.ts';
import type { SyncObserver } from '../core/observer.ts';
import { Publication } from '../core/publication.ts';
import type { ChannelRule } from '../core/rules.ts';
import type {
  HistoryPage,
  HistoryQuery,
  Outgoing,
  SyncAdapter,
  SyncEvents,
  SyncHealth,
  SyncTraits,
} from '../core/sync-adapter.ts';
import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { RedisCanary } from './redis-canary.ts';
import { readPage, type ReadReply } from './redis-history.ts';
import {
  appendScript,
  decodeSender,
  emptyHeadKeptMs,
  encodeSender,
  headKeptMs,
  readScript,
  splitMessage,
} from './redis-scripts.ts';
import { RedisSubscriptions } from './redis-subscriptions.ts';

export interface RedisAdapterOptions {
  /** `redis://` or `rediss://`, with password and database number if there are any. */
  readonly url: string;
  /** Before every key and channel, so that several servers can share one Redis. */
  readonly prefix: string;
  readonly nodeId: string;
  readonly clock: Clock;
  readonly observer: SyncObserver;
  readonly log: (message: string, error: unknown) => void;
}

/** The scripts as the driver adds them to its client. */
interface Scripted {
  sobranieAppend(...args: (string | number)[]): Promise<[epoch: string, offset: string | number]>;
  sobranieRead(...args: (string | number)[]): Promise<ReadReply>;
}

const answerTimeoutMs = 1_000;
const headsAtOnceMax = 1_000;

export class RedisAdapter implements SyncAdapter {
  readonly name = 'redis';
  readonly traits: SyncTraits = { shared: true, durable: true };
  readonly #options: RedisAdapterOptions;
  readonly #commands: Redis & Scripted;
  readonly #listener: Redis;
  readonly #subscriptions: RedisSubscriptions;
  readonly #canary: RedisCanary;
  readonly #channels = new Map<string, ChannelRule>();
  #events: SyncEvents | undefined;
  #started = false;

  constructor(options: RedisAdapterOptions) {
    this.#options = options;
    const common = {
      lazyConnect: true,
      // A command that waits for a lost connection would be sent before the subscribers are back, or hang.
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      connectTimeout: 5_000,
      keepAlive: 5_000,
      // For ever, with full jitter: all nodes lose Redis in the same instant.
      retryStrategy: (times: number) => options.clock.random() * Math.min(2_000, 50 * 2 ** Math.min(times, 6)),
    };
    const commands = new Redis(options.url, { ...common, commandTimeout: answerTimeoutMs, enableAutoPipelining: true });
    commands.defineCommand('sobranieAppend', { numberOfKeys: 3, lua: appendScript });
    commands.defineCommand('sobranieRead', { numberOfKeys: 2, lua: readScript });
    this.#commands = commands as unknown as Redis & Scripted;
    this.#listener = new Redis(options.url, { ...common, autoResubscribe: false });
    this.#subscriptions = new RedisSubscriptions(this.#listener);
    this.#canary = new RedisCanary({
      topic: `${options.prefix}:n:${options.nodeId}`,
      clock: options.clock,
      commands,
      deaf: () => this.#rebuild(),
    });
    // The driver reconnects by itself; an error without a listener would end the process.
    for (const client of [this.#commands, this.#listener]) client.on('error', (error: unknown) => this.#failed(error));
    this.#listener.on('message', (topic: string, message: string) => this.#heard(topic, message));
    this.#listener.on('ready', () => this.#started && void this.#renew());
    this.#listener.on('close', () => this.#options.observer.up(this.name, false));
  }

  async start(events: SyncEvents): Promise<void> {
    this.#events = events;
    await Promise.all([this.#commands.connect(), this.#listener.connect()]);
    await this.#listener.subscribe(this.#canary.topic);
    this.#started = true;
    this.#canary.start();
    this.#options.observer.up(this.name, true);
  }

  publish(outgoing: Outgoing): Promise<Position | undefined> {
    this.#options.observer.message(this.name, 'out', 1);
    return this.#available(outgoing.rule.recoverable ? this.#append(outgoing) : this.#sendEphemeral(outgoing));
  }

  async subscribe(channel: string, rule: ChannelRule): Promise<Position | undefined> {
    this.#channels.set(channel, rule);
    return this.#available(this.#subscribe(channel, rule));
  }

  unsubscribe(channel: string): void {
    this.#channels.delete(channel);
    this.#subscriptions.remove(this.#topicOf(channel));
  }

  history(channel: string, rule: ChannelRule, query: HistoryQuery, internal = false): Promise<HistoryPage> {
    return this.#available(this.#history(channel, rule, query, internal));
  }

  health(): SyncHealth {
    return { up: this.#started && this.#listener.status === 'ready' && this.#commands.status === 'ready' };
  }

  async probe(timeoutMs: number): Promise<void> {
    await this.#canary.probe(timeoutMs);
  }

  close(): Promise<void> {
    this.#events = undefined;
    this.#started = false;
    this.#canary.close();
    this.#subscriptions.close();
    // Not QUIT: everything that was answered is in Redis, and a Redis that is away would not answer it.
    this.#commands.disconnect();
    this.#listener.disconnect();
    this.#options.observer.up(this.name, false);
    return Promise.resolve();
  }

  // Commands

  async #append({ channel, rule, data, from, except, key }: Outgoing): Promise<Position> {
    const [epoch, offset] = await this.#commands.sobranieAppend(
      this.#key('m', channel),
      this.#key('s', channel),
      `${this.#key('k', channel)}:${key ?? ''}`,
      this.#newEpoch(),
      data,
      encodeSender({ from, except }),
      rule.historySize,
      rule.historySeconds * 1_000,
      Math.max(headKeptMs, rule.historySeconds * 1_000),
      'PUBLISH',
      this.#topicOf(channel),
      key ?? '',
    );
    return { epoch, offset: Number(offset) };
  }

  async #sendEphemeral({ channel, data, at, from, except }: Outgoing): Promise<undefined> {
    const head = `- 0 ${at} ${this.#options.nodeId}`;
    await this.#commands.publish(this.#topicOf(channel), `${head}\n${encodeSender({ from, except })}\n${data}`);
    return undefined;
  }

  async #subscribe(channel: string, rule: ChannelRule): Promise<Position | undefined> {
    await this.#subscriptions.add(this.#topicOf(channel));
    if (!rule.recoverable) return undefined;
    const [epoch, offset] = await this.#read(channel, undefined, 0);
    return { epoch, offset: Number(offset) };
  }

  async #history(
    channel: string,
    rule: ChannelRule,
    { since, limit }: HistoryQuery,
    internal: boolean,
  ): Promise<HistoryPage> {
    // One more than asked tells whether there is more.
    const reply = await this.#read(channel, since?.offset, limit + 1, internal ? 0 : rule.historySize);
    return readPage(channel, reply, internal ? undefined : rule, { since, limit });
  }

  #read(channel: string, after: number | undefined, count: number, size = 0): Promise<ReadReply> {
    const keys = [this.#key('m', channel), this.#key('s', channel)];
    return this.#commands.sobranieRead(...keys, this.#newEpoch(), after ?? '', count, emptyHeadKeptMs, size);
  }

  /** What the driver says becomes `unavailable`, and within its time limit. */
  async #available<Value>(answer: Promise<Value>): Promise<Value> {
    try {
      return await answer;
    } catch (cause) {
      this.#options.observer.failed(this.name);
      throw cause instanceof RealtimeError ? cause : new RealtimeError('unavailable', undefined, { cause });
    }
  }

  // Messages

  #heard(topic: string, message: string): void {
    if (topic === this.#canary.topic) {
      this.#canary.heard(message);
      return;
    }
    const channel = topic.slice(this.#options.prefix.length + 4, -1);
    const rule = this.#channels.get(channel);
    const parts = splitMessage(message);
    if (rule === undefined || parts === undefined) return;
    const [epoch = '', offset = '0', at = '0', node] = parts.head;
    const isEphemeral = epoch === '-';
    // The rule may have changed with a new configuration while another node still has the old one.
    if (isEphemeral === rule.recoverable || node === this.#options.nodeId) return;
    const { observer, clock } = this.#options;
    observer.message(this.name, 'in', 1);
    observer.delay(this.name, Math.max(0, clock.now() - Number(at)) / 1_000);
    try {
      const sender = decodeSender(parts.sender);
      this.#events?.publication(
        new Publication({
          channel,
          offset: Number(offset),
          epoch: isEphemeral ? '' : epoch,
          data: parts.data,
          at: Number(at),
          ...sender,
        }),
      );
    } catch (error) {
      this.#failed(error);
    }
  }

  // Connection

  /** The listening connection is new: everything is subscribed again, then every channel's head is told. */
  async #renew(): Promise<void> {
    const { observer } = this.#options;
    try {
      await this.#listener.subscribe(this.#canary.topic);
      await this.#subscriptions.renew();
      observer.up(this.name, true);
      observer.reconnected(this.name);
      await this.#tellHeads();
    } catch (error) {
      this.#failed(error);
      // Half renewed is deaf on some channels: start over on another connection.
      this.#rebuild();
    }
  }

  async #tellHeads(): Promise<void> {
    const channels = [...this.#channels].filter(([, rule]) => rule.recoverable).map(([channel]) => channel);
    for (let at = 0; at < channels.length; at += headsAtOnceMax) {
      const batch = channels.slice(at, at + headsAtOnceMax);
      const heads = await Promise.all(batch.map((channel) => this.#readWhenReady(channel)));
      heads.forEach(([epoch, offset], index) => {
        const channel = batch[index];
        if (channel !== undefined) this.#events?.head(channel, { epoch, offset: Number(offset) });
      });
    }
  }

  /** The two connections come back one after the other. */
  async #readWhenReady(channel: string): Promise<ReadReply> {
    for (let tries = 0; this.#commands.status !== 'ready' && tries < 100; tries++) await this.#options.clock.sleep(20);
    return this.#read(channel, undefined, 0);
  }

  #rebuild(): void {
    if (this.#started) this.#listener.disconnect(true);
  }

  #failed(error: unknown): void {
    this.#options.observer.failed(this.name);
    this.#options.log('Redis: an error', error);
  }

  #key(kind: string, channel: string): string {
    return `${this.#options.prefix}:${kind}:{${channel}}`;
  }

  #topicOf(channel: string): string {
    return this.#key('c', channel);
  }

  #newEpoch(): string {
    return randomId(this.#options.clock, 6);
  }
}
