// The sync adapter of a single process: logs in memory, no network. Answers at once, so a publish and its fan-out
// happen in one synchronous step. Positions are lost with the process, which a new epoch tells.

import { randomId, type Clock } from '../../time/clock.ts';
import { Publication } from '../../core/publication.ts';
import type { ChannelRule } from '../../rules/rules.ts';
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
import type { SyncObserver } from '../../core/observer.ts';
import type { Position } from '../../protocol/position.ts';
import { boundPage } from '../bound-page.ts';
import { MemoryLog } from './log.ts';

/** What an empty log costs. */
const logBytes = 500;
/** Share of the limit that empty logs may take. */
const emptyShareMax = 0.1;

export interface MemoryAdapterOptions {
  readonly clock: Clock;
  readonly observer: SyncObserver;
  /** Bytes of history over all channels. Past it, the history of the channels that were used longest ago goes first. */
  readonly historyBytesMax: number;
}

export class MemoryAdapter implements SyncAdapter {
  readonly name = 'memory';
  readonly traits: SyncTraits = { shared: false, durable: false };
  readonly #clock: Clock;
  readonly #observer: SyncObserver;
  readonly #historyBytesMax: number;
  /** In order of use: the first was used longest ago. */
  readonly #logs = new Map<string, MemoryLog>();
  /**
   * Logs that were emptied to make room, apart, so that making room again does not walk past them; in the same order.
   */
  readonly #emptied = new Map<string, MemoryLog>();
  /** The epochs that subscribers know. Such a log is never forgotten, or they would get a new epoch. */
  readonly #subscribed = new Map<string, string>();
  #bytes = 0;
  #epoch: string;
  #generation = 0;
  #events: SyncEvents | undefined;

  constructor(options: MemoryAdapterOptions) {
    this.#clock = options.clock;
    this.#observer = options.observer;
    this.#historyBytesMax = options.historyBytesMax;
    this.#epoch = randomId(this.#clock, 6);
  }

  start(events: SyncEvents): Promise<void> {
    this.#events = events;
    this.#observer.up(this.name, true);
    return Promise.resolve();
  }

  /** The database whose changes are carried has this generation: after a later one all logs begin again. */
  follow(generation: number): void {
    const isFirst = this.#generation === 0;
    if (generation <= this.#generation) return;
    this.#generation = generation;
    if (isFirst) return;
    this.#logs.clear();
    this.#emptied.clear();
    this.#bytes = 0;
    this.#renew();
    for (const channel of this.#subscribed.keys()) {
      this.#subscribed.set(channel, this.#epoch);
      this.#events?.head(channel, { epoch: this.#epoch, offset: 0 });
    }
  }

  publish(outgoing: Outgoing): Appended | undefined {
    const { channel, rule, data, at, from, except, key, xid } = outgoing;
    if (!rule.recoverable) return undefined;
    const log = this.#logFor(channel, rule);
    const repeated = key === undefined ? undefined : log.positionOf(key, at);
    if (repeated !== undefined) return { ...repeated, isRepeat: true };
    const { epoch, head } = log;
    const publication = new Publication({ channel, offset: head + 1, epoch, data, at, from, except, xid });
    this.#bytes += log.append(publication, key, at);
    this.#used(channel, log);
    if (this.#bytes > this.#historyBytesMax) this.#shrink(channel);
    this.#events?.publication(publication);
    return { epoch: publication.epoch, offset: publication.offset };
  }

  subscribe(channel: string, rule: ChannelRule): Position | undefined {
    if (!rule.recoverable) return undefined;
    const head = this.#headOf(channel);
    this.#subscribed.set(channel, head.epoch);
    return head;
  }

  unsubscribe(channel: string): void {
    this.#subscribed.delete(channel);
  }

  history(channel: string, _rule: ChannelRule, query: HistoryQuery): HistoryPage {
    const head = this.#headOf(channel);
    const log = this.#find(channel);
    if (log === undefined) return emptyPage(head, query);
    this.#bytes -= log.expire(this.#clock.now());
    return boundPage(log.read(query), query);
  }

  health(): SyncHealth {
    return { up: this.#events !== undefined };
  }

  probe(): Promise<void> {
    return this.#events === undefined ? Promise.reject(new Error('the adapter is not started')) : Promise.resolve();
  }

  close(): Promise<void> {
    this.#events = undefined;
    this.#logs.clear();
    this.#emptied.clear();
    this.#subscribed.clear();
    this.#bytes = 0;
    this.#observer.up(this.name, false);
    return Promise.resolve();
  }

  /** Drops what has expired, also in channels that nobody reads. Call it now and then. */
  sweep(): void {
    const now = this.#clock.now();
    for (const logs of [this.#logs, this.#emptied]) {
      for (const [channel, log] of logs) {
        this.#bytes -= log.expire(now);
        if (log.size === 0 && now - log.usedAt > log.rule.historySeconds * 1_000) this.#forget(channel, logs);
      }
    }
  }

  #headOf(channel: string): Position {
    const log = this.#find(channel);
    return log === undefined ? { epoch: this.#epochFor(channel), offset: 0 } : { epoch: log.epoch, offset: log.head };
  }

  /** The first publication of a channel gets the epoch that its subscribers know. */
  #epochFor(channel: string): string {
    return this.#subscribed.get(channel) ?? this.#epoch;
  }

  #logFor(channel: string, rule: ChannelRule): MemoryLog {
    const known = this.#find(channel);
    if (known !== undefined) return known;
    const log = new MemoryLog(this.#epochFor(channel), rule);
    this.#logs.set(channel, log);
    this.#bytes += logBytes;
    return log;
  }

  #find(channel: string): MemoryLog | undefined {
    return this.#logs.get(channel) ?? this.#emptied.get(channel);
  }

  #used(channel: string, log: MemoryLog): void {
    this.#emptied.delete(channel);
    this.#logs.delete(channel);
    this.#logs.set(channel, log);
  }

  /**
   * Empties the logs that were used longest ago until the bytes fit; the one just written comes last. When too many are
   * empty, those without subscribers are forgotten in the same order.
   */
  #shrink(except: string): void {
    const goal = this.#historyBytesMax * 0.9;
    for (const [channel, log] of this.#logs) {
      if (this.#bytes <= goal) break;
      if (channel === except) continue;
      // Emptied, not forgotten: its subscribers go on counting from where they are.
      this.#bytes -= log.clear();
      this.#logs.delete(channel);
      this.#emptied.set(channel, log);
    }
    for (const channel of this.#emptied.keys()) {
      if (this.#emptied.size * logBytes <= this.#historyBytesMax * emptyShareMax) break;
      this.#forget(channel, this.#emptied);
    }
    // What is left is this channel's own: alone it may be more than the limit.
    this.#bytes -= this.#logs.get(except)?.shrink(this.#bytes - this.#historyBytesMax) ?? 0;
  }

  /** Unless it has subscribers. */
  #forget(channel: string, logs: Map<string, MemoryLog>): void {
    if (this.#subscribed.has(channel)) return;
    logs.delete(channel);
    this.#bytes -= logBytes;
    this.#renew();
  }

  /** A forgotten channel would count from 1 again: new channels must not reuse the epoch it had. */
  #renew(): void {
    this.#epoch = randomId(this.#clock, 6);
  }
}

function emptyPage(head: Position, { since }: HistoryQuery): HistoryPage {
  if (since === undefined || (since.epoch === head.epoch && since.offset === 0)) {
    return { head, publications: [], complete: true };
  }
  return { head, publications: [], complete: false, gap: 'epoch_changed' };
}
