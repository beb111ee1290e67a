// The connection for commands: to one server, to the master that Sentinels name, or to all masters of a cluster. It
// fails at once while Redis is away: a command that waits for a lost connection would be sent before the listeners are
// back, or hang. Reconnects by itself for ever, with full jitter, since all nodes lose Redis in the same instant.

import { Cluster, Redis } from 'ioredis';
import type { Clock } from '../../time/clock.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import { addressOf, createCluster, parseSlots } from '../../redis/cluster.ts';
import { withoutArguments } from '../../redis/error.ts';
import type { ReadReply } from './history.ts';
import { appendScript, readScript } from './scripts.ts';
import { slotOf } from '../../redis/slot.ts';
import { createListener, disconnectTimeout, type RedisClientOptions, type RedisTarget } from '../../redis/target.ts';
import type { RedisHost } from '../../redis/url.ts';
import { within } from '../../time/within.ts';

/** The scripts as the driver adds them to its client. */
interface Scripted {
  sobranieAppend(...args: (string | number)[]): Promise<[epoch: string, offset: string | number]>;
  sobranieRead(...args: (string | number)[]): Promise<ReadReply>;
}

/** Who has to be listened to for what. */
export interface RedisTopology {
  /** The masters, by address. */
  readonly keys: readonly string[];
  /** The master that publishes a topic; undefined while none serves its slot. */
  keyOf(topic: string): string | undefined;
  createListener(key: string): Redis;
  /** Whether a listener that has connected did so to this master; where there are Sentinels, that is not certain. */
  leadsTo(client: Redis, key: string): boolean;
}

export interface RedisCommandsOptions {
  readonly target: RedisTarget;
  readonly clock: Clock;
  readonly failed: (error: unknown) => void;
  readonly changed: () => void;
  /** Reconnected, and to another server than before. */
  readonly moved: () => void;
}

const answerTimeoutMs = 1_000;
const onlyServer = 'redis';
/** Version of Redis. */
const shardedSince = 7;

export class RedisCommands {
  /** In a cluster before version 7 messages go to all of its nodes, and any of them is listened to. */
  readonly sharded: boolean;
  readonly #options: RedisCommandsOptions;
  readonly #client: (Redis | Cluster) & Scripted;
  /** The one of the URL's that it was entered by. */
  readonly #host: RedisHost;
  /** Address of the server that it is connected to, or was at last. */
  #peer: string;
  #underWay = 0;
  /** What the scripts are told of the server; undefined while that is not known of the present connection. */
  #told: string | undefined;

  private constructor(
    client: Redis | Cluster,
    options: RedisCommandsOptions,
    host: RedisHost,
    told: string,
    sharded = false,
  ) {
    this.#options = options;
    this.#host = host;
    this.sharded = sharded;
    client.defineCommand('sobranieAppend', { numberOfKeys: 3, lua: appendScript });
    client.defineCommand('sobranieRead', { numberOfKeys: 2, lua: readScript });
    this.#client = client as (Redis | Cluster) & Scripted;
    this.#peer = client instanceof Redis ? peerOf(client) : '';
    this.#told = told;
    client.on('ready', () => void this.learn());
    client.on('close', () => {
      if (!(client instanceof Cluster)) this.#told = undefined;
      options.changed();
    });
  }

  /** Connects and finds out whether it is a cluster. Rejects when Redis cannot be reached. */
  static async open(options: RedisCommandsOptions): Promise<RedisCommands> {
    const { kind, hosts } = options.target;
    let last: unknown;
    // A cluster is entered by any of its nodes that answers; Sentinels are asked one after the other by the driver.
    for (const host of kind === 'cluster' ? hosts : hosts.slice(0, 1)) {
      try {
        return await RedisCommands.#openThrough(host, options);
      } catch (error) {
        last = error;
      }
    }
    throw new Error('Redis could not be reached', { cause: last });
  }

