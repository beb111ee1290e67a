// The parts that were started, to be closed in reverse order. A part that fails or hangs does not stop the others.

import { isDoneWithin } from '../time/within.ts';
import type { Logger } from './logger.ts';

const stepTimeoutMs = 10_000;

interface Step {
  readonly name: string;
  readonly close: () => void | Promise<void>;
}

export class CloseStack {
  readonly #log: Logger;
  #steps: Step[] = [];
  #closing = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** A part that was still starting while the others were closed is closed at once. */
  add(name: string, close: () => void | Promise<void>): void {
    if (this.#closing) void this.#closeStep({ name, close });
    else this.#steps.push({ name, close });
  }

  /** Idempotent; never rejects. */
  async close(): Promise<void> {
    this.#closing = true;
    const steps = this.#steps.reverse();
    this.#steps = [];
    for (const step of steps) await this.#closeStep(step);
  }

  async #closeStep({ name, close }: Step): Promise<void> {
    try {
      const closed = (async () => close())();
      if (!(await isDoneWithin(closed, stepTimeoutMs))) this.#log.warn({ part: name }, 'did not close in time');
    } catch (error) {
      this.#log.error({ err: error, part: name }, 'failed to close');
    }
  }
}
