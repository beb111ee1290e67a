// The connections that listen: one to a server, one to each master of a cluster. None reconnects by itself: nobody
// would know what is heard again, and since when. One loop does it for all of them, for ever, with full jitter:
//
//   1. ask where the masters are; let go of connections to others, and of broken ones
//   2. connect to those that have no connection
//   3. subscribe to every topic at its master, and wait for each confirmation
//   4. up: report that everything is heard again, so that the heads are read
//
// Whatever breaks on the way, or a slot that moves, starts it over.

import calculateSlot from 'cluster-key-slot';
import type { Redis } from 'ioredis';
import { backoffMs } from '../../time/backoff.ts';
import type { Clock } from '../../time/clock.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import type { RedisTopology } from './commands.ts';
import { within } from '../../time/within.ts';

export interface RedisListenersOptions {
  readonly sharded: boolean;
  readonly clock: Clock;
  readonly topology: () => Promise<RedisTopology>;
  /** All topics to listen to. */
  readonly topics: (topology: RedisTopology) => readonly string[];
  /** Answers whether it was meant for it, as most are. */
  readonly message: (topic: string, message: string) => boolean;
  /** Every other message. */
  readonly unclaimed: (topic: string, message: string) => void;
  /** Everything is heard again. */
  readonly renewed: () => void;
  readonly lost: () => void;
  readonly failed: (error: unknown) => void;
}

/** Names per SUBSCRIBE. */
const batchMax = 500;
const attemptTimeoutMs = 10_000;
/** A subscribe waits this long for connections that are being renewed. */
const patienceMs = 900;

export class RedisListeners {
  readonly #options: RedisListenersOptions;
  readonly #clients = new Map<string, Redis>();
  readonly #waiting = new Set<() => void>();
  #topology: RedisTopology | undefined;
  #up = false;
  #closed = false;
  #isRenewing = false;
  /** Something broke since the attempt began. */
  #isStale = false;

  constructor(options: RedisListenersOptions) {
    this.#options = options;
  }

  /** Every topic is heard. */
  get up(): boolean {
    return this.#up;
  }

  /** One attempt; rejects when it fails. */
  async start(): Promise<void> {
    this.#isStale = false;
    await this.#attempt();
    if (this.#isStale) throw new RealtimeError('unavailable', 'a connection to Redis was lost at once');
    this.#up = true;
  }

  /** Resolves when they are heard. Rejects within a second. */
  async subscribe(topics: readonly string[]): Promise<void> {
    const until = this.#options.clock.monotonic() + patienceMs;
    if (!this.#up) await this.#untilUp();
    const left = Math.max(1, until - this.#options.clock.monotonic());
    await within(this.#send(topics), left, 'subscribing');
  }

  unsubscribe(topic: string): void {
    const key = this.#topology?.keyOf(topic);
    const client = key === undefined ? undefined : this.#clients.get(key);
    // On a lost connection there is nothing to leave.
    if (client?.status !== 'ready') return;
    const left = this.#options.sharded ? client.sunsubscribe(topic) : client.unsubscribe(topic);
    left.catch(() => undefined);
  }

  /** Replaces the connection to this master. */
  rebuild(key: string): void {
    this.#drop(key);
    this.#renew();
  }

  /** To be called when the masters may be others than before. */
  async follow(): Promise<void> {
    const { keys } = await this.#options.topology();
    if (!keys.every((key) => this.#clients.has(key))) this.#renew();
  }

  close(): void {
    this.#closed = true;
    this.#up = false;
    for (const key of [...this.#clients.keys()]) this.#drop(key);
    for (const wake of this.#waiting) wake();
  }

  #renew(): void {
    if (this.#closed) return;
    this.#isStale = true;
    if (this.#up) {
      this.#up = false;
      this.#options.lost();
    }
    if (this.#isRenewing) return;
    this.#isRenewing = true;
    void this.#renewUntilDone();
  }

  async #renewUntilDone(): Promise<void> {
    const { clock, failed, renewed } = this.#options;
    for (let times = 0; !this.#closed; times++) {
      await clock.sleep(backoffMs(times, { firstMs: 50, maxMs: 2_000 }, clock));
      this.#isStale = false;
      try {
        await within(this.#attempt(), attemptTimeoutMs, 'subscribing to everything');
        if (!this.#isStale) break;
      } catch (error) {
        failed(error);
      }
    }
    this.#isRenewing = false;
    if (this.#closed) return;
    this.#up = true;
    for (const wake of this.#waiting) wake();
    renewed();
  }

  async #attempt(): Promise<void> {
    const topology = await this.#options.topology();
    for (const key of [...this.#clients.keys()]) if (!topology.keys.includes(key)) this.#drop(key);
    await Promise.all(topology.keys.map((key) => this.#connect(key, topology)));
    this.#topology = topology;
    await this.#send(this.#options.topics(topology));
  }

  async #connect(key: string, topology: RedisTopology): Promise<void> {
    if (this.#clients.get(key)?.status === 'ready') return;
    this.#drop(key);
    if (this.#closed) return;
    const { message, unclaimed, failed, sharded } = this.#options;
    const client = topology.createListener(key);
    this.#clients.set(key, client);
    const isCurrent = (): boolean => this.#clients.get(key) === client;
    // Without a listener an error would end the process.
    client.on('error', (error: unknown) => isCurrent() && failed(error));
    client.on(sharded ? 'smessage' : 'message', (topic: string, text: string) => {
      if (isCurrent() && !message(topic, text)) unclaimed(topic, text);
    });
    client.on('end', () => isCurrent() && this.#renew());
    client.on('moved', () => isCurrent() && this.#renew());
    await client.connect();
    if (topology.leadsTo(client, key)) return;
    throw new RealtimeError('unavailable', 'listening connected to another Redis than commands go to');
  }

  #drop(key: string): void {
    const client = this.#clients.get(key);
    this.#clients.delete(key);
    client?.disconnect();
  }

  async #send(topics: readonly string[]): Promise<void> {
    const sent: Promise<unknown>[] = [];
    for (const [client, names] of this.#grouped(topics)) {
      for (let at = 0; at < names.length; at += batchMax) {
        const batch = names.slice(at, at + batchMax);
        sent.push(this.#options.sharded ? client.ssubscribe(...batch) : client.subscribe(...batch));
      }
    }
    try {
      await Promise.all(sent);
    } catch (error) {
      // Nobody knows which of these subscriptions the connections have now, so all are made again.
      this.#renew();
      throw error;
    }
  }

  /** By connection, and in a cluster by slot: one command may name one slot only. */
  *#grouped(topics: readonly string[]): Generator<[Redis, string[]]> {
    const topology = this.#topology;
    const groups = new Map<string | number, string[]>();
    for (const topic of topics) {
      const group = this.#options.sharded ? calculateSlot(topic) : 0;
      const names = groups.get(group);
      if (names === undefined) groups.set(group, [topic]);
      else names.push(topic);
    }
    for (const names of groups.values()) {
      const key = topology?.keyOf(names[0] ?? '');
      const client = key === undefined ? undefined : this.#clients.get(key);
      if (client === undefined) throw new RealtimeError('unavailable');
      yield [client, names];
    }
  }

  async #untilUp(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    try {
      await within(promise, patienceMs, 'waiting for Redis');
    } finally {
      this.#waiting.delete(resolve);
    }
    if (!this.#up) throw new RealtimeError('unavailable');
  }
}
