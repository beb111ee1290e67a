// One line of the log for each connection, at its end: who it was, how long it lasted, what it did, why it ended.

import type { Session } from '../core/session.ts';
import type { Clock } from '../time/clock.ts';
import { closeCodes } from '../protocol/codes.ts';
import { SampledLog, type SampledLogOptions } from './sampled-log.ts';

/** Close reasons may be the client's own words. */
const reasonLengthMax = 200;
/** In a reason of a close that no frame tells the client. */
export const slowReader = 'it read too slowly';

const causes: Readonly<Record<number, string>> = {
  [closeCodes.normal]: 'the client closed it',
  [closeCodes.goingAway]: 'the client left',
  1005: 'the client closed it',
  1006: 'the client left, or the connection was lost',
};

export class ConnectionLog {
  readonly #log: SampledLog;
  readonly #clock: Clock;

  constructor(options: SampledLogOptions) {
    this.#log = new SampledLog(options);
    this.#clock = options.clock;
  }

  ended({ id, identity, outlet, since, commandCount, subscriptionCount }: Session, code: number, reason: string): void {
    this.#log.line('a connection ended', () => ({
      connection: id,
      transport: outlet.transport,
      user: identity.user ?? undefined,
      seconds: Math.max(0, this.#clock.now() - since) / 1_000,
      // An event stream sends none.
      commands: outlet.takesCommands ? commandCount : undefined,
      channels: subscriptionCount,
      code,
      cause: reason.slice(0, reasonLengthMax) || causes[code] || 'no reason was given',
    }));
  }
}
