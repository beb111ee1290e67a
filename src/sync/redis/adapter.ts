// The sync adapter over Redis: a stream and a head per recoverable channel, one Lua script that numbers, appends and
// publishes in one step, and Pub/Sub to reach the nodes that have subscribers; in a cluster, sharded Pub/Sub.
//
//   commands     one connection (`redis-commands.ts`), which fails at once while Redis is away
//   listeners    one, or one to each master of a cluster (`redis-listeners.ts`)
//   publish      recoverable: the script; ephemeral: PUBLISH, marked with the node that has delivered it already
//   subscribe    SUBSCRIBE first, then the head: every publication after it will be heard
//   reconnect    Pub/Sub forgets what was missed, so all channels are subscribed anew and their heads told
//   canary       each node publishes to itself; silence for too long means a deaf connection, which is rebuilt

import type { Clock } from '../../time/clock.ts';
import type { SyncObserver } from '../../core/observer.ts';
import { Publication } from '../../core/publication.ts';
import type { ChannelRule } from '../../rules/rules.ts';
import type {
  HistoryPage,
  HistoryQuery,
  Outgoing,
  SyncAdapter,
  SyncEvents,
  SyncHealth,
  SyncTraits,
} from '../../core/sync-adapter.ts';
import type { Position } from '../../protocol/position.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import { RedisCanary } from './canary.ts';
import { RedisCommands } from './commands.ts';
import { withoutArguments } from '../../redis/error.ts';
import { RedisHeads } from './heads.ts';
import { readPage, type ReadReply } from './history.ts';
import { RedisListeners } from './listeners.ts';
import { decodeSender, encodeSender, splitMessage } from './scripts.ts';
import { RedisSubscriptions } from './subscriptions.ts';
import { redisTarget, type RedisTarget, type RedisTargetOptions } from '../../redis/target.ts';

export interface RedisAdapterOptions extends RedisTargetOptions {
  /** Before every key and channel, so that several servers can share one Redis. */
  readonly prefix: string;
  readonly nodeId: string;
  readonly clock: Clock;
  readonly observer: SyncObserver;
  readonly log: (message: string, error: unknown) => void;
}

/** What there is between start and close. */
interface Connected {
  readonly commands: RedisCommands;
  readonly listeners: RedisListeners;
  readonly subscriptions: RedisSubscriptions;
  readonly canary: RedisCanary;
  readonly heads: RedisHeads;
}

export class RedisAdapter implements SyncAdapter {
  readonly name = 'redis';
  readonly traits: SyncTraits = { shared: true, durable: true };
  readonly #options: RedisAdapterOptions;
  readonly #target: RedisTarget;
  /** Begins the topics. Databases of one server share its Pub/Sub, so the number tells them apart. */
  readonly #topicPrefix: string;
  readonly #channels = new Map<string, ChannelRule>();
  #connected: Connected | undefined;
  #events: SyncEvents | undefined;
  #closed = false;

  /** Throws when the URL is none. */
  constructor(options: RedisAdapterOptions) {
    this.#options = options;
    this.#target = redisTarget(options);
    const { database } = this.#target;
    this.#topicPrefix = `${options.prefix}${database === 0 ? '' : `/${database}`}:c:{`;
  }

