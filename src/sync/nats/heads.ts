// Tells the hub where the heads of the logs are: of all channels after a connection was lost, and of a few channels in
// every round. What the server repeats to the nodes is not stored, so a lost repeat at the end of a log shows here only.

import { backoffMs } from '../../time/backoff.ts';
import type { Clock } from '../../time/clock.ts';
import type { Position } from '../../protocol/position.ts';

export interface NatsHeadsOptions {
  readonly clock: Clock;
  /** Recoverable channels that are subscribed. */
  readonly channels: () => readonly string[];
  readonly read: (channel: string) => Promise<Position>;
  readonly tell: (channel: string, head: Position) => void;
}

const atOnce = 200;
const fewMin = 100;
/** All channels are told within so many rounds of two seconds. */
const roundsMax = 30;

export class NatsHeads {
  readonly #options: NatsHeadsOptions;
  #rounds = 0;
  #isTelling = false;
  #next = 0;

  constructor(options: NatsHeadsOptions) {
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
    const count = Math.max(fewMin, Math.ceil(channels.length / roundsMax));
    const few = channels.slice(this.#next, this.#next + count);
    this.#next += count;
    this.#tell(few).catch(() => undefined);
  }

  close(): void {
    this.#rounds++;
  }

  async #tellAll(round: number): Promise<void> {
    const { clock } = this.#options;
    this.#isTelling = true;
    const channels = this.#options.channels();
    let failures = 0;
    for (let from = 0; from < channels.length && round === this.#rounds;) {
      try {
        await this.#tell(channels.slice(from, from + atOnce));
        from += atOnce;
        failures = 0;
      } catch {
        await clock.sleep(backoffMs(failures++, { firstMs: 50, maxMs: 2_000 }, clock));
      }
    }
    if (round === this.#rounds) this.#isTelling = false;
  }

  async #tell(channels: readonly string[]): Promise<void> {
    const { read, tell } = this.#options;
    const told = await Promise.allSettled(channels.map(async (channel) => tell(channel, await read(channel))));
    for (const result of told) if (result.status === 'rejected') throw result.reason;
  }
}
