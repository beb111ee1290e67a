// The connections to NATS and the two streams behind them. What reads the log has a connection of its own: the server reads
// for a connection as it takes its messages, one by one, so that what is published over the same one waits for all reads.
//
//   1. `open` connects and makes the streams, or brings their configuration up to date
//   2. the driver reconnects by itself, for as long as it takes, to any server that the cluster has named
//   3. every two seconds, and after each reconnect, the stream is asked for: proof that it answers, and which one it is
//   4. `up` is true while both hold, for both connections

import type { ConnectionOptions, Msg, MsgHdrs, NatsConnection } from '@nats-io/transport-node';
import { jetstreamManager, JetStreamApiError, type JetStreamManager, type StreamConfig } from '@nats-io/jetstream';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import { backoffCeilingMs } from '../../time/backoff.ts';
import type { Clock } from '../../time/clock.ts';
import { within } from '../../time/within.ts';
import { isNobodyThere } from './failure.ts';
import type { NatsNames } from './names.ts';
import { connectNats } from '../../nats/connect.ts';
import type { NatsTarget } from '../../nats/target.ts';

export interface NatsConnectionOptions {
  readonly target: NatsTarget;
  readonly names: NatsNames;
  readonly nodeId: string;
  readonly clock: Clock;
  /** Copies of each stream; undefined: 3 in a cluster, else 1. */
  readonly replicas: number | undefined;
  /** For how long the server knows idempotency keys. */
  readonly keySeconds: number;
}

/** What the adapter is told. None of it throws. */
export interface NatsConnectionEvents {
  upChanged(): void;
  /** Messages may have been missed, or the stream may be another one. */
  reconnected(): void;
  /** The streams answered. */
  beat(): void;
  failed(error: unknown): void;
}

interface StreamFacts {
  readonly created: string;
  readonly perChannel: number;
  readonly copies: number;
}

/** Longer than the slowest answer of a server that is well. */
export const answerTimeoutMs = 1_000;
const beatEveryMs = 2_000;
const retryEveryMs = 100;
const leaderlessPauseMs = 20;
/** Publications of a channel that are kept for a start; a rule that wants more raises it. */
const perChannelMin = 1_000;
const nanoseconds = 1e9;

interface Connections {
  readonly connection: NatsConnection;
  readonly manager: JetStreamManager;
  readonly reading: NatsConnection;
  /** Of the streams, over the connection that reads. */
  readonly readManager: JetStreamManager;
}

export class NatsClient {
  readonly connection: NatsConnection;
  readonly readManager: JetStreamManager;
  readonly #manager: JetStreamManager;
  readonly #reading: NatsConnection;
  readonly #options: NatsConnectionOptions;
  readonly #events: NatsConnectionEvents;
  /** When the stream was made; nothing before it is known. */
  #created = '';
  /** Of the database whose changes are carried. */
  #generation = 0;
  #epoch = '';
  #isSingle = false;
  #perChannel = perChannelMin;
  readonly #lost = new Set<NatsConnection>();
  #streamAnswers = false;
  #isBeating = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #probes = 0;
  #closed = false;

  /** Rejects when NATS cannot be reached, or has no JetStream; nothing stays open then. */
  static async open(options: NatsConnectionOptions, events: NatsConnectionEvents): Promise<NatsClient> {
    const connections: NatsConnection[] = [];
    const connect = async (): Promise<[NatsConnection, JetStreamManager]> => {
      const connection = await connectNats(options.target, behaviourOf(options.clock));
      connections.push(connection);
      return [connection, await jetstreamManager(connection, { timeout: answerTimeoutMs })];
    };
    let client: NatsClient;
    try {
      const [connection, manager] = await connect();
      const [reading, readManager] = await connect();
      client = new NatsClient({ connection, manager, reading, readManager }, options, events);
      await client.#learn();
    } catch (error) {
      for (const connection of connections) {
        await connection.close().catch((failure: unknown) => events.failed(failure));
      }
      throw error;
    }
    client.#streamAnswers = true;
    for (const connection of connections) void client.#follow(connection);
    client.#beatLater(beatEveryMs);
    return client;
  }

  private constructor(connections: Connections, options: NatsConnectionOptions, events: NatsConnectionEvents) {
    this.connection = connections.connection;
    this.readManager = connections.readManager;
    this.#manager = connections.manager;
    this.#reading = connections.reading;
    this.#options = options;
    this.#events = events;
  }

  get up(): boolean {
    return this.#lost.size === 0 && this.#streamAnswers && !this.#closed;
  }

  /** The log has one copy: whoever is asked directly has all of it. */
  get isSingle(): boolean {
    return this.#isSingle;
  }

  /** Names the log: of the stream that is there, for the database that is there. */
  get epoch(): string {
    return this.#epoch;
  }

