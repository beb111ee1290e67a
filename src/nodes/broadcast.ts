// The periodic report on `$system`: that this node lives, and how many connections it has.

import type { Hub } from '../core/hub.ts';

export class Broadcast {
  readonly #hub: Hub;
  readonly #intervalSeconds: number;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(hub: Hub, intervalSeconds: number) {
    this.#hub = hub;
    this.#intervalSeconds = intervalSeconds;
  }

  start(): void {
    if (this.#intervalSeconds > 0) this.#timer = setInterval(() => void this.#report(), this.#intervalSeconds * 1_000);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #report(): Promise<void> {
    const { clock, options, sessions } = this.#hub;
    const data = JSON.stringify({ at: clock.now(), node: options.nodeId, connections: sessions.size });
    try {
      await this.#hub.publish({ channel: '$system', data, source: 'server' });
    } catch (error) {
      // The sync layer is away, which it reports itself; the next report tells the same.
      this.#hub.expected(error);
    }
  }
}
