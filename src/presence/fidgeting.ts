// Who leaves and comes back again and again, which everyone in the channel would have to hear. Such a user is given the
// time of grace at each leave, so that coming back within it is heard by nobody.

import type { Clock } from '../time/clock.ts';

/** Leaves of a user from a channel that are told at once, per minute. */
const leavesMax = 6;
const windowMs = 60_000;
/** Users that are remembered at once; past it everyone is. */
const rememberedMax = 20_000;

interface Leaves {
  readonly since: number;
  count: number;
}

export class Fidgeting {
  readonly #clock: Clock;
  readonly #leaves = new Map<string, Leaves>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Counts a leave. `who` is a user, or a connection without one. */
  isEndless(who: string, channel: string): boolean {
    const key = `${channel} ${who}`;
    const now = this.#clock.monotonic();
    const known = this.#leaves.get(key);
    if (known !== undefined && now - known.since < windowMs) return ++known.count > leavesMax;
    if (this.#leaves.size >= rememberedMax) return true;
    this.#leaves.set(key, { since: now, count: 1 });
    return false;
  }

  sweep(): void {
    const now = this.#clock.monotonic();
    for (const [key, { since }] of this.#leaves) if (now - since >= windowMs) this.#leaves.delete(key);
  }
}
