// A step of the start that needs the database or the sync layer. Either may be absent, full or slow for a moment: then the
// step is repeated for a while, and the log says once what the start waits for.

import type { Clock } from '../time/clock.ts';
import { isPassingFailure, patiently } from '../time/patiently.ts';
import { plainCause } from './causes.ts';
import type { Logger } from './logger.ts';

export interface PatientStepOptions {
  readonly log: Pick<Logger, 'warn'>;
  readonly clock: Clock;
  /** Default: failures of a network, and of a server that is starting, full or slow. */
  readonly mayPass?: (error: unknown) => boolean;
}

/** `what` stands in the log after "waiting for". The step must be one that can be repeated after it failed. */
export function patientStep<Value>(
  what: string,
  step: () => Promise<Value>,
  { log, clock, mayPass = isPassingFailure }: PatientStepOptions,
): Promise<Value> {
  return patiently(step, {
    mayPass,
    waiting: (error) => log.warn({ cause: plainCause(error) ?? String(error) }, `waiting for ${what}`),
    clock,
  });
}
