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
  /** The last one of each connection that has one. */
  readonly #running = new Map<Connection, Promise<void>>();

  constructor(failures: Failures) {
    this.#failures = failures;
  }

  /** Runs it after those of the connection that came before. */
  begin(connection: Connection, recovering: Recovering): void {
    const before = this.#running.get(connection);
    const recover = (): Promise<void> => this.#recover(connection, recovering);
    const running = before === undefined ? recover() : before.then(recover);
    this.#running.set(connection, running);
    void running.then(() => {
      if (this.#running.get(connection) === running) this.#running.delete(connection);
    });
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
