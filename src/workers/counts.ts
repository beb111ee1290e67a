// What one worker has counted, over all processes that it was. It keeps the last counts of a process, so that a worker
// that dies or hangs takes nothing away from the sums.

import { countedBy, type MetricsSnapshot } from '../metrics/together.ts';
import { isDoneWithin } from '../time/within.ts';

/** A worker that hangs holds up nobody's scrape for longer. */
const answerMs = 1_000;

export class Counts {
  #before: MetricsSnapshot | undefined;
  #last: MetricsSnapshot | undefined;
  readonly #asked = new Map<number, () => void>();
  #count = 0;

  get known(): readonly MetricsSnapshot[] {
    // The present process first: it knows all metrics, in their order.
    return [this.#last, this.#before].filter((snapshot) => snapshot !== undefined);
  }

  /** `order` asks the process; the answer goes to `counted`. */
  async ask(order: (id: number) => void): Promise<readonly MetricsSnapshot[]> {
    const id = ++this.#count;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#asked.set(id, resolve);
    order(id);
    await isDoneWithin(promise, answerMs);
    this.#asked.delete(id);
    return this.known;
  }

  counted(id: number | undefined, metrics: MetricsSnapshot): void {
    this.#last = metrics;
    if (id !== undefined) this.#asked.get(id)?.();
  }

  /** The process has ended; another one will count from 0. */
  async ended(): Promise<void> {
    const { known } = this;
    this.#last = undefined;
    if (known.length > 0) this.#before = await countedBy(known);
  }
}
