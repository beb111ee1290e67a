// Subscriptions whose right could not be checked again: whoever decides did not answer. Nobody may go on listening on a
// guess, and nobody may stay subscribed and deaf. So the subscription is suspended, from the first doubt on:
//
//   suspended   nothing that is published reaches it; the check is repeated, after growing pauses
//   allowed     it goes on from where it was suspended, so nothing is lost that its channel keeps
//   forbidden   it ends
//   too long    its connection ends: the client comes back, and resumes by its positions

import { closeCodes } from '../protocol/codes.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';
import type { Connection } from './connection.ts';
import type { Failures } from './failures.ts';
import type { Hub } from './hub.ts';
import type { Recoveries } from './recoveries.ts';
import type { Subscription } from './subscription.ts';

/** What another check may find. */
export type Verdict = 'allowed' | 'forbidden' | 'unknown';

export interface DoubtsOptions {
  readonly hub: Hub;
  readonly recoveries: Recoveries;
  readonly failures: Failures;
  readonly clock: Clock;
}

/** A stall of the database lasts no longer, as a rule. */
const patienceMs = 5_000;
const pauses = { firstMs: 250, maxMs: 1_000 };

export class Doubts {
  readonly #options: DoubtsOptions;
  readonly #suspended = new Set<Subscription>();

  constructor(options: DoubtsOptions) {
    this.#options = options;
  }

  /** Subscriptions that are suspended now. */
  get size(): number {
    return this.#suspended.size;
  }

  /** Suspends the subscription until `check` has an answer. `forbid` ends it. Neither rejects. */
  begin(connection: Connection, subscription: Subscription, check: () => Promise<Verdict>, forbid: () => void): void {
    if (this.#suspended.has(subscription)) return;
    this.#suspended.add(subscription);
    this.#options.hub.suspend(subscription);
    void this.#askAgain(connection, subscription, check, forbid).then(() => this.#suspended.delete(subscription));
  }

  async #askAgain(
    connection: Connection,
    subscription: Subscription,
    check: () => Promise<Verdict>,
    forbid: () => void,
  ): Promise<void> {
    const { hub, recoveries, clock } = this.#options;
    const isOver = () => connection.closed || connection.subscription(subscription.channel) !== subscription;
    const until = clock.monotonic() + patienceMs;
    for (let attempt = 0; clock.monotonic() < until; attempt++) {
      await clock.sleep(pauses.firstMs / 2 + backoffMs(attempt, pauses, clock));
      if (isOver()) return;
      const verdict = await check();
      if (isOver()) return;
      if (verdict === 'forbidden') {
        forbid();
        return;
      }
      if (verdict === 'unknown') continue;
      const recovering = hub.resume(subscription);
      if (recovering !== undefined) recoveries.begin(connection, recovering);
      return;
    }
    if (!isOver()) this.#giveUp(connection, subscription.channel);
  }

  #giveUp({ outlet }: Connection, channel: string): void {
    const error = new RealtimeError('unavailable', 'Whether this is still allowed could not be decided; reconnect.');
    // An event stream ends in order, and its browser comes back; an event of this name would be a failure of the stream.
    if (outlet.takesCommands) this.#options.failures.reply(outlet, error, undefined, channel);
    outlet.disconnect(closeCodes.tryAgainLater, error.code);
  }
}
