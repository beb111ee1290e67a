// What the adapter holds between start and close: six parts, and how they wake each other.
//
//   commands        one client (`commands.ts`), which fails at once while Redis is away
//   reads           another, for heads and histories: what publishes and what proves that Redis is well waits for none
//   listeners       one, or one to each master of a cluster (`listeners.ts`)
//   subscriptions   which topics this node wants to hear (`subscriptions.ts`)
//   heads           where the logs of its channels stand (`../heads.ts`)
//   canary          proof that messages travel (`canary.ts`)
//
// Lifecycle: `open`, then anything, then `close`.

import type { Position } from '../../protocol/position.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import type { RedisTarget } from '../../redis/target.ts';
import type { Clock } from '../../time/clock.ts';
import { Heads, tellEach } from '../heads.ts';
import { RedisCanary } from './canary.ts';
import { RedisCommands, type RedisTopology } from './commands.ts';
import { RedisListeners } from './listeners.ts';
import { RedisSubscriptions } from './subscriptions.ts';

export interface RedisConnectionOptions {
  readonly target: RedisTarget;
  readonly prefix: string;
  readonly nodeId: string;
  readonly clock: Clock;
}

/** What the adapter is told. None of it throws. */
export interface RedisConnectionEvents {
  /** Answers whether the topic is one of a subscribed channel. */
  message(topic: string, message: string): boolean;
  /** Subscribed channels that have a log. */
  loggedChannels(): readonly string[];
  /** Asks Redis. */
  readHead(channel: string): Promise<Position>;
  /** Of one server, in the order asked. */
  readHeads(channels: readonly string[]): Promise<readonly Position[]>;
  head(channel: string, head: Position): void;
  /** Everything is heard again after a connection was lost. */
  reconnected(): void;
  /** `up` may have changed. */
  upChanged(): void;
  /** The server's data may not be what they were. */
  dataChanged(): void;
  failed(error: unknown): void;
}

/** Heads that one script reads, which takes a server less than half a millisecond. */
const headsAtOnce = 100;

export class RedisConnection {
  readonly #events: RedisConnectionEvents;
  readonly #listeners: RedisListeners;
  readonly #heads: Heads;
  readonly #canary: RedisCanary;
  readonly commands: RedisCommands;
  readonly #reads: RedisCommands;
  readonly #followsSentinels: boolean;
  readonly subscriptions: RedisSubscriptions;

  /** Resolves when messages arrive. Rejects when Redis cannot be reached; nothing stays open then. */
  static async open(options: RedisConnectionOptions, events: RedisConnectionEvents): Promise<RedisConnection> {
    let connection: RedisConnection | undefined = undefined;
    const common = {
      target: options.target,
      clock: options.clock,
      failed: (error: unknown) => events.failed(error),
      changed: () => events.upChanged(),
    };
    const commands = await RedisCommands.open({ ...common, moved: () => void connection?.follow() });
    let reads: RedisCommands;
    try {
      reads = await RedisCommands.open({ ...common, moved: () => undefined });
    } catch (error) {
      commands.close();
      throw error;
    }
    connection = new RedisConnection(commands, reads, options, events);
    try {
      await connection.#listeners.start();
      await connection.#canary.start();
    } catch (error) {
      connection.close();
      throw error;
    }
    return connection;
  }

  private constructor(
    commands: RedisCommands,
    reads: RedisCommands,
    options: RedisConnectionOptions,
    events: RedisConnectionEvents,
  ) {
    const { prefix, nodeId, clock } = options;
    this.#events = events;
    this.commands = commands;
    this.#reads = reads;
    this.#followsSentinels = options.target.kind === 'sentinel';
    this.#heads = new Heads({
      clock,
      atOnce: 500,
      // Of two seconds: an empty head that nobody reads is forgotten later.
      roundsMax: 150,
      channels: () => events.loggedChannels(),
      tell: (channels) => this.#tellHeads(channels),
    });
    this.#canary = new RedisCanary({
      prefix,
      nodeId,
      clock,
      commands,
      deaf: (key) => this.#replaceDeaf(key),
      logsChanged: () => void this.#learnAgain(),
      beat: () => this.#beat(),
    });
    this.#listeners = new RedisListeners({
      sharded: commands.sharded,
      clock,
      topology: () => commands.topology(),
      topics: (topology) => this.#topics(topology),
      message: (topic, message) => events.message(topic, message),
      unclaimed: (topic, message) => this.#canary.heard(topic, message),
      renewed: () => this.#renewed(),
      lost: () => events.upChanged(),
      failed: (error) => events.failed(error),
    });
    this.subscriptions = new RedisSubscriptions(this.#listeners);
  }

  /** Redis can be reached, and messages arrive. */
  get up(): boolean {
    return this.commands.ready && this.#reads.ready && !this.#isSplit && this.#listeners.up && this.#canary.hears;
  }

  /** Throws `unavailable` while they lead to another server than commands. */
  get reads(): RedisCommands {
    this.#reunite();
    if (this.#isSplit) throw new RealtimeError('unavailable');
    return this.#reads;
  }

  async probe(timeoutMs: number): Promise<void> {
    await this.#canary.probe(timeoutMs);
  }

  close(): void {
    this.#canary.close();
    this.#heads.close();
    this.subscriptions.close();
    this.#listeners.close();
    this.commands.close();
    this.#reads.close();
  }

  /** Commands go to another master: it has to be listened to as well. */
  async follow(): Promise<void> {
    try {
      await this.#listeners.follow();
    } catch (error) {
      this.#events.failed(error);
    }
  }

  /** The database has another generation: each channel that is touched learns of it, and these at once. */
  followDatabase(generation: number): void {
    this.commands.generation = generation;
    this.#reads.generation = generation;
    this.#canary.learnAnew();
    this.#heads.tellAll();
  }

  /** Sentinels name another master in time, and not to everyone at once: commands and reads may lead to different ones. */
  get #isSplit(): boolean {
    return this.#followsSentinels && this.#reads.peer !== this.commands.peer;
  }

  /** Where a connection is on its way, that is waited for: begun anew at each read, it would never arrive. */
  #reunite(): void {
    if (this.#isSplit && this.commands.ready && this.#reads.ready) this.#reads.rebuild();
  }

  #topics(topology: RedisTopology): readonly string[] {
    return [...this.#canary.route(topology), ...this.subscriptions.names];
  }

  #renewed(): void {
    this.#events.upChanged();
    this.#events.reconnected();
    this.#heads.tellAll();
  }

  #replaceDeaf(key: string): void {
    this.#events.failed(new Error('a connection was open and received nothing: another takes its place'));
    this.#listeners.rebuild(key);
  }

  async #learnAgain(): Promise<void> {
    await Promise.all([this.commands.learn(), this.#reads.learn()]);
    this.#heads.tellAll();
    this.#events.dataChanged();
  }

  async #tellHeads(channels: readonly string[]): Promise<void> {
    const events = this.#events;
    if (this.commands.isCluster) {
      await tellEach(
        channels,
        (channel) => events.readHead(channel),
        (channel, head) => events.head(channel, head),
      );
      return;
    }
    for (let from = 0; from < channels.length; from += headsAtOnce) {
      const some = channels.slice(from, from + headsAtOnce);
      const heads = await events.readHeads(some);
      some.forEach((channel, index) => {
        const position = heads[index];
        if (position !== undefined) events.head(channel, position);
      });
    }
  }

  #beat(): void {
    this.#reunite();
    this.#heads.tellFew();
    this.#events.upChanged();
  }
}
