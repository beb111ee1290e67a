// Refused connections in the log: which check failed, and from where. A browser shows its user nothing of it, so an
// operator has only this line. A flood writes a few lines in each period; the next line tells how many were left out.

import type { RealtimeError } from '../protocol/realtime-error.ts';
import type { Clock } from '../time/clock.ts';

export interface RefusalLogOptions {
  readonly write: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly addressOf: (request: Request) => string | undefined;
  readonly clock: Clock;
}

const linesPerPeriod = 100;
const periodMs = 10_000;
/** Clients choose these texts. */
const textLengthMax = 200;

export class RefusalLog {
  readonly #options: RefusalLogOptions;
  #periodEndsAt = Number.NEGATIVE_INFINITY;
  #lines = 0;
  #leftOut = 0;

  constructor(options: RefusalLogOptions) {
    this.#options = options;
  }

  note(transport: string, request: Request, { code, message: reason }: RealtimeError): void {
    const { write, addressOf, clock } = this.#options;
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
    const origin = request.headers.get('origin')?.slice(0, textLengthMax);
    const leftOut = this.#leftOut === 0 ? undefined : this.#leftOut;
    this.#leftOut = 0;
    write({ transport, code, reason, address: addressOf(request), origin, leftOut }, 'a connection was refused');
  }
}
