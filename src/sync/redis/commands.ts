// What the adapter asks of Redis: the scripts, PUBLISH, and who has to be listened to for what. It uses one client of
// `redis/client.ts`, and knows of the server at its other end what the scripts must know: see `scripts.ts`.

import calculateSlot from 'cluster-key-slot';
import { Cluster, Redis } from 'ioredis';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import { createListener, openRedis, type OpenRedis } from '../../redis/client.ts';
import { addressOf, parseSlots } from '../../redis/cluster.ts';
import { answerTimeoutMs, type RedisTarget } from '../../redis/target.ts';
import type { RedisHost } from '../../redis/url.ts';
import { backoffMs } from '../../time/backoff.ts';
import type { Clock } from '../../time/clock.ts';
import { isPassingFailure } from '../../time/patiently.ts';
import { within } from '../../time/within.ts';
import type { ReadReply } from './history.ts';
import { appendScript, headsScript, readScript } from './scripts.ts';

/** The scripts as the driver adds them to its client. */
interface Scripted {
  sobranieAppend(...args: (string | number)[]): Promise<[epoch: string, offset: string | number]>;
  /** Answers bytes. */
  sobranieReadBuffer(...args: (string | number)[]): Promise<ReadReply>;
  sobranieHeads(...args: (string | number)[]): Promise<[epoch: string, offset: string][]>;
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
  /** The connection was lost, or is there again. */
  readonly changed: () => void;
  /** Reconnected, and to another server than before. */
  readonly moved: () => void;
}

const onlyServer = 'redis';
/** Version of Redis. */
const shardedSince = 7;

export class RedisCommands {
  /** In a cluster before version 7 messages go to all of its nodes, and any of them is listened to. */
  readonly sharded: boolean;
  readonly #options: RedisCommandsOptions;
  readonly #client: (Redis | Cluster) & Scripted;
  /** The one of the URL's hosts through which the connection was opened. */
  readonly #host: RedisHost;
  #peer: string;
  #underWay = 0;
  /** Of the database whose changes are carried. */
  generation = 0;
  /** What the scripts need to know of the server; undefined while the present connection has not learned it. */
  #serverFacts: string | undefined;

  private constructor({ client, host, info }: OpenRedis, options: RedisCommandsOptions, serverFacts: string) {
    this.#options = options;
    this.#host = host;
    this.sharded = client instanceof Cluster && versionOf(info) >= shardedSince;
    client.defineCommand('sobranieAppend', { numberOfKeys: 3, lua: appendScript });
    client.defineCommand('sobranieRead', { numberOfKeys: 2, lua: readScript });
    client.defineCommand('sobranieHeads', { lua: headsScript });
    this.#client = client as (Redis | Cluster) & Scripted;
    this.#peer = client instanceof Redis ? peerOf(client) : '';
    this.#serverFacts = serverFacts;
    client.on('ready', () => void this.learn());
    client.on('close', () => {
      if (client instanceof Redis) this.#serverFacts = undefined;
      options.changed();
    });
  }

  /** Rejects when Redis cannot be reached. */
  static async open(options: RedisCommandsOptions): Promise<RedisCommands> {
    const opened = await openRedis(options);
    const { client } = opened;
    return new RedisCommands(opened, options, client instanceof Redis ? await learnFacts(client, options.target) : '');
  }

  /** Address of the server that it is connected to, or was at last; nothing in a cluster. */
  get peer(): string {
    return this.#peer;
  }

  get isCluster(): boolean {
    return this.#client instanceof Cluster;
  }

  get ready(): boolean {
    return this.#client.status === 'ready' && this.#serverFacts !== undefined;
  }

  get publishCommand(): 'PUBLISH' | 'SPUBLISH' {
    return this.sharded ? 'SPUBLISH' : 'PUBLISH';
  }

  append(...args: (string | number)[]): Promise<[epoch: string, offset: string | number, isRepeat?: 1]> {
    return this.#run((facts) => this.#client.sobranieAppend(...args, facts));
  }

  read(...args: (string | number)[]): Promise<ReadReply> {
    return this.#run((facts) => this.#client.sobranieReadBuffer(...args, facts));
  }

  /** Of logs, whose keys are given as `read` takes them. Not in a cluster, where each channel has a slot of its own. */
  heads(keys: readonly string[]): Promise<[epoch: string, offset: string][]> {
    return this.#run((facts) => this.#client.sobranieHeads(keys.length, ...keys, facts));
  }

