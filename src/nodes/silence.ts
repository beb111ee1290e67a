// Finds the nodes that are silent because they are dead. A node that hears nobody may be cut off or held up itself. So
// it decides only after it has proved, for longer than the time between two beats, that messages reach it.

import type { SyncAdapter } from '../core/sync-adapter.ts';
import type { Clock } from '../time/clock.ts';
import type { Peer, Peers } from './peers.ts';

/** A beat is late: time to check whether this node receives at all. */
const lateMs = 3_500;
/** A node is dead after this silence. */
export const silentMsMax = 10_000;
/** At the end of the silence this node must have received for this long. */
const provedMsMin = 4_000;
const probeMsMax = 2_000;
/** A process that was held up for this long may not have read yet what arrived meanwhile. */
const heldUpMs = 4_000;

export class Silence {
  readonly #adapter: SyncAdapter;
  readonly #clock: Clock;
  readonly #peers: Peers;
  #lookedAt: number;
  /** Since when this node has proved that it receives; undefined while no beat is late. */
  #hearsSince: number | undefined;

  constructor(adapter: SyncAdapter, clock: Clock, peers: Peers) {
    this.#adapter = adapter;
    this.#clock = clock;
    this.#peers = peers;
    this.#lookedAt = clock.monotonic();
  }

  /** The nodes that are dead now. Call it every second, one call at a time. */
  async dead(): Promise<readonly Peer[]> {
    const startedAt = this.#clock.monotonic();
    const isHeldUp = startedAt - this.#lookedAt > heldUpMs;
    this.#lookedAt = startedAt;
    if (isHeldUp || !this.#adapter.health().up) return this.#excuseAll();
    if (this.#peers.silentFor(lateMs, startedAt).length === 0) {
      this.#hearsSince = undefined;
      return [];
    }
    const hears = await this.#hears();
    const now = this.#clock.monotonic();
    if (!hears || now - startedAt > heldUpMs) return this.#excuseAll();
    this.#hearsSince ??= startedAt;
    return now - this.#hearsSince < provedMsMin ? [] : this.#peers.silentFor(silentMsMax, now);
  }

  #excuseAll(): readonly Peer[] {
    this.#hearsSince = undefined;
    this.#peers.excuse(this.#clock.monotonic());
    return [];
  }

  async #hears(): Promise<boolean> {
    try {
      await this.#adapter.probe(probeMsMax);
      return true;
    } catch {
      return false;
    }
  }
}
