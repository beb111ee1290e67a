// Tells the database what this node has, in batches a few times a second, and gives its sign of life. A database that is
// away changes nothing here: what is there when it is back is told then.

import type { Clock } from '../time/clock.ts';
import type { SenderObserver } from './sender.ts';
import type { HookStore } from './store.ts';
import type { Subjects } from './subjects.ts';

export interface ReporterOptions {
  readonly store: HookStore;
  readonly subjects: Subjects;
  /** What a node that ends leaves behind is taken from it after so long. */
  readonly graceMs: number;
  readonly observer: SenderObserver;
  readonly clock: Clock;
  readonly log: (message: string, error: unknown) => void;
}

const everyMs = 200;
const signEveryMs = 3_000;
const batchMax = 500;

export class Reporter {
  readonly #options: ReporterOptions;
  #timer: ReturnType<typeof setInterval> | undefined;
  #telling: Promise<void> | undefined;
  #signAt = -Infinity;
  #isAway = false;

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer ??= setInterval(() => this.#tick(), everyMs);
  }

  /** Never rejects. */
  async close(): Promise<void> {
    const { store, graceMs, log } = this.#options;
    clearInterval(this.#timer);
    await this.#telling;
    try {
      await store.end(graceMs / 1_000);
    } catch (error) {
      log('the end of this node could not be told to the hooks', error);
    }
  }

  #tick(): void {
    this.#telling ??= this.#tell().finally(() => (this.#telling = undefined));
  }

  async #tell(): Promise<void> {
    const { store, subjects, observer, clock, log } = this.#options;
    try {
      for (;;) {
        const due = subjects.due(batchMax);
        if (due.length === 0 && clock.monotonic() - this.#signAt < signEveryMs) break;
        const { known, lost } = await store.change(due);
        this.#signAt = clock.monotonic();
        subjects.told(due);
        if (lost > 0) observer.hooks('lost', lost);
        // Taken for dead meanwhile, or told for the first time: what it had was taken from it.
        if (!known && subjects.size > 0) subjects.forgetTold();
        this.#isAway = false;
      }
    } catch (error) {
      if (!this.#isAway) log('what the hooks are about cannot be told now: the database is away', error);
      this.#isAway = true;
    }
  }
}
