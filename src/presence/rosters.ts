// The lists that this node keeps: of the channels in which it has members, and of those that were asked for lately.

import { Roster, type RosterPorts } from './roster.ts';
import type { Told } from './store.ts';

/** A list that nobody needs is kept this long: whoever asked once often asks again. */
const lingerMs = 10_000;
/** Lists that are read at once. */
const readAtOnce = 16;
/** What is told may be on its way. */
const onItsWayMs = 1_000;

export class Rosters {
  readonly #ports: RosterPorts;
  readonly #kept = new Map<string, Roster>();
  #nextCheck = 0;
  #fault: Error | undefined;

  constructor(ports: RosterPorts) {
    this.#ports = ports;
  }

  /** Why lists could not be compared with the store at last; undefined when they could. */
  get fault(): Error | undefined {
    return this.#fault;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Begins to read it if it is new here. */
  get(channel: string): Roster {
    const known = this.#kept.get(channel);
    if (known !== undefined) {
      known.usedAt = this.#ports.clock.monotonic();
      return known;
    }
    const roster = new Roster(channel, this.#ports);
    this.#kept.set(channel, roster);
    void roster.read();
    return roster;
  }

  take(channel: string, epoch: string, told: readonly Told[]): void {
    this.#kept.get(channel)?.take(epoch, told);
  }

  suspend(): void {
    for (const roster of this.#kept.values()) roster.suspend();
  }

  async readAll(): Promise<void> {
    const rosters = this.#kept.values();
    const readOn = async (): Promise<void> => {
      for (const roster of rosters) await roster.read();
    };
    await Promise.all(Array.from({ length: readAtOnce }, readOn));
  }

  /** Forgets those that nobody needs. `isNeeded`: members of this node are in it. */
  sweep(isNeeded: (channel: string) => boolean): void {
    const { store, clock } = this.#ports;
    const now = clock.monotonic();
    for (const roster of this.#kept.values()) {
      const { channel, usedAt } = roster;
      if (now - usedAt < lingerMs || isNeeded(channel)) continue;
      this.#kept.delete(channel);
      roster.close();
      store.unwatch(channel);
    }
  }

  /**
   * Compares the next few with the store, as many as it answers for in one question, and reads those that lag behind it:
   * what no signal told of is found all the same.
   */
  async checkSome(): Promise<void> {
    const { store, clock } = this.#ports;
    const all = [...this.#kept.values()];
    if (all.length === 0) this.#fault = undefined;
    if (this.#nextCheck >= all.length) this.#nextCheck = 0;
    const some = all.slice(this.#nextCheck, this.#nextCheck + store.positionsMax).filter(({ isLive }) => isLive);
    this.#nextCheck += store.positionsMax;
    if (some.length === 0) return;
    try {
      const positions = await store.positions(some.map(({ channel }) => channel));
      this.#fault = undefined;
      await clock.sleep(onItsWayMs);
      some.forEach((roster, index) => {
        const position = positions[index];
        if (position === undefined || !roster.isLive) return;
        if (position.epoch !== roster.epoch || position.version > roster.version) void roster.read();
      });
    } catch (error) {
      // The next beat checks again. Health tells of it.
      this.#fault = error instanceof Error ? error : new Error('lists could not be compared', { cause: error });
    }
  }

  close(): void {
    for (const roster of this.#kept.values()) roster.close();
    this.#kept.clear();
  }
}