  async start(events: SyncEvents): Promise<void> {
    const { clock, prefix, nodeId } = this.#options;
    const failed = (error: unknown): void => this.#failed(error);
    const commands = await RedisCommands.open({
      target: this.#target,
      clock,
      failed,
      changed: () => this.#tellHealth(),
      moved: () => void this.#connected?.listeners.follow().catch(failed),
    });
    const heads = new RedisHeads({
      clock,
      channels: () => [...this.#channels].filter(([, rule]) => rule.recoverable).map(([channel]) => channel),
      read: async (channel) => {
        const [epoch, offset] = await this.#read(channel, undefined, 0);
        return { epoch, offset: Number(offset) };
      },
      tell: (channel, head) => this.#events?.head(channel, head),
    });
    const canary = new RedisCanary({
      prefix,
      nodeId,
      clock,
      commands,
      deaf: (key) => {
        failed(new Error('a connection was open and heard nothing: another takes its place'));
        listeners.rebuild(key);
      },
      logsChanged: () => void commands.learn().then(() => heads.tellAll()),
      beat: () => {
        heads.tellFew();
        this.#tellHealth();
      },
    });
    const listeners = new RedisListeners({
      sharded: commands.sharded,
      clock,
      topology: () => commands.topology(),
      topics: (topology) => [...canary.route(topology), ...subscriptions.names],
      message: (topic, message) => this.#heard(topic, message),
      renewed: () => {
        this.#tellHealth();
        this.#options.observer.reconnected(this.name);
        heads.tellAll();
      },
      lost: () => this.#tellHealth(),
      failed,
    });
    const subscriptions = new RedisSubscriptions(listeners);
    this.#events = events;
    this.#connected = { commands, listeners, subscriptions, canary, heads };
    try {
      await listeners.start();
      await canary.start();
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#tellHealth();
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
    this.#connected?.subscriptions.remove(this.#topicOf(channel));
  }

  history(channel: string, rule: ChannelRule, query: HistoryQuery, internal = false): Promise<HistoryPage> {
    return this.#available(this.#history(channel, rule, query, internal));
  }

  health(): SyncHealth {
    if (this.#connected === undefined || this.#closed) return { up: false };
    const { commands, listeners, canary } = this.#connected;
    if (!commands.ready) return { up: false, detail: 'Redis is away' };
    if (!listeners.up) return { up: false, detail: 'subscribing anew' };
    return canary.hears ? { up: true } : { up: false, detail: 'nothing is heard' };
  }

  async probe(timeoutMs: number): Promise<void> {
    await this.#live.canary.probe(timeoutMs);
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#events = undefined;
    const connected = this.#connected;
    connected?.canary.close();
    connected?.heads.close();
    connected?.subscriptions.close();
    connected?.listeners.close();
    connected?.commands.close();
    this.#options.observer.up(this.name, false);
    return Promise.resolve();
  }

  // Commands

  async #append({ channel, rule, data, from, except, key }: Outgoing): Promise<Position> {
    const head = this.#key('m', channel);
    const [epoch, offset] = await this.#live.commands.append(
      head,
      this.#key('s', channel),
      // In a cluster a key that is not there holds up the script for as long as its slot moves.
      key === undefined ? head : `${this.#key('k', channel)}:${key}`,
      data,
      encodeSender({ from, except }),
      rule.historySize,
      rule.historySeconds * 1_000,
      this.#live.commands.publishCommand,
      this.#topicOf(channel),
    );
    return { epoch, offset: Number(offset) };
  }

  async #sendEphemeral({ channel, data, at, from, except }: Outgoing): Promise<undefined> {
    const head = `- 0 ${at} ${this.#options.nodeId}`;
    await this.#live.commands.publish(this.#topicOf(channel), `${head}\n${encodeSender({ from, except })}\n${data}`);
    return undefined;
  }

  async #subscribe(channel: string, rule: ChannelRule): Promise<Position | undefined> {
    await this.#live.subscriptions.add(this.#topicOf(channel));
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
    return this.#live.commands.read(this.#key('m', channel), this.#key('s', channel), after ?? '', count, size);
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
    if (this.#connected?.canary.heard(topic, message) === true) return;
    const channel = topic.slice(this.#topicPrefix.length, -1);
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

  get #live(): Connected {
    if (this.#connected === undefined || this.#closed) throw new RealtimeError('unavailable');
    return this.#connected;
  }

  #tellHealth(): void {
    if (!this.#closed) this.#options.observer.up(this.name, this.health().up);
  }

  #failed(error: unknown): void {
    this.#options.observer.failed(this.name);
    this.#options.log('Redis: an error', withoutArguments(error));
  }

  #key(kind: string, channel: string): string {
    return `${this.#options.prefix}:${kind}:{${channel}}`;
  }

  #topicOf(channel: string): string {
    return `${this.#topicPrefix}${channel}}`;
  }
}
