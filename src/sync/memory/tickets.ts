// Tickets of a single process. Bounded, since the holder of one token can ask for any number of them.

import type { Clock } from '../../time/clock.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import type { TicketStore } from '../../auth/ticket-store.ts';

interface Entry {
  readonly text: string;
  /** Monotonic milliseconds. */
  readonly endsAt: number;
}

const entriesMaxDefault = 100_000;
const charactersMax = 32 << 20;

export class MemoryTickets implements TicketStore {
  /** In the order in which they were put; all live equally long, so the first ends first. */
  readonly #entries = new Map<string, Entry>();
  readonly #clock: Clock;
  readonly #entriesMax: number;
  #characters = 0;

  constructor(clock: Clock, entriesMax: number = entriesMaxDefault) {
    this.#clock = clock;
    this.#entriesMax = entriesMax;
  }

  get size(): number {
    return this.#entries.size;
  }

  put(digest: string, text: string, seconds: number): Promise<void> {
    const now = this.#clock.monotonic();
    this.#forgetUntil(now);
    if (this.#entries.size >= this.#entriesMax || this.#characters + text.length > charactersMax) {
      const error = new RealtimeError('limit_exceeded', 'There are too many unused tickets.', { retryAfter: seconds });
      return Promise.reject(error);
    }
    this.#entries.set(digest, { text, endsAt: now + seconds * 1_000 });
    this.#characters += text.length;
    return Promise.resolve();
  }

  take(digest: string): Promise<string | undefined> {
    this.#forgetUntil(this.#clock.monotonic());
    const entry = this.#entries.get(digest);
    if (entry !== undefined) this.#remove(digest, entry);
    return Promise.resolve(entry?.text);
  }

  #forgetUntil(now: number): void {
    for (const [digest, entry] of this.#entries) {
      if (entry.endsAt > now) return;
      this.#remove(digest, entry);
    }
  }

  #remove(digest: string, { text }: Entry): void {
    this.#entries.delete(digest);
    this.#characters -= text.length;
  }
}
