// Proof that a bus beside the log works: every second a node sends itself a message, which must come back. Only that
// proves the whole way. From the first return on the bus is up; after three seconds without one it is lost, and after
// nine it is renewed, since what it stands on did not notice by itself.

import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Clock } from '../time/clock.ts';
import { within } from '../time/within.ts';
import type { BusEvents } from './log-bus.ts';

export interface PulseOptions {
  /** Of the bus, for people. */
  readonly name: string;
  readonly clock: Clock;
  readonly events: Pick<BusEvents, 'connected' | 'lost'>;
  /** Sends this node the number; false when the bus takes nothing now. */
  readonly send: (id: number) => boolean;
  /** Nothing was heard for long: connections have to be made anew. */
  readonly renew: () => void;
}

const everyMs = 1_000;
/** A server that has just started, on a busy machine, is slow for a while: a start that fails ends the process. */
const firstProbeMs = 15_000;
const lostAfterMs = 3_000;
const renewAfterMs = 9_000;

/** Lifecycle: `start` once numbers may be sent, `stop` once; no event comes after that, and a later `start` does nothing. */
export class BusPulse {
  readonly #options: PulseOptions;
  readonly #expected = new Map<number, () => void>();
  #count = 0;
  #heardAt = 0;
  #up = false;
  #stopped = false;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(options: PulseOptions) {
    this.#options = options;
  }

  get up(): boolean {
    return this.#up;
  }

  /** Resolves when the first number came back; rejects when none does. */
  async start(): Promise<void> {
    await this.probe(firstProbeMs);
    if (!this.#stopped) this.#timer = setInterval(() => this.#beat(), everyMs);
  }

  stop(): void {
    this.#stopped = true;
    this.#up = false;
    clearInterval(this.#timer);
  }

  /** Resolves when a number sent now came back; rejects after `timeoutMs`. */
  async probe(timeoutMs: number): Promise<void> {
    const { name, send } = this.#options;
    const id = ++this.#count;
    const heard = new Promise<void>((resolve) => this.#expected.set(id, resolve));
    try {
      if (!send(id)) throw new RealtimeError('unavailable', `${name} takes no messages now.`);
      await within(heard, timeoutMs, 'the message');
    } finally {
      this.#expected.delete(id);
    }
  }

  /** This number came back. */
  heard(id: number): void {
    if (this.#stopped) return;
    this.#heardAt = this.#options.clock.monotonic();
    if (!this.#up) {
      this.#up = true;
      this.#options.events.connected();
    }
    this.#expected.get(id)?.();
  }

  /** Something else has shown that the bus is away. */
  lose(error: unknown): void {
    if (!this.#up) return;
    this.#up = false;
    this.#options.events.lost(error);
  }

  #beat(): void {
    const { name, clock, send, renew } = this.#options;
    const silentMs = clock.monotonic() - this.#heardAt;
    if (silentMs > lostAfterMs) this.lose(new Error(`${name} does not bring this node its own messages`));
    if (silentMs > renewAfterMs) {
      this.#heardAt = clock.monotonic();
      renew();
    }
    // Nobody waits for this number.
    send(0);
  }
}
