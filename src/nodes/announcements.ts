// The publications on `$nodes`: each change once, however many nodes have noticed it. All of them publish it under the
// same idempotency key, and the log keeps the first. Where the channel has no log, one node is chosen to publish.

import type { NodeState } from '../core/cluster.ts';
import type { Hub } from '../core/hub.ts';
import type { Rules } from '../rules/rules.ts';
import type { Clock } from '../time/clock.ts';

const nodesChannel = '$nodes';

export interface Change {
  readonly event: 'up' | 'down';
  readonly node: string;
  /** The idempotency key: the same on every node that notices the change. */
  readonly key: string;
  /** The change is about this node itself. Without a log, only it or the chosen node publishes. */
  readonly isOwn: boolean;
}

export interface AnnouncementPorts {
  readonly hub: Hub;
  readonly rules: Rules;
  readonly clock: Clock;
  /** All nodes that are alive at the moment of publishing. */
  readonly nodes: () => readonly NodeState[];
  /** Whether this node is the chosen one. */
  readonly isChosen: () => boolean;
  readonly failed: (error: unknown) => void;
}

/** Changes that wait while the sync layer is away. Older ones are dropped: each names all nodes that are alive. */
const waitingMax = 100;

export class Announcements {
  readonly #ports: AnnouncementPorts;
  #waiting: Change[] = [];
  #flushing: Promise<boolean> | undefined;

  constructor(ports: AnnouncementPorts) {
    this.#ports = ports;
  }

  add(change: Change): void {
    this.#waiting.push(change);
    if (this.#waiting.length > waitingMax) this.#waiting.shift();
    void this.flush();
  }

  /** Publishes what waits, in order; true when nothing is left. Never rejects: after false, call it again later. */
  flush(): Promise<boolean> {
    if (this.#waiting.length === 0) return Promise.resolve(true);
    return (this.#flushing ??= this.#flush());
  }

  async #flush(): Promise<boolean> {
    try {
      for (let change = this.#waiting[0]; change !== undefined; change = this.#waiting[0]) {
        await this.#publish(change);
        if (this.#waiting[0] === change) this.#waiting.shift();
      }
      return true;
    } catch (error) {
      this.#ports.failed(error);
      return false;
    } finally {
      // In the same step as the last check of the queue: a change that is added later starts a flush of its own.
      this.#flushing = undefined;
    }
  }

  async #publish({ event, node, key, isOwn }: Change): Promise<void> {
    const { hub, rules, clock, nodes, isChosen } = this.#ports;
    if (!isOwn && !rules.for(nodesChannel).recoverable && !isChosen()) return;
    const data = JSON.stringify({ event, node, at: clock.now(), nodes: nodes() });
    await hub.publish({ channel: nodesChannel, data, key, source: 'server' });
  }
}