  static async #openThrough(host: RedisHost, options: RedisCommandsOptions): Promise<RedisCommands> {
    const { target, failed } = options;
    const first = new Redis(commandOptions(options, host));
    let last: unknown;
    first.on('error', (error: unknown) => {
      failed(error);
      last = withoutArguments(error);
    });
    try {
      await within(first.connect(), 5_000, 'connecting to Redis');
      // The driver goes on where the database could not be selected: with another one.
      if (last instanceof Error && 'command' in last && last.command === 'select') throw last;
      // A user without the right to ask is on a server of someone else's, where clusters answer CLUSTER all the same.
      const info = await first.info().catch(() => '');
      if (target.kind !== 'cluster' && !info.includes('cluster_enabled:1')) {
        return new RedisCommands(first, options, host, await learn(first, target));
      }
      const cluster = createCluster(
        { ...options, answerTimeoutMs },
        host,
        parseSlots(await first.cluster('SLOTS'), host).keys,
      );
      cluster.on('error', failed);
      first.disconnect();
      try {
        await within(cluster.connect(), 5_000, 'connecting to the Redis Cluster');
      } catch (error) {
        cluster.disconnect();
        throw error;
      }
      const version = Number(/^redis_version:(\d+)/m.exec(info)?.[1] ?? shardedSince);
      return new RedisCommands(cluster, options, host, '', version >= shardedSince);
    } catch (error) {
      first.disconnect();
      throw last ?? withoutArguments(error);
    }
  }

  get ready(): boolean {
    return this.#client.status === 'ready' && this.#told !== undefined;
  }

  get publishCommand(): 'PUBLISH' | 'SPUBLISH' {
    return this.sharded ? 'SPUBLISH' : 'PUBLISH';
  }

  append(...args: (string | number)[]): Promise<[epoch: string, offset: string | number]> {
    return this.#run((told) => this.#client.sobranieAppend(...args, told));
  }

  read(...args: (string | number)[]): Promise<ReadReply> {
    return this.#run((told) => this.#client.sobranieRead(...args, told));
  }

  /** As `read`, and the server is asked for its history anew, should it have taken on another without a word. */
  readAsking(...args: (string | number)[]): Promise<ReadReply> {
    return this.#run((told) => this.#client.sobranieRead(...args, told.startsWith('+') ? '+' : ''));
  }

  async publish(topic: string, message: string): Promise<void> {
    await this.#run(() =>
      this.sharded ? this.#client.spublish(topic, message) : this.#client.publish(topic, message),
    );
  }

  async topology(): Promise<RedisTopology> {
    const { target, clock } = this.#options;
    if (!(this.#client instanceof Cluster)) {
      // Sentinels name another master in time, and not to everyone at once: what is published is heard at the same one.
      const key = target.kind === 'sentinel' ? this.#peer : onlyServer;
      return {
        keys: [key],
        keyOf: () => key,
        createListener: () => createListener(target.optionsFor(this.#host)),
        leadsTo: (client) => target.kind !== 'sentinel' || peerOf(client) === key,
      };
    }
    const cluster = this.#client;
    const slots = parseSlots(await this.#run(() => cluster.cluster('SLOTS')), this.#host);
    const picked = slots.keys[Math.floor(clock.random() * slots.keys.length)] ?? onlyServer;
    return {
      keys: this.sharded ? slots.keys : [picked],
      keyOf: (topic) => (this.sharded ? slots.bySlot[slotOf(topic)] : picked),
      createListener: (key) => createListener(target.optionsFor(addressOf(key))),
      leadsTo: () => true,
    };
  }

  /** A connection can be open and dead: another one takes its place. */
  rebuild(): void {
    this.#client.disconnect(true);
  }

  close(): void {
    // Not QUIT: everything that was answered is in Redis, and a Redis that is away would not answer it.
    this.#client.disconnect();
  }

  async #run<Value>(command: (told: string) => Promise<Value>): Promise<Value> {
    const client = this.#client;
    if (client.status !== 'ready' || this.#told === undefined) throw new RealtimeError('unavailable');
    // One alone goes out at once; while others are under way, those of a tick go out in one write.
    client.options.enableAutoPipelining = this.#underWay > 0;
    this.#underWay++;
    try {
      const answer = command(this.#told);
      // A cluster's client tries again by itself; what one server is asked has its time limit from the driver.
      return await (client instanceof Cluster ? within(answer, answerTimeoutMs, 'a command to a cluster') : answer);
    } finally {
      this.#underWay--;
    }
  }

  /** Another connection may lead to another server, or to the same with other settings. */
  async learn(): Promise<void> {
    const client = this.#client;
    if (client instanceof Redis) {
      const { stream } = client;
      const told = await learn(client, this.#options.target);
      if (client.status !== 'ready' || client.stream !== stream) return;
      this.#told = told;
      const peer = peerOf(client);
      if (peer !== this.#peer) {
        this.#peer = peer;
        this.#options.moved();
      }
    }
    this.#options.changed();
  }
}

function peerOf({ stream }: Redis): string {
  return 'remoteAddress' in stream ? `${stream.remoteAddress}:${stream.remotePort}` : '';
}

/** One that does not tell is taken for one that keeps nothing, and the scripts ask by themselves. */
async function learn(client: Redis, { kind }: RedisTarget): Promise<string> {
  const [keeping, replication] = await Promise.allSettled([
    // A master that replaces another has what had reached it by then.
    kind === 'sentinel' ? Promise.reject(new Error('promoted')) : client.config('GET', 'append*'),
    client.info('replication'),
  ]);
  const settings = keeping.status === 'fulfilled' ? keeping.value : [];
  const isSet = (name: string, value: string): boolean => settings[settings.indexOf(name) + 1] === value;
  const info = replication.status === 'fulfilled' ? replication.value : '';
  const durable = isSet('appendonly', 'yes') && isSet('appendfsync', 'always');
  return `${durable ? '+' : ''}${/^master_replid:(\w+)/m.exec(info)?.[1] ?? ''}`;
}

function commandOptions({ clock, target }: RedisCommandsOptions, host: RedisHost): RedisClientOptions {
  const delay = (times: number): number => clock.random() * Math.min(2_000, 50 * 2 ** Math.min(times, 6));
  return {
    ...target.optionsFor(host),
    lazyConnect: true,
    enableOfflineQueue: false,
    enableAutoPipelining: true,
    maxRetriesPerRequest: 0,
    connectTimeout: 5_000,
    disconnectTimeout,
    keepAlive: 5_000,
    commandTimeout: answerTimeoutMs,
    retryStrategy: delay,
    sentinelRetryStrategy: delay,
    // A master that became a replica keeps its connections: another one leads to the present master.
    reconnectOnError: (error) => error.message.startsWith('READONLY'),
  };
}
