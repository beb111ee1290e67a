// Tells the hub where the heads of the logs are: of all channels after a connection or logs were lost, and of a few
// channels in every round. The rounds find what no signal reports: the lost repeat of the last publication, or one on a
// server that this node does not listen to yet. How often a round comes is the connection's matter.

import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';
import type { Position } from '../protocol/position.ts';

export interface HeadsOptions {
  readonly clock: Clock;
  /** How many heads are read at once, when all are. */
  readonly atOnce: number;
  /** All channels are told within so many rounds, where there are more than a few. */
  readonly roundsMax: number;
  /** Recoverable channels that are subscribed. */
  readonly channels: () => readonly string[];
  /** Reads the heads of these channels and tells them. Rejects when one of them could not be read. */
  readonly tell: (channels: readonly string[]) => Promise<void>;
}

/** One by one, where a server answers for one channel only. What can be read is told. */
export async function tellEach(
  channels: readonly string[],
  read: (channel: string) => Promise<Position>,
  tell: (channel: string, head: Position) => void,
): Promise<void> {
  const told = await Promise.allSettled(channels.map(async (channel) => tell(channel, await read(channel))));
  for (const result of told) if (result.status === 'rejected') throw result.reason;
}

const fewMin = 100;

export class Heads {
  readonly #options: HeadsOptions;
  #rounds = 0;
  #isTelling = false;
  #next = 0;

  constructor(options: HeadsOptions) {
    this.#options = options;
  }

  /** Tells all heads, and retries until it has: before that, there may be a hole that nobody knows of. */
  tellAll(): void {
    void this.#tellAll(++this.#rounds);
  }

  /** Tells the next few. A failure is left to the next time. */
  tellFew(): void {
    if (this.#isTelling) return;
    const channels = this.#options.channels();
    if (this.#next >= channels.length) this.#next = 0;
    const count = Math.max(fewMin, Math.ceil(channels.length / this.#options.roundsMax));
    const few = channels.slice(this.#next, this.#next + count);
    this.#next += count;
    if (few.length > 0) this.#options.tell(few).catch(() => undefined);
  }

  close(): void {
    this.#rounds++;
  }

  async #tellAll(round: number): Promise<void> {
    const { clock, atOnce } = this.#options;
    this.#isTelling = true;
    const channels = this.#options.channels();
    let failures = 0;
    for (let from = 0; from < channels.length && round === this.#rounds;) {
      try {
        await this.#options.tell(channels.slice(from, from + atOnce));
        from += atOnce;
        failures = 0;
      } catch {
        // Away or overloaded: the connections of one node come back one after the other.
        await clock.sleep(backoffMs(failures++, { firstMs: 50, maxMs: 2_000 }, clock));
      }
    }
    if (round === this.#rounds) this.#isTelling = false;
  }
}
