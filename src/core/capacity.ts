// How many a channel takes, where a rule limits that. This node's subscribers are counted in the very step in which a
// connection is added, so that one node alone is exact. Those of other nodes are counted before. Nodes that count in the
// same few milliseconds do not see each other's new subscribers, so together they can exceed the limit by those.

import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Access } from './access.ts';
import type { Cluster } from './cluster.ts';
import type { Connection } from './connection.ts';
import type { Hub } from './hub.ts';

export interface CapacityOptions {
  readonly hub: Hub;
  readonly access: Access;
  /** All nodes together, this one among them; undefined before it has joined them. */
  readonly cluster: () => Cluster | undefined;
}

export class Capacity {
  readonly #options: CapacityOptions;
  /** Channels whose subscribers on the other nodes are being counted. */
  readonly #counting = new Map<string, Promise<number>>();

  constructor(options: CapacityOptions) {
    this.#options = options;
  }

  /** Subscribers on the other nodes; 0 where there is no limit, or where this node alone has reached it. */
  elsewhere(channel: string): Promise<number> | 0 {
    if (this.#options.access.subscribersMax(channel) === undefined || this.#isFull(channel, 0)) return 0;
    const known = this.#counting.get(channel);
    if (known !== undefined) return known;
    const counting = this.#countElsewhere(channel).finally(() => this.#counting.delete(channel));
    this.#counting.set(channel, counting);
    return counting;
  }

  /** Throws `limit_exceeded` if one of the channels has no room for the connection. */
  require(connection: Connection, channels: readonly string[], elsewhere: readonly number[]): void {
    const full = channels.find((name, index) => {
      return connection.subscription(name) === undefined && this.#isFull(name, elsewhere[index] ?? 0);
    });
    if (full !== undefined) throw new RealtimeError('limit_exceeded', `${full} has no room for one more.`);
  }

  #isFull(channel: string, elsewhere: number): boolean {
    const { access, hub } = this.#options;
    const max = access.subscribersMax(channel);
    return max !== undefined && hub.subscribers(channel) + elsewhere >= max;
  }

  /** A node that does not answer within a second is taken to hold nobody: it may be dead. */
  async #countElsewhere(channel: string): Promise<number> {
    const { hub } = this.#options;
    const cluster = this.#options.cluster();
    if (cluster === undefined) return 0;
    const here = hub.subscribers(channel);
    const { value } = await cluster.subscribers(channel);
    return Math.max(0, value - here);
  }
}