  /** As `read`, but the script asks the server for its history: it may have taken on another without a sign. */
  readAsking(...args: (string | number)[]): Promise<ReadReply> {
    return this.#run((facts) => this.#client.sobranieReadBuffer(...args, facts.replace(/^(\+?)\w*/, '$1')));
  }

  async publish(topic: string, message: string): Promise<void> {
    await this.#run(() =>
      this.sharded ? this.#client.spublish(topic, message) : this.#client.publish(topic, message),
    );
  }

  async topology(): Promise<RedisTopology> {
    const { target, clock } = this.#options;
    if (this.#client instanceof Redis) {
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
      keyOf: (topic) => (this.sharded ? slots.bySlot[calculateSlot(topic)] : picked),
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

  /** Another connection may lead to another server, or to the same with other settings. Asks until it is answered. */
  async learn(): Promise<void> {
    const client = this.#client;
    if (client instanceof Redis) {
      const { stream } = client;
      const isPresent = (): boolean => client.status === 'ready' && client.stream === stream;
      const facts = await this.#learned(client, isPresent);
      if (facts === undefined || !isPresent()) return;
      this.#serverFacts = facts;
      const peer = peerOf(client);
      if (peer !== this.#peer) {
        this.#peer = peer;
        this.#options.moved();
      }
    }
    this.#options.changed();
  }

  /** Undefined when the connection has ended. Until it knows, this client is not ready. */
  async #learned(client: Redis, isPresent: () => boolean): Promise<string | undefined> {
    const { target, clock } = this.#options;
    for (let failures = 0; isPresent(); failures++) {
      try {
        return await learnFacts(client, target);
      } catch {
        // A server that is held up. One that is gone ends the connection.
        await clock.sleep(backoffMs(failures, { firstMs: 50, maxMs: 1_000 }, clock));
      }
    }
    return undefined;
  }

  async #run<Value>(command: (facts: string) => Promise<Value>): Promise<Value> {
    const client = this.#client;
    if (client.status !== 'ready' || this.#serverFacts === undefined) throw new RealtimeError('unavailable');
    // One alone goes out at once; while others are under way, those of a tick go out in one write.
    client.options.enableAutoPipelining = this.#underWay > 0;
    this.#underWay++;
    try {
      const answer = command(`${this.#serverFacts}@${this.generation}`);
      // A cluster's client tries again by itself. And of one server's commands some never settle where the connection goes
      // just then, whatever limit the driver has: a channel that waited for its history got nothing more.
      return await within(answer, answerTimeoutMs, 'a command to Redis');
    } finally {
      this.#underWay--;
    }
  }
}

function peerOf({ stream }: Redis): string {
  return 'remoteAddress' in stream ? `${stream.remoteAddress}:${stream.remotePort}` : '';
}

function versionOf(info: string): number {
  return Number(/^redis_version:(\d+)/m.exec(info)?.[1] ?? shardedSince);
}

/**
 * A server that refuses to tell how it keeps its data counts as one that keeps nothing, and one that refuses to tell its
 * history is asked for it by the scripts. Rejects when it gave no answer that lasts: what was not answered is not known, and
 * a server that keeps everything would be taken for one that lost it.
 */
async function learnFacts(client: Redis, { kind }: RedisTarget): Promise<string> {
  const [keeping, replication] = await Promise.allSettled([
    // A master that replaces another has what had reached it by then.
    kind === 'sentinel' ? [] : client.config('GET', '*append*'),
    client.info('replication'),
  ]);
  for (const answer of [keeping, replication])
    if (answer.status === 'rejected' && isPassingFailure(answer.reason)) throw answer.reason;
  const settings = keeping.status === 'fulfilled' ? keeping.value : [];
  const isSet = (name: string, value: string): boolean => settings[settings.indexOf(name) + 1] === value;
  const info = replication.status === 'fulfilled' ? replication.value : '';
  // While it rewrites its file it may be set to write nothing to the disk: then a power cut takes what was answered.
  const isWritten = isSet('appendfsync', 'always') && isSet('no-appendfsync-on-rewrite', 'no');
  const durable = isSet('appendonly', 'yes') && isWritten;
  return `${durable ? '+' : ''}${/^master_replid:(\w+)/m.exec(info)?.[1] ?? ''}`;
}
