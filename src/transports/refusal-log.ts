// Refused connections in the log: which check failed, and from where. A browser shows its user nothing of it, so an
// operator has only this line.

import type { RealtimeError } from '../protocol/realtime-error.ts';
import { SampledLog, type SampledLogOptions } from './sampled-log.ts';

export interface RefusalLogOptions extends SampledLogOptions {
  readonly addressOf: (request: Request) => string | undefined;
}

/** Clients choose these texts. */
const textLengthMax = 200;

export class RefusalLog {
  readonly #log: SampledLog;
  readonly #addressOf: RefusalLogOptions['addressOf'];

  constructor(options: RefusalLogOptions) {
    this.#log = new SampledLog(options);
    this.#addressOf = options.addressOf;
  }

  note(transport: string, request: Request, { code, message: reason }: RealtimeError): void {
    this.#log.line('a connection was refused', () => {
      const origin = request.headers.get('origin')?.slice(0, textLengthMax);
      return { transport, code, reason, address: this.#addressOf(request), origin };
    });
  }
}
