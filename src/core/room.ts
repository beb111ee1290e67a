// Whether a channel has room for one more, where its rule sets a limit: connections subscribed on all nodes.
//
// What this node holds is counted in the very step in which a connection is added, so that one node alone is exact. What
// the others hold is asked for before: those that several nodes take in within the time that an answer takes, a few
// milliseconds, do not see each other, and a channel can come to hold that many more than its limit.

import type { Cluster } from './cluster.ts';
import type { Hub } from './hub.ts';

export class Room {
  readonly #hub: Hub;
  readonly #cluster: () => Cluster | undefined;
  readonly #asked = new Map<string, Promise<number>>();

  constructor(hub: Hub, cluster: () => Cluster | undefined) {
    this.#hub = hub;
    this.#cluster = cluster;
  }

  /** Connections subscribed on the other nodes; not asked for where there is no limit, or this node alone is full. */
  async elsewhere(channel: string): Promise<number> {
    return this.#hub.access.subscribersMax(channel) === undefined || this.isFull(channel, 0)
      ? 0
      : await this.#others(channel);
  }

  isFull(channel: string, elsewhere: number): boolean {
    const max = this.#hub.access.subscribersMax(channel);
    return max !== undefined && this.#here(channel) + elsewhere >= max;
  }

  #here(channel: string): number {
    return this.#hub.channels.get(channel)?.sessions.size ?? 0;
  }

  #others(channel: string): Promise<number> {
    const known = this.#asked.get(channel);
    if (known !== undefined) return known;
    const asked = this.#ask(channel).finally(() => this.#asked.delete(channel));
    this.#asked.set(channel, asked);
    return asked;
  }

  /** A node that does not answer within a second is taken to hold nobody: it may be dead. */
  async #ask(channel: string): Promise<number> {
    const cluster = this.#cluster();
    if (cluster === undefined) return 0;
    const before = this.#here(channel);
    const { value } = await cluster.subscribers(channel);
    return Math.max(0, value - before);
  }
}
