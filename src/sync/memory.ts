// The sync adapter of a single process: logs in memory, no network. Answers at once, so a publish and its fan-out
// happen in one synchronous step. Positions are lost with the process, which a new epoch tells.

import { randomId, type Clock } from '../core/clock.ts';
import { Publication } from '../core/publication.ts';
import type { ChannelRule } from '../core/rules.ts';
import type {
  HistoryPage,
  HistoryQuery,
  Outgoing,
  SyncAdapter,
  SyncEvents,
  SyncHealth,
  SyncTraits,
} from '../core/sync-adapter.ts';
import type { SyncObserver } from '../core/observer.ts';
import type { Position } from '../protocol/position.ts';
import { MemoryLog } from './memory-log.ts';

export interface MemoryAdapterOptions {
  readonly clock: Clock;
  readonly observer: SyncObserver;
  /** Bytes of history over all channels; past it the channels that were used longest ago are forgotten. */
  readonly historyBytesMax: number;
}

export class MemoryAdapter implements SyncAdapter {
  readonly name = 'memory';
  readonly traits: SyncTraits = { shared: false, durable: false };
  readonly #clock: Clock;
  readonly #observer: SyncObserver;
  readonly #historyBytesMax: number;
  readonly #logs = new Map<string, MemoryLog>();
  /** Their logs are not forgotten however long they are silent: whoever listens would be told of a new epoch. */
  readonly #subscribed = new Map<string, string>();
  #bytes = 0;
  #epoch: string;
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

  publish(outgoing: Outgoing): Position | undefined {
    const { channel, rule, data, at, from, except, key } = outgoing;
    if (!rule.recoverable) return undefined;
    const log = this.#logFor(channel, rule);
    const repeated = key === undefined ? undefined : log.positionOf(key, at);
    if (repeated !== undefined) return repeated;
    const publication = new Publication({ channel, offset: log.head + 1, epoch: log.epoch, data, at, from, except });
    this.#bytes += log.append(publication, key, at);
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
    const log = this.#logs.get(channel);
    if (log === undefined) return emptyPage(head, query);
    this.#bytes -= log.expire(this.#clock.now());
    return log.read(query);
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
    this.#subscribed.clear();
    this.#bytes = 0;
    this.#observer.up(this.name, false);
    return Promise.resolve();
  }

  /** Lets go of what has passed its age, also in channels that nobody reads; call it now and then. */
  sweep(): void {
    const now = this.#clock.now();
    let forgotten = false;
    for (const [channel, log] of this.#logs) {
      this.#bytes -= log.expire(now);
      if (this.#subscribed.has(channel)) continue;
      if (log.size === 0 && now - log.usedAt > log.rule.historySeconds * 1_000) {
        this.#logs.delete(channel);
        forgotten = true;
      }
    }
    if (forgotten) this.#renew();
  }

  #headOf(channel: string): Position {
    const log = this.#logs.get(channel);
    return log === undefined ? { epoch: this.#epochFor(channel), offset: 0 } : { epoch: log.epoch, offset: log.head };
  }

  /** What subscribers were told of a channel without a publication holds for its first one too. */
  #epochFor(channel: string): string {
    return this.#subscribed.get(channel) ?? this.#epoch;
  }

  #logFor(channel: string, rule: ChannelRule): MemoryLog {
    const known = this.#logs.get(channel);
    if (known === undefined) {
      const log = new MemoryLog(this.#epochFor(channel), rule);
      this.#logs.set(channel, log);
      return log;
    }
    return known;
  }

  /** Empties the logs that were used longest ago until the bytes fit; the one just written comes last. */
  #shrink(except: string): void {
    const byUse = [...this.#logs].sort(([, a], [, b]) => a.usedAt - b.usedAt);
    for (const [channel, log] of byUse) {
      if (this.#bytes <= this.#historyBytesMax * 0.9) break;
      if (channel === except) continue;
      // Emptied, not forgotten: its subscribers go on counting from where they are.
      this.#bytes -= log.clear();
    }
    // What is left is this channel's own: alone it may be more than the limit.
    this.#bytes -= this.#logs.get(except)?.shrink(this.#bytes - this.#historyBytesMax) ?? 0;
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
