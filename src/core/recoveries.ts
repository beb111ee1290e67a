// The recoveries of each connection, one after another: its socket takes no more at once, and what they would read
// meanwhile would only wait in memory.

import type { Connection } from './connection.ts';
import type { Failures } from './failures.ts';
import type { Home } from './members.ts';
import type { Recovery } from './recovery.ts';
import type { Subscription } from './subscription.ts';

/** A subscription whose subscriber is about to catch up. */
export interface Recovering {
  readonly subscription: Subscription;
  readonly channel: Home;
  readonly recovery: Recovery;
}

export class Recoveries {
  readonly #failures: Failures;
  /** Those that wait, of each connection that has one under way. */
  readonly #waiting = new Map<Connection, Recovering[]>();

  constructor(failures: Failures) {
    this.#failures = failures;
  }

  /** Runs it after those of the connection that came before. */
  begin(connection: Connection, recovering: Recovering): void {
    const waiting = this.#waiting.get(connection);
    if (waiting === undefined) void this.#run(connection, [recovering]);
    else waiting.push(recovering);
  }

  async #run(connection: Connection, waiting: Recovering[]): Promise<void> {
    this.#waiting.set(connection, waiting);
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await this.#recover(connection, next);
    this.#waiting.delete(connection);
  }

  /** Never rejects. */
  async #recover(connection: Connection, recovering: Recovering): Promise<void> {
    const { subscription, recovery } = recovering;
    try {
      const caughtUp = await recovery.run(connection.outlet);
      // Too slow to take in what it missed: it comes back and goes on from the position that it reached.
      if (!caughtUp && !connection.closed && subscription.recovery === recovery) connection.outlet.terminate();
    } catch (error) {
      this.#abandon(connection, recovering, error);
    }
  }

  /** History could not be read. The client was promised everything, so the promise is taken back. */
  #abandon(connection: Connection, { subscription, channel, recovery }: Recovering, error: unknown): void {
    // Ended meanwhile, by an unsubscribe or with the connection.
    if (connection.closed || subscription.recovery !== recovery) return;
    channel.members.endRecovery(subscription);
    this.#failures.reply(connection.outlet, error, undefined, channel.name);
    connection.outlet.terminate();
  }
}
