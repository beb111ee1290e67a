// The sync adapter over NATS JetStream: a stream that counts each channel's publications, and core NATS to reach the
// nodes that have subscribers.
//
//   publish      recoverable: one message to the stream, whose answer is the offset. The server repeats what it stored
//                on a second subject, with the offset. Ephemeral: a message that names the node that delivered it already
//   subscribe    the second subject first, then the head: every publication after it will be heard
//   reconnect    what was repeated meanwhile is lost, so the hub gets the heads of all channels
//
// The connection and what keeps it alive are in `connection.ts`, the logs in `log.ts`.

import type { Msg, Subscription } from '@nats-io/transport-node';
import { Publication } from '../../core/publication.ts';
import type { SyncObserver } from '../../core/observer.ts';
import type {
  Appended,
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
import type { ChannelRule } from '../../rules/rules.ts';
import { isPassingFailure, patiently } from '../../time/patiently.ts';
import { Heads, tellEach } from '../heads.ts';
import { NatsClient, type NatsConnectionEvents, type NatsConnectionOptions } from './connection.ts';
import { available, isPassing } from './failure.ts';
import { NatsInterest } from './interest.ts';
import { headerBytesMax } from './large-data.ts';
import { NatsLog } from './log.ts';
import { readEntry, type SenderFields } from './message.ts';
import { textOf } from './message-text.ts';
import { Turns } from './turns.ts';

export interface NatsAdapterOptions extends NatsConnectionOptions {
  readonly observer: SyncObserver;
  /** NATS is not there at the start; it is tried again for a while. */
  readonly waiting: (error: unknown) => void;
  readonly log: (message: string, error: unknown) => void;
}

interface Subscribed {
  readonly rule: ChannelRule;
  readonly subscription: Subscription;
  /** Messages that arrived while the data of one before them were fetched. */
  waiting: Promise<void> | undefined;
}

interface Parts {
  readonly client: NatsClient;
  readonly log: NatsLog;
  readonly interest: NatsInterest;
}

export class NatsAdapter implements SyncAdapter {
  readonly name = 'nats';
  readonly traits: SyncTraits = { shared: true, durable: true };
  readonly #options: NatsAdapterOptions;
  readonly #heads: Heads;
  readonly #turns = new Turns();
  readonly #subscribed = new Map<string, Subscribed>();
  #parts: Parts | undefined;
  #events: SyncEvents | undefined;
  #generation = 0;

  constructor(options: NatsAdapterOptions) {
    this.#options = options;
    this.#heads = new Heads({
      clock: options.clock,
      atOnce: 200,
      // Of two seconds.
      roundsMax: 30,
      channels: () => [...this.#subscribed].filter(([, { rule }]) => rule.recoverable).map(([channel]) => channel),
      tell: (channels) =>
        tellEach(
          channels,
          (channel) => this.#live.log.head(channel),
          (channel, head) => this.#events?.head(channel, head),
        ),
    });
  }

  async start(events: SyncEvents): Promise<void> {
    const { observer, names, clock } = this.#options;
    this.#events = events;
    const told: NatsConnectionEvents = {
      upChanged: () => this.#tellHealth(),
      reconnected: () => {
        observer.reconnected(this.name);
        this.#heads.tellAll();
      },
      beat: () => this.#heads.tellFew(),
      failed: (error) => this.#failed(error),
    };
    const client = await patiently(() => NatsClient.open(this.#options, told), {
      mayPass: (error) => isPassingFailure(error) || isPassing(error),
      waiting: (error) => this.#options.waiting(error),
      clock,
    });
    client.follow(this.#generation);
    const { nodeId } = this.#options;
    const interest = new NatsInterest({ live: () => client.live, names, nodeId, clock });
    this.#parts = { client, log: new NatsLog({ client, names, clock }), interest };
    await interest.start();
    this.#tellHealth();
  }

  /** The database whose changes are carried has this generation. */
  follow(generation: number): void {
    if (generation <= this.#generation) return;
    this.#generation = generation;
    this.#parts?.client.follow(generation);
    this.#heads.tellAll();
  }

  publish(outgoing: Outgoing): Promise<Appended | undefined> {
    this.#options.observer.message(this.name, 'out', 1);
    return this.#answer(async () => {
      if (!outgoing.rule.recoverable) return this.#sendEphemeral(outgoing);
      const { log } = this.#live;
      const isLarge = outgoing.data.length > headerBytesMax / 3;
      return this.#turns.take(outgoing, isLarge, () => log.append(outgoing));
    });
  }

  subscribe(channel: string, rule: ChannelRule): Promise<Position | undefined> {
    return this.#answer(async () => {
      const { log, interest } = this.#live;
      this.#listen(channel, rule);
      // A server alone gets the question for the head after the subscription anyway.
      if (!rule.recoverable || interest.isOfMany) await interest.known();
      return rule.recoverable ? log.head(channel) : undefined;
    });
  }

  unsubscribe(channel: string): void {
    this.#subscribed.get(channel)?.subscription.unsubscribe();
    this.#subscribed.delete(channel);
  }

  history(channel: string, rule: ChannelRule, query: HistoryQuery, internal = false): Promise<HistoryPage> {
    return this.#answer(() => this.#live.log.read(channel, rule, query, internal));
  }

  health(): SyncHealth {
    return { up: this.#events !== undefined && this.#parts?.client.up === true };
  }

  async probe(timeoutMs: number): Promise<void> {
    await available(this.#live.client.probe(timeoutMs));
  }

  async close(): Promise<void> {
    const parts = this.#parts;
    this.#events = undefined;
    this.#parts = undefined;
    this.#heads.close();
    this.#subscribed.clear();
    parts?.log.close();
    await parts?.interest.leave();
    await parts?.client.close();
    this.#options.observer.up(this.name, false);
  }

  /** Throws `unavailable` while NATS cannot be reached. */
  get client(): NatsClient {
    return this.#live.client;
  }

  get #live(): Parts {
    const parts = this.#parts;
    if (parts?.client.up !== true) throw new RealtimeError('unavailable');
    return parts;
  }

  async #answer<Value>(run: () => Promise<Value>): Promise<Value> {
    try {
      return await available(run());
    } catch (error) {
      this.#options.observer.failed(this.name);
      throw error;
    }
  }

  #sendEphemeral({ channel, data, at, from, except }: Outgoing): undefined {
    const { client } = this.#live;
    const sender = JSON.stringify({ from, except });
    client.live.publish(this.#options.names.ephemeral(channel), `${at} ${this.#options.nodeId}\n${sender}\n${data}`);
    return undefined;
  }

  #listen(channel: string, rule: ChannelRule): void {
    const known = this.#subscribed.get(channel);
    if (known?.rule.recoverable === rule.recoverable) return;
    known?.subscription.unsubscribe();
    const { client } = this.#live;
    const { names } = this.#options;
    const subject = rule.recoverable ? names.live(channel) : names.ephemeral(channel);
    const subscription = client.live.subscribe(subject, {
      callback: (error, message) => {
        if (error !== null) return this.#failed(error);
        if (this.#subscribed.get(channel) !== subscribed) return;
        try {
          if (rule.recoverable) this.#repeated(channel, subscribed, message);
          else this.#ephemeral(channel, message.string());
        } catch (failure) {
          this.#failed(failure);
        }
      },
    });
    const subscribed: Subscribed = { rule, subscription, waiting: undefined };
    this.#subscribed.set(channel, subscribed);
  }

  /** What the stream has stored. */
  #repeated(channel: string, subscribed: Subscribed, message: Msg): void {
    const parts = this.#parts;
    if (parts === undefined) return;
    const { headers, body } = textOf(message);
    const entry = readEntry({ seq: Number(headers.get('Nats-Sequence')), headers, body });
    const { offset, at, sender, data } = entry;
    if (typeof data === 'string' && subscribed.waiting === undefined) {
      this.#tell(new Publication({ channel, offset, epoch: parts.client.epoch, data, at, ...sender }));
      return;
    }
    const told = (subscribed.waiting ?? Promise.resolve()).then(async () => {
      try {
        const publication = await parts.log.publication(channel, entry);
        // A hole otherwise, which the hub fills from the log.
        if (publication !== undefined && this.#subscribed.get(channel) === subscribed) this.#tell(publication);
      } catch (error) {
        this.#failed(error);
      }
      if (subscribed.waiting === told) subscribed.waiting = undefined;
    });
    subscribed.waiting = told;
  }

  #ephemeral(channel: string, text: string): void {
    const first = text.indexOf('\n');
    const second = text.indexOf('\n', first + 1);
    const [at, node] = text.slice(0, first).split(' ');
    if (node === this.#options.nodeId) return;
    const sender = JSON.parse(text.slice(first + 1, second)) as SenderFields;
    const data = text.slice(second + 1);
    this.#tell(new Publication({ channel, offset: 0, epoch: '', data, at: Number(at), ...sender }));
  }

  #tell(publication: Publication): void {
    const { observer, clock } = this.#options;
    observer.message(this.name, 'in', 1);
    observer.delay(this.name, Math.max(0, clock.now() - publication.at) / 1_000);
    this.#events?.publication(publication);
  }

  #tellHealth(): void {
    if (this.#events !== undefined) this.#options.observer.up(this.name, this.health().up);
  }

  #failed(error: unknown): void {
    this.#options.observer.failed(this.name);
    this.#options.log('NATS or a connection to it failed', error);
  }
}
