// How busy this node was in each step of the last 15 minutes, taken from its own counters. For people who look: what is
// to be kept and compared belongs into Prometheus.
//
// Lifecycle: construct, `start`, read at will, `close`.

import { rateNames, rateStepMs, rateStepsMax, seriesOf, type RateName, type Rates } from '../core/rates.ts';
import type { Clock } from '../time/clock.ts';
import type { Totals } from './totals.ts';

export interface RateHistoryOptions {
  readonly clock: Clock;
  readonly read: () => Promise<Totals>;
  readonly failed: (error: unknown) => void;
}

interface Seen {
  readonly step: number;
  readonly at: number;
  readonly totals: Totals;
}

export class RateHistory {
  readonly #options: RateHistoryOptions;
  readonly #steps: Totals[] = [];
  #last: Seen | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: RateHistoryOptions) {
    this.#options = options;
  }

  start(): void {
    const { clock, failed } = this.#options;
    this.look().catch(failed);
    // All nodes look in the same moments, so that steps of theirs can be added up as soon as they are over.
    this.#timer = setTimeout(() => this.start(), rateStepMs - (clock.now() % rateStepMs));
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  /** What came after this step. */
  since(step: number): Rates {
    const first = (this.#last?.step ?? 0) - this.#steps.length;
    const from = Math.max(first, step + 1);
    const steps = this.#steps.slice(from - first);
    return { from, series: seriesOf((name) => steps.map((each) => each[name])) };
  }

  /** Ends the step that is over, and each before it that had no look of its own. */
  async look(): Promise<void> {
    const { clock, read } = this.#options;
    const totals = await read();
    const at = clock.now();
    const step = Math.floor(at / rateStepMs);
    const last = this.#last;
    // The wall clock may have been set back.
    if (last === undefined || step < last.step) {
      this.#steps.length = 0;
      this.#last = { step, at, totals };
      return;
    }
    if (step === last.step) return;
    const seconds = (at - last.at) / 1_000;
    const perSecond = (name: RateName): number =>
      name === 'connections' ? totals.connections : rounded(Math.max(0, totals[name] - last.totals[name]) / seconds);
    const rates = Object.fromEntries(rateNames.map((name) => [name, perSecond(name)])) as Record<RateName, number>;
    for (let missing = Math.min(step - last.step, rateStepsMax); missing > 0; missing--) this.#steps.push(rates);
    this.#steps.splice(0, this.#steps.length - rateStepsMax);
    this.#last = { step, at, totals };
  }
}

/** Many digits would be sent to other nodes, and shown to nobody. */
function rounded(value: number): number {
  return Number(value.toPrecision(4));
}
