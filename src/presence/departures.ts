// Members whose connections are gone, until their time is over: a user who comes back meanwhile never left. All have the
// same time, so they wait in one line, and one timer is enough.

import type { Clock } from '../time/clock.ts';

export interface Departure {
  readonly channel: string;
  readonly connection: string;
  /** Its number: who comes back may part again, with a time of its own. */
  readonly parting: number;
}

export class Departures {
  readonly #graceMs: number;
  readonly #clock: Clock;
  readonly #over: (departure: Departure) => void;
  #line: (Departure & { readonly dueAt: number })[] = [];
  #waiting = false;
  #closed = false;

  /** `over` is called for each whose time is over. */
  constructor(graceMs: number, clock: Clock, over: (departure: Departure) => void) {
    this.#graceMs = graceMs;
    this.#clock = clock;
    this.#over = over;
  }

  add(departure: Departure): void {
    if (this.#closed) return;
    this.#line.push({ ...departure, dueAt: this.#clock.monotonic() + this.#graceMs });
    if (!this.#waiting) void this.#wait();
  }

  close(): void {
    this.#closed = true;
    this.#line = [];
  }

  async #wait(): Promise<void> {
    this.#waiting = true;
    for (let first = this.#line[0]; first !== undefined; first = this.#line[0]) {
      await this.#clock.sleep(Math.max(1, first.dueAt - this.#clock.monotonic()));
      const now = this.#clock.monotonic();
      const count = this.#line.findIndex(({ dueAt }) => dueAt > now);
      const due = this.#line.splice(0, count === -1 ? this.#line.length : count);
      for (const departure of due) this.#over(departure);
    }
    this.#waiting = false;
  }
}