  /** What was carried from an earlier generation cannot be vouched for: its positions are void. */
  follow(generation: number): void {
    if (generation <= this.#generation) return;
    this.#generation = generation;
    this.#nameLog();
  }

  /** Raises what the stream keeps of a channel to at least so many. */
  async keep(perChannel: number): Promise<void> {
    if (perChannel <= this.#perChannel) return;
    this.#perChannel = perChannel;
    await this.#learn();
  }

  /** The driver would keep what it is given for later: throws while there is no connection. */
  get live(): NatsConnection {
    return this.#present(this.connection);
  }

  /** As `live`, for what reads. */
  get reading(): NatsConnection {
    return this.#present(this.#reading);
  }

  #present(connection: NatsConnection): NatsConnection {
    if (this.#lost.has(connection) || this.#closed) throw new RealtimeError('unavailable');
    return connection;
  }

  /**
   * Asks the leader of a stream. One that a cluster has just chosen is not known everywhere yet: while nobody answers to
   * the subject, nothing was stored, so it is asked again for as long as an answer may take.
   */
  async request(subject: string, data: Uint8Array | undefined, headers: MsgHdrs): Promise<Msg> {
    const { clock } = this.#options;
    const until = clock.monotonic() + answerTimeoutMs;
    for (;;) {
      try {
        return await this.live.request(subject, data, { headers, timeout: answerTimeoutMs });
      } catch (error) {
        if (!isNobodyThere(error) || clock.monotonic() > until) throw error;
        await clock.sleep(leaderlessPauseMs);
      }
    }
  }

  /** A message to this node itself comes back, and the stream answers. */
  async probe(timeoutMs: number): Promise<void> {
    const { names, nodeId } = this.#options;
    const heard = Promise.withResolvers<undefined>();
    const subject = names.probe(`${nodeId}-${++this.#probes}`);
    const subscription = this.live.subscribe(subject, { max: 1, callback: () => heard.resolve(undefined) });
    try {
      this.live.publish(subject);
      await within(Promise.all([heard.promise, this.#learn()]), timeoutMs, 'the probe of NATS');
    } finally {
      subscription.unsubscribe();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const connection of [this.connection, this.#reading]) {
      await connection.close().catch((error: unknown) => this.#events.failed(error));
    }
  }

  async #follow(connection: NatsConnection): Promise<void> {
    for await (const { type } of connection.status()) {
      if (this.#closed) return;
      if (type === 'disconnect' || type === 'reconnect') {
        if (type === 'reconnect') this.#lost.delete(connection);
        else this.#lost.add(connection);
        this.#streamAnswers = false;
        this.#events.upChanged();
        if (type === 'reconnect') this.#beatLater(0);
      }
    }
  }

  #beatLater(milliseconds: number): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#beatOnce(), milliseconds);
  }

  async #beatOnce(): Promise<void> {
    // One that waits for an answer of before the reconnect ends within its timeout.
    if (!this.#isBeating) {
      this.#isBeating = true;
      await this.#beat();
      this.#isBeating = false;
    }
    this.#beatLater(this.up ? beatEveryMs : retryEveryMs);
  }

  async #beat(): Promise<void> {
    const epoch = this.#epoch;
    const wasUp = this.up;
    try {
      if (this.#lost.size > 0) return;
      await this.#learn();
      this.#streamAnswers = true;
    } catch (error) {
      this.#streamAnswers = false;
      if (wasUp && !this.#closed) this.#events.failed(error);
    }
    if (this.#closed) return;
    this.#events.upChanged();
    if (!this.up) return;
    if (!wasUp || epoch !== this.#epoch) this.#events.reconnected();
    else this.#events.beat();
  }

  /** Makes the streams where they are missing, and learns which log it is. */
  async #learn(): Promise<void> {
    const { names, keySeconds } = this.#options;
    const replicas = this.#options.replicas ?? (this.connection.info?.cluster === undefined ? 1 : 3);
    const log = await this.#ensure(names.logStream, {
      subjects: [names.logs],
      allow_msg_counter: true,
      allow_direct: true,
      num_replicas: replicas,
      max_msgs_per_subject: this.#perChannel,
      duplicate_window: keySeconds * nanoseconds,
      republish: { src: names.logs, dest: names.repeated },
    });
    await this.#ensure(names.dataStream, {
      subjects: [names.allData],
      allow_msg_ttl: true,
      allow_direct: true,
      num_replicas: replicas,
    });
    this.#perChannel = Math.max(this.#perChannel, log.perChannel);
    this.#isSingle = log.copies === 1;
    this.#created = log.created;
    this.#nameLog();
  }

  #nameLog(): void {
    this.#epoch = Bun.hash(`${this.#created} ${this.#generation}`).toString(36);
  }

  async #ensure(name: string, config: Partial<StreamConfig>): Promise<StreamFacts> {
    const { streams } = this.#manager;
    let info = await streams.info(name).catch((error: unknown) => {
      if (error instanceof JetStreamApiError && error.code === streamNotFound) return undefined;
      throw error;
    });
    // Several nodes may do so at once; the server answers the same to each.
    info ??= await streams.add({ name, ...config });
    const { max_msgs_per_subject: kept, duplicate_window: window } = info.config;
    const wanted = Math.max(kept, config.max_msgs_per_subject ?? -1);
    // Nodes that are set differently would undo each other's change for ever.
    const duplicates = this.#created === '' ? (config.duplicate_window ?? window) : window;
    if (wanted !== kept || duplicates !== window) {
      info = await streams.update(name, {
        ...info.config,
        max_msgs_per_subject: wanted,
        duplicate_window: duplicates,
      });
    }
    const { max_msgs_per_subject: perChannel, num_replicas: copies } = info.config;
    return { created: String(info.created), perChannel, copies };
  }
}

const streamNotFound = 10_059;

function behaviourOf(clock: Clock): ConnectionOptions {
  let tries = 0;
  return {
    name: 'sobranie',
    maxReconnectAttempts: -1,
    // Nodes that lose a server in the same instant return spread out.
    reconnectDelayHandler: () => clock.random() * backoffCeilingMs(tries++ % 8, { firstMs: 50, maxMs: 1_000 }),
  };
}
