// Traces a numbered publication from where it came to the fan-out on each node. It stands around the sync layer and the
// relay's destination, so a node without tracing has nothing of it on any path.
//
//   publish     first span of the publication's trace: accepted by a node, or taken from the outbox by the relay
//     append    the log took it
//     sync      one for each node with subscribers: from the log's time to the arrival there
//     fan out   the same: handed to this node's subscribers, all of them in one span
//   relay       a trace of its own for each batch, with links to the publications that it carried
//
// A caller that sent a `traceparent` gets a span `publish` in its own trace. That span and the publication's first one are
// linked to each other. Spans are told when they are over. Ephemeral publications have no position and no trace.

import type { Batch, Destination, OutboxState } from '../changes/destination.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Publication } from '../core/publication.ts';
import type {
  Appended,
  HistoryPage,
  HistoryQuery,
  Outgoing,
  SyncAdapter,
  SyncEvents,
  SyncHealth,
  SyncTraits,
} from '../core/sync-adapter.ts';
import type { Row } from '../database/direct-session.ts';
import { isServerChannel } from '../protocol/channel.ts';
import type { Position } from '../protocol/position.ts';
import type { ChannelRule } from '../rules/rules.ts';
import { callerOf, traceOf, type SpanPlace } from './publication-trace.ts';
import type { Spans } from './spans.ts';

export interface TracingOptions {
  readonly spans: Spans;
  /** Of all publications, the share that is traced: 0 to 1. */
  readonly share: number;
  /** Name of the engine. */
  readonly engine: string;
  /** Unix milliseconds, with fractions. */
  readonly now: () => number;
}

/** Links of one span at most: receivers cut off more. */
const linksMax = 128;

export class Tracing {
  readonly #options: TracingOptions;
  /** What the batch under way has carried. A node has one relay, which takes one batch at a time. */
  #carried: SpanPlace[] | undefined;

  constructor(options: TracingOptions) {
    this.#options = options;
  }

  adapter(adapter: SyncAdapter): SyncAdapter {
    return new TracedAdapter(adapter, this);
  }

  events(events: SyncEvents, subscribers: (channel: string) => number): SyncEvents {
    return {
      publication: (publication) => this.#fanOut(events, publication, subscribers),
      head: (channel, head) => events.head(channel, head),
      settled: () => events.settled(),
    };
  }

  destination(destination: Destination): Destination {
    return new TracedDestination(destination, this);
  }

  now(): number {
    return this.#options.now();
  }

  /** The layer has taken it, or has refused it. */
  published(outgoing: Outgoing, from: number, position: Position | undefined, error?: unknown): void {
    const { channel, data, at, carried, trace } = outgoing;
    if (isServerChannel(channel)) return;
    const to = this.now();
    const caller = callerOf(trace);
    const place = position && { channel, ...position };
    // A caller who keeps a record shall find the publication's, whatever the share.
    const own = place && traceOf(place, caller === undefined ? this.#options.share : 1);
    const source = carried === undefined ? (outgoing.from === undefined ? 'api' : 'client') : 'database';
    const attributes = { ...attributesOf(channel, position), 'sobranie.source': source, 'sobranie.bytes': data.length };
    const failure = failureOf(error);
    if (caller !== undefined) {
      const links = own === undefined ? [] : [own];
      this.#add({ name: 'publish', kind: 'producer', from, to, parent: caller, links, attributes, ...failure });
    }
    if (own === undefined) return;
    const links = caller === undefined ? [] : [caller];
    this.#add({ name: 'publish', kind: 'producer', from: Math.min(at, from), to, own, links, attributes });
    this.#append(own, from, to, attributes);
    this.#carry(own);
  }

  /** Begins to collect what a batch carries. */
  batchBegins(): void {
    this.#carried = [];
  }

  /** Rows of the log that the relay has appended itself. */
  appended(rows: readonly Row[], from: number): void {
    const to = this.now();
    for (const { channel, epoch, offset, seq, data } of rows) {
      if (typeof channel !== 'string' || !(Number(seq) > 0)) continue;
      const position = { epoch: String(epoch), offset: Number(offset) };
      const own = traceOf({ channel, ...position }, this.#options.share);
      if (own === undefined) continue;
      const bytes = typeof data === 'string' ? data.length : 0;
      const attributes = {
        ...attributesOf(channel, position),
        'sobranie.source': 'database',
        'sobranie.bytes': bytes,
      };
      this.#add({ name: 'publish', kind: 'producer', from, to, own, attributes });
      this.#append(own, from, to, attributes);
      this.#carry(own);
    }
  }

  batchEnds(from: number, batch: Batch | undefined, error?: unknown): void {
    const links = this.#carried ?? [];
    this.#carried = undefined;
    // The relay looks often, and finds nothing most of the time.
    if (batch !== undefined && batch.rows === 0) return;
    const attributes = { 'sobranie.rows': batch?.rows ?? 0, 'sobranie.dropped': batch?.dropped ?? 0 };
    const failure = failureOf(error);
    this.#add({ name: 'relay', kind: 'internal', from, to: this.now(), links, attributes, ...failure });
  }

  #fanOut(events: SyncEvents, publication: Publication, subscribers: (channel: string) => number): void {
    const { channel, epoch, offset, at, isGap } = publication;
    const numbered = offset > 0 && !isGap && !isServerChannel(channel);
    const parent = numbered ? traceOf({ channel, epoch, offset }, this.#options.share) : undefined;
    if (parent === undefined) {
      events.publication(publication);
      return;
    }
    const from = this.now();
    events.publication(publication);
    const to = this.now();
    const attributes = attributesOf(channel, { epoch, offset });
    // The log's clock may be ahead of this one.
    this.#add({ name: 'sync', kind: 'internal', from: Math.min(at, from), to: from, parent, attributes });
    const count = { ...attributes, 'sobranie.subscribers': subscribers(channel) };
    this.#add({ name: 'fan out', kind: 'consumer', from, to, parent, attributes: count });
  }

  #append(parent: SpanPlace, from: number, to: number, of: Readonly<Record<string, string | number>>): void {
    const attributes = { ...of, 'sobranie.engine': this.#options.engine };
    this.#add({ name: 'append', kind: 'internal', from, to, parent, attributes });
  }

  #carry(own: SpanPlace): void {
    if (this.#carried !== undefined && this.#carried.length < linksMax) this.#carried.push(own);
  }

  #add(...span: Parameters<Spans['add']>): void {
    this.#options.spans.add(...span);
  }
}

function failureOf(error: unknown): { readonly error?: string } {
  if (error === undefined) return {};
  return { error: error instanceof Error ? error.message : 'it failed' };
}

function attributesOf(channel: string, position: Position | undefined): Record<string, string | number> {
  const place = position && { 'sobranie.epoch': position.epoch, 'sobranie.offset': position.offset };
  return { 'sobranie.channel': channel, ...place };
}

class TracedAdapter implements SyncAdapter {
  readonly #adapter: SyncAdapter;
  readonly #tracing: Tracing;

