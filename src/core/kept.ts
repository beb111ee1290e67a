// What this node has seen of the logs of its channels, so that a crowd that comes back is served from memory: a budget of
// bytes over all channels, from which those that were used longest ago are evicted first. A channel that nobody is
// subscribed to any more is kept a little longer: a deploy takes the last subscriber away and brings the next.

import type { Position } from '../protocol/position.ts';
import type { Clock } from '../time/clock.ts';
import { KeptChannel } from './kept-channel.ts';
import type { Publication } from './publication.ts';

export interface KeptLimits {
  readonly bytesMax: number;
  /** Milliseconds for which a channel is kept that was left. */
  readonly lingerMs: number;
}

/** Evicting goes on to below the budget, so that it is not met again at once. */
const shareAfterEviction = 0.9;
/** One that takes more of the budget would push out what many need. */
const publicationShareMax = 1 / 16;

export class Kept {
  readonly #limits: KeptLimits;
  readonly #clock: Clock;
  /** In order of use: the first was used longest ago. */
  readonly #channels = new Map<string, KeptChannel>();
  /** Those that nobody is subscribed to, and since when, the earliest first. */
  readonly #left = new Map<string, number>();
  #newest: KeptChannel | undefined;
  #bytes = 0;

  constructor(limits: KeptLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  /** Bytes that all channels take, about. */
  get bytes(): number {
    return this.#bytes;
  }

  get channelCount(): number {
    return this.#channels.size;
  }

  /** What is kept of a channel, if anything is; it was used just now. */
  of(name: string): KeptChannel | undefined {
    const channel = this.#channels.get(name);
    if (channel !== undefined) this.#use(name, channel);
    return channel;
  }

  add(name: string, publication: Publication, sizeMax: number): void {
    if (publication.bytes > this.#limits.bytesMax * publicationShareMax) return;
    const channel = this.of(name) ?? this.#create(name, publication);
    const before = channel.bytes;
    channel.add(publication, sizeMax);
    this.#bytes += channel.bytes - before;
    if (this.#bytes > this.#limits.bytesMax) this.#evict();
  }

  /** What is kept is of no use after a change of the epoch, or when the log went back. */
  begin(name: string, position: Position): void {
    const channel = this.#channels.get(name);
    if (channel === undefined) return;
    this.#bytes -= channel.bytes;
    channel.begin(position);
    this.#bytes += channel.bytes;
    if (channel.bytes === 0) this.#forget(name);
  }

  /** A page of the log said that nothing up to there is left. */
  trimmed(name: string, epoch: string, upTo: number): void {
    this.#channels.get(name)?.trimmed(epoch, upTo);
  }

  /** Somebody is subscribed to the channel again, whose log stands at `head`. */
  opened(name: string, head: Position): void {
    this.#left.delete(name);
    this.begin(name, head);
  }

  /** Nobody is any more. */
  closed(name: string): void {
    if (this.#channels.has(name)) this.#left.set(name, this.#clock.monotonic());
  }

  /** Forgets channels that were left a while ago; to be called every few seconds. */
  sweep(): void {
    const before = this.#clock.monotonic() - this.#limits.lingerMs;
    for (const [name, leftAt] of this.#left) {
      if (leftAt > before) break;
      this.#forget(name);
    }
  }

  #create(name: string, { epoch, offset }: Publication): KeptChannel {
    const channel = new KeptChannel();
    channel.begin({ epoch, offset });
    this.#use(name, channel);
    return channel;
  }

  #use(name: string, channel: KeptChannel): void {
    if (this.#newest === channel) return;
    this.#channels.delete(name);
    this.#channels.set(name, channel);
    this.#newest = channel;
  }

  #evict(): void {
    const goal = this.#limits.bytesMax * shareAfterEviction;
    for (const [name, channel] of this.#channels) {
      if (this.#bytes <= goal) break;
      this.#bytes -= channel.shrink(this.#bytes - goal);
      if (channel.bytes === 0) this.#forget(name);
    }
  }

  #forget(name: string): void {
    const channel = this.#channels.get(name);
    this.#left.delete(name);
    if (channel === undefined) return;
    this.#bytes -= channel.bytes;
    this.#channels.delete(name);
    if (this.#newest === channel) this.#newest = undefined;
  }
}
