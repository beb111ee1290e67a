// Whether sources may take messages in: not while the sync layer is away, nor while the outbox is long. What is taken in
// waits in the outbox of the database until the layer has it, and the broker is the better place for a great deal.

import type { Clock } from '../time/clock.ts';

export interface GateOptions {
  readonly isLayerUp: () => boolean;
  /** Rows that wait in the outbox, counted up to 10,000. */
  readonly waiting: () => Promise<number>;
  readonly clock: Clock;
  readonly log: { info(details: object, message: string): void };
}

/** More is what the count ends with. */
const waitingMax = 10_000;
const lookEveryMs = 500;
const pauseMs = 100;

export class Gate {
  readonly #options: GateOptions;
  #lookedAt = -Infinity;
  #looking: Promise<void> | undefined;
  #isFull = false;
  #isClosed = false;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** Resolves when messages may be taken in, or the signal is aborted. Rejects when the database does not say. */
  async open(signal: AbortSignal): Promise<void> {
    const { isLayerUp, clock } = this.#options;
    for (;;) {
      await this.#look();
      const isClosed = this.#isFull || !isLayerUp();
      this.#say(isClosed);
      if (!isClosed || signal.aborted) return;
      await clock.sleep(pauseMs);
    }
  }

  async #look(): Promise<void> {
    const { waiting, clock } = this.#options;
    if (clock.monotonic() - this.#lookedAt < lookEveryMs) return;
    this.#looking ??= (async () => {
      this.#isFull = (await waiting()) >= waitingMax;
      this.#lookedAt = clock.monotonic();
    })().finally(() => (this.#looking = undefined));
    await this.#looking;
  }

  #say(isClosed: boolean): void {
    if (isClosed === this.#isClosed) return;
    this.#isClosed = isClosed;
    const why = this.#isFull ? 'many changes wait in the outbox' : 'the sync layer is away';
    if (isClosed) this.#options.log.info({}, `sources pause: ${why}`);
    else this.#options.log.info({}, 'sources go on');
  }
}
