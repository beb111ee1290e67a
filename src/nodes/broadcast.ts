// The periodic report on `$system`: that this node lives, and how many connections it has.

import type { Failures } from '../core/failures.ts';
import type { Hub } from '../core/hub.ts';
import type { Sessions } from '../core/sessions.ts';
import type { Clock } from '../time/clock.ts';

export interface BroadcastOptions {
  readonly hub: Hub;
  readonly sessions: Sessions;
  readonly failures: Failures;
  readonly clock: Clock;
  readonly nodeId: string;
  /** 0 turns it off. */
  readonly intervalSeconds: number;
}

export class Broadcast {
  readonly #options: BroadcastOptions;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(options: BroadcastOptions) {
    this.#options = options;
  }

  start(): void {
    const { intervalSeconds } = this.#options;
    if (intervalSeconds > 0) this.#timer = setInterval(() => void this.#report(), intervalSeconds * 1_000);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #report(): Promise<void> {
    const { hub, sessions, failures, clock, nodeId } = this.#options;
    const data = JSON.stringify({ at: clock.now(), node: nodeId, connections: sessions.size });
    try {
      await hub.publish({ channel: '$system', data, source: 'server' });
    } catch (error) {
      // The sync layer is away and reports that itself. The next report replaces this one.
      failures.expected(error);
    }
  }
}