  constructor(adapter: SyncAdapter, tracing: Tracing) {
    this.#adapter = adapter;
    this.#tracing = tracing;
  }

  get name(): string {
    return this.#adapter.name;
  }

  get traits(): SyncTraits {
    return this.#adapter.traits;
  }

  start(events: SyncEvents): Promise<void> {
    return this.#adapter.start(events);
  }

  publish(outgoing: Outgoing): MaybePromise<Appended | undefined> {
    const from = this.#tracing.now();
    const taken = this.#adapter.publish(outgoing);
    if (!(taken instanceof Promise)) {
      this.#tracing.published(outgoing, from, taken);
      return taken;
    }
    return this.#taken(outgoing, from, taken);
  }

  async #taken(outgoing: Outgoing, from: number, taken: Promise<Appended | undefined>): Promise<Appended | undefined> {
    try {
      const position = await taken;
      this.#tracing.published(outgoing, from, position);
      return position;
    } catch (error) {
      this.#tracing.published(outgoing, from, undefined, error);
      throw error;
    }
  }

  subscribe(channel: string, rule: ChannelRule): MaybePromise<Position | undefined> {
    return this.#adapter.subscribe(channel, rule);
  }

  unsubscribe(channel: string): void {
    this.#adapter.unsubscribe(channel);
  }

  history(channel: string, rule: ChannelRule, query: HistoryQuery, internal?: boolean): MaybePromise<HistoryPage> {
    return this.#adapter.history(channel, rule, query, internal);
  }

  health(): SyncHealth {
    return this.#adapter.health();
  }

  probe(timeoutMs: number): Promise<void> {
    return this.#adapter.probe(timeoutMs);
  }

  close(): Promise<void> {
    return this.#adapter.close();
  }
}

class TracedDestination implements Destination {
  readonly #destination: Destination;
  readonly #tracing: Tracing;
  #from = 0;

  constructor(destination: Destination, tracing: Tracing) {
    this.#destination = destination;
    this.#tracing = tracing;
  }

  begin(): string {
    return this.#destination.begin();
  }

  begun(rows: readonly Row[]): void {
    this.#destination.begun(rows);
  }

  statement(state: OutboxState | undefined, max?: number): string {
    this.#from = this.#tracing.now();
    return this.#destination.statement(state, max);
  }

  async take(rows: readonly Row[]): Promise<Batch> {
    const from = this.#from;
    this.#tracing.batchBegins();
    try {
      // The rows of a destination that publishes them have no numbers yet.
      this.#tracing.appended(rows, from);
      const batch = await this.#destination.take(rows);
      this.#tracing.batchEnds(from, batch);
      return batch;
    } catch (error) {
      this.#tracing.batchEnds(from, undefined, error);
      throw error;
    }
  }

  end(): string | undefined {
    return this.#destination.end();
  }

  interrupted(): void {
    this.#destination.interrupted();
  }
}
