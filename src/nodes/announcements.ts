// The publications on `$nodes`: each change once, whichever nodes have seen it. All of them bring it under the same
// idempotency key, and the log takes the first; where there is no log to do so, one node is chosen.

import type { Hub } from '../core/hub.ts';
import type { Rules } from '../rules/rules.ts';
import type { Clock } from '../time/clock.ts';

export const nodesChannel = '$nodes';

export interface NodeState {
  readonly node: string;
  readonly connections: number;
  readonly since: number;
}

export interface Change {
  readonly event: 'up' | 'down';
  readonly node: string;
  /** Names the change wherever it is seen. */
  readonly key: string;
  /** Without a log only this node or the chosen one publishes. */
  readonly isOwn: boolean;
}

export interface AnnouncementPorts {
  readonly hub: Hub;
  readonly rules: Rules;
  readonly clock: Clock;
  /** All nodes that live, as they are when the change is published. */
  readonly nodes: () => readonly NodeState[];
  /** Whether this node is the one that publishes what several have seen. */
  readonly isChosen: () => boolean;
  readonly failed: (error: unknown) => void;
}

/** What waits while the sync layer is away; the newest say all that is true by then. */
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

  /** Publishes what waits, in order; true when nothing waits any more. Never rejects: call it again later. */
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
      // In the same step as the last look: what is added after it finds nobody at work and begins anew.
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
