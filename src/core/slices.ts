// Work that thousands ask for in the same moment is done in slices, and between two slices the event loop serves
// everybody else: those who publish, and those who ask whether the node is well.

interface Waiting {
  readonly cost: number;
  readonly resolve: () => void;
}

export class Slices {
  /** What one turn of the event loop takes on. */
  readonly #costMax: number;
  readonly #waiting: Waiting[] = [];
  #left: number;
  #scheduled = false;

  constructor(costMax: number) {
    this.#costMax = costMax;
    this.#left = costMax;
  }

  /** Undefined when the work may be done now; otherwise resolves when it may. In the order of the calls. */
  take(cost: number): Promise<void> | undefined {
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => this.#next());
    }
    // Whoever waits does so because nothing is left.
    if (this.#left > 0) {
      this.#left -= cost;
      return undefined;
    }
    return new Promise((resolve) => this.#waiting.push({ cost, resolve }));
  }

  #next(): void {
    this.#left = this.#costMax;
    let count = 0;
    for (const { cost, resolve } of this.#waiting) {
      if (this.#left <= 0) break;
      this.#left -= cost;
      count++;
      resolve();
    }
    this.#waiting.splice(0, count);
    // What was let through counts against this turn, also for those who come in it.
    this.#scheduled = count > 0;
    if (this.#scheduled) setImmediate(() => this.#next());
  }
}
