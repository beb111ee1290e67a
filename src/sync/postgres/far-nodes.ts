// Which other nodes are beyond this node's bus: nodes of the same log that show by the database that they live, and are
// not heard on the bus. They have another bus, or one of theirs and ours is away.

import type { Clock } from '../../time/clock.ts';

export interface FarNodesOptions {
  readonly clock: Clock;
  /** So many nodes have been beyond the bus for a while; 0 after that when there is none any more. */
  readonly changed: (count: number) => void;
}

/** On its bus a node shows itself every second, by the database every three. */
const silentMsMax = 4_000;
const goneAfterMs = 12_000;
/** Shown so often by the database alone. Once may be this node's own delay. */
const surelyMin = 3;

interface Far {
  readonly at: number;
  readonly times: number;
}

export class FarNodes {
  readonly #options: FarNodesOptions;
  readonly #since: number;
  /** When each was heard on the bus. */
  readonly #near = new Map<string, number>();
  readonly #far = new Map<string, Far>();
  #told = 0;

  /** Made when the bus listens. */
  constructor(options: FarNodesOptions) {
    this.#options = options;
    this.#since = options.clock.monotonic();
  }

  /** There is one. */
  get any(): boolean {
    if (this.#far.size > 0) this.#forget(this.#far, ({ at }) => at);
    return this.#far.size > 0;
  }

  heardOnBus(node: string): void {
    this.#near.set(node, this.#options.clock.monotonic());
    if (this.#far.delete(node)) this.#tell();
  }

  heardByDatabase(node: string): void {
    const now = this.#options.clock.monotonic();
    this.#forget(this.#near, (at) => at);
    const silentMs = now - (this.#near.get(node) ?? this.#since);
    if (silentMs > silentMsMax) this.#far.set(node, { at: now, times: (this.#far.get(node)?.times ?? 0) + 1 });
    this.#tell();
  }

  /** Nodes that have ended. */
  #forget<Heard>(nodes: Map<string, Heard>, at: (heard: Heard) => number): void {
    const now = this.#options.clock.monotonic();
    for (const [node, heard] of nodes) if (now - at(heard) > goneAfterMs) nodes.delete(node);
  }

  #tell(): void {
    const isAny = this.any;
    const count = [...this.#far.values()].filter(({ times }) => times >= surelyMin).length;
    if (count === this.#told || (count === 0 && isAny)) return;
    this.#told = count;
    this.#options.changed(count);
  }
}
