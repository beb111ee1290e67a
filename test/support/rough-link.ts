// A sync layer as bad as a network makes it: one log, and per node a link on which requests wait to be carried out,
// answers wait to arrive, and events come late, twice or not at all. Nothing moves by itself: a test moves it.
//
// What it keeps to is the port's contract: events of one link keep their order; a lost connection ends with `head`
// for every subscribed channel; requests and events travel on different connections and may pass each other.

import type { Publication } from '../../src/core/publication.ts';
import type { ChannelRule } from '../../src/rules/rules.ts';
import type {
  Appended,
  HistoryPage,
  HistoryQuery,
  Outgoing,
  SyncAdapter,
  SyncEvents,
  SyncTraits,
} from '../../src/core/sync-adapter.ts';
import type { Position } from '../../src/protocol/position.ts';
import { RealtimeError } from '../../src/protocol/realtime-error.ts';
import type { MemoryAdapter } from '../../src/sync/memory/adapter.ts';
import { memoryAdapter, type HandClock } from './hub.ts';

/** The log that all links share. */
export class RoughLog {
  readonly links: RoughLink[] = [];
  /** Everything that was ever published, by `channel epoch offset`. */
  readonly published = new Map<string, Publication>();
  resets = 0;
  readonly #clock: HandClock;
  readonly #spread: SyncEvents;
  #memory: MemoryAdapter;

  constructor(clock: HandClock) {
    this.#clock = clock;
    this.#spread = {
      publication: (publication) => {
        this.published.set(placeOf(publication), publication);
        for (const link of this.links) link.enqueue(publication);
      },
      head: () => undefined,
      settled: () => undefined,
    };
    this.#memory = this.#open();
  }

  get memory(): MemoryAdapter {
    return this.#memory;
  }

  link(): RoughLink {
    const link = new RoughLink(this);
    this.links.push(link);
    return link;
  }

  /** The log is lost. Links notice at once, and say so after what they had heard before. */
  reset(): void {
    this.resets++;
    this.#memory = this.#open();
    for (const link of this.links) link.tellHeads();
  }

  #open(): MemoryAdapter {
    const memory = memoryAdapter(this.#clock);
    void memory.start(this.#spread);
    return memory;
  }
}

export function placeOf({ channel, epoch, offset }: { channel: string; epoch: string; offset: number }): string {
  return `${channel} ${epoch} ${offset}`;
}

interface Request {
  readonly channel: string;
  /** Undefined until it was carried out. */
  answer: (() => void) | undefined;
  readonly carryOut: () => () => void;
  readonly fail: (error: unknown) => void;
}

type LinkEvent = { readonly publication: Publication } | { readonly channel: string; readonly head: Position };

export class RoughLink implements SyncAdapter {
  readonly name = 'redis';
  readonly traits: SyncTraits = { shared: true, durable: true };
  readonly subscribed = new Map<string, ChannelRule>();
  readonly events: LinkEvent[] = [];
  readonly requests: Request[] = [];
  readonly #log: RoughLog;
  #told: SyncEvents | undefined;

  constructor(log: RoughLog) {
    this.#log = log;
  }

  start(events: SyncEvents): Promise<void> {
    this.#told = events;
    return Promise.resolve();
  }

  publish(outgoing: Outgoing): Promise<Appended | undefined> {
    return this.#request(outgoing.channel, () => this.#log.memory.publish(outgoing));
  }

  subscribe(channel: string, rule: ChannelRule): Promise<Position | undefined> {
    return this.#request(channel, () => {
      this.subscribed.set(channel, rule);
      return this.#log.memory.subscribe(channel, rule);
    });
  }

  unsubscribe(channel: string): void {
    this.subscribed.delete(channel);
  }

  history(channel: string, rule: ChannelRule, query: HistoryQuery): Promise<HistoryPage> {
    return this.#request(channel, () => this.#log.memory.history(channel, rule, query));
  }

  health(): { up: boolean } {
    return { up: true };
  }

  probe(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#told = undefined;
    return Promise.resolve();
  }

  // Moved by the test

  enqueue(publication: Publication): void {
    if (this.subscribed.has(publication.channel)) this.events.push({ publication });
  }

  tellHeads(): void {
    for (const [channel, rule] of this.subscribed) {
      const head = this.#log.memory.subscribe(channel, rule);
      if (head !== undefined) this.events.push({ channel, head });
    }
  }

  /** Tells the hub the next event, if there is one. */
  deliver(): boolean {
    const event = this.events.shift();
    if (event === undefined) return false;
    this.#tell(event);
    return true;
  }

  /** The next event comes twice, now and after `later` others. */
  repeat(later: number): void {
    const event = this.events[0];
    if (event === undefined || 'head' in event) return;
    const next = this.events.findIndex(
      (other) => ('head' in other ? other.head : other.publication).epoch !== event.publication.epoch,
    );
    // Within its epoch: an adapter never goes back to one that is over.
    this.events.splice(Math.min(1 + later, next === -1 ? Infinity : next), 0, event);
  }

  drop(): void {
    const event = this.events[0];
    if (event !== undefined && 'publication' in event) this.events.shift();
  }

  /** The connection is lost with all that was on its way, and comes back. */
  reconnect(): void {
    this.events.length = 0;
    this.tellHeads();
  }

  /** Carries a request out, or lets its answer arrive. */
  advance(index: number): boolean {
    if (this.requests.length === 0) return false;
    const [request] = this.requests.slice(index % this.requests.length);
    if (request === undefined) return false;
    if (request.answer === undefined) {
      request.answer = request.carryOut();
    } else {
      this.requests.splice(this.requests.indexOf(request), 1);
      request.answer();
    }
    return true;
  }

  /** The request fails, before or after it was carried out. */
  fail(index: number): void {
    const [request] = this.requests.splice(this.requests.length === 0 ? 0 : index % this.requests.length, 1);
    request?.fail(new RealtimeError('unavailable'));
  }

  #tell(event: LinkEvent): void {
    if ('head' in event) this.#told?.head(event.channel, event.head);
    else this.#told?.publication(event.publication);
  }

  #request<T>(channel: string, run: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const carryOut = () => {
        const result = run();
        return () => resolve(result);
      };
      this.requests.push({ channel, answer: undefined, carryOut, fail: reject });
    });
  }
}
