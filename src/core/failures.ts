// What clients are told when something failed: expected errors as they are, any other as `internal`, while the log has
// the whole of it.

import { encodeFrame, withId, type CommandId, type ErrorFrame } from '../protocol/frames.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { HubObserver } from './observer.ts';
import type { Outlet } from './outlet.ts';

export class Failures {
  readonly #observer: HubObserver;
  readonly #log: (message: string, error: unknown) => void;

  constructor(observer: HubObserver, log: (message: string, error: unknown) => void) {
    this.#observer = observer;
    this.#log = log;
  }

  /** The error that a client may see. Counts it by its code. */
  expected(error: unknown): RealtimeError {
    const expected =
      error instanceof RealtimeError ? error : new RealtimeError('internal', undefined, { cause: error });
    if (expected.code === 'internal') this.#log('a command failed unexpectedly', error);
    this.#observer.error(expected.code);
    return expected;
  }

  /** Sends the error to the client, with the id and the channel of the command that failed. */
  reply(outlet: Outlet, error: unknown, id?: CommandId, channel?: string): void {
    const frame: ErrorFrame = {
      type: 'error',
      ...withId(id),
      ...(channel === undefined ? {} : { channel }),
      ...this.expected(error).body(),
    };
    outlet.send('error', encodeFrame(frame));
  }
}
