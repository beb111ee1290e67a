// Publications of one channel that must not overtake each other: those that a source hands over in order, and those that
// take several messages. The others of a channel wait only while one of these is under way.

import type { Outgoing } from '../../core/sync-adapter.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';

/** The batch whose publication failed, if one did. */
type Failed = string | undefined;

export class Turns {
  readonly #tails = new Map<string, Promise<Failed>>();

  /** Runs it now, or after those before it. What follows a failure in its batch fails too, or it would overtake. */
  take<Value>({ channel, carried }: Outgoing, isSlow: boolean, run: () => Promise<Value>): Promise<Value> {
    const before = this.#tails.get(channel);
    if (before === undefined && carried === undefined && !isSlow) return run();
    const batch = carried === undefined ? undefined : `${carried.source} ${carried.term} ${carried.batch}`;
    const turn = (before ?? Promise.resolve(undefined)).then((failed) => {
      if (batch !== undefined && failed === batch) {
        throw new RealtimeError('unavailable', 'A publication before this one is missing.');
      }
      return run();
    });
    const tail: Promise<Failed> = turn.then(
      () => undefined,
      () => batch,
    );
    this.#tails.set(channel, tail);
    void tail.then(() => {
      if (this.#tails.get(channel) === tail) this.#tails.delete(channel);
    });
    return turn;
  }
}
