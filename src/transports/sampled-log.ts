// Lines of the log that clients cause. A flood writes a few of them in each period; the next line tells how many were
// left out.

import type { Clock } from '../time/clock.ts';

export interface SampledLogOptions {
  readonly write: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly clock: Clock;
}

const linesPerPeriod = 100;
const periodMs = 10_000;

export class SampledLog {
  readonly #options: SampledLogOptions;
  #periodEndsAt = Number.NEGATIVE_INFINITY;
  #lines = 0;
  #leftOut = 0;

  constructor(options: SampledLogOptions) {
    this.#options = options;
  }

  /** `fields` is asked only for a line that is written. */
  line(message: string, fields: () => Readonly<Record<string, unknown>>): void {
    const { write, clock } = this.#options;
    const now = clock.monotonic();
    if (now >= this.#periodEndsAt) {
      this.#periodEndsAt = now + periodMs;
      this.#lines = 0;
    }
    if (this.#lines >= linesPerPeriod) {
      this.#leftOut++;
      return;
    }
    this.#lines++;
    const leftOut = this.#leftOut === 0 ? undefined : this.#leftOut;
    this.#leftOut = 0;
    write({ ...fields(), leftOut }, message);
  }
}
