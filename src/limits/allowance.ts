// How much each key may spend in a window of time. A node fetches points in slices from the store that counts for all
// nodes, and spends them without asking: most answers need no round trip, and all nodes together never give out more
// than the limit. What a node has fetched and not spent when the window ends is lost. So a user whose commands go to
// several nodes may be refused earlier, by a slice less one per node.
//
// A window begins with the first point that is spent in it. Time is measured, not read from a clock that may be set.

import type { Clock } from '../time/clock.ts';
import { whenKnown, type MaybePromise } from '../core/maybe-promise.ts';

export interface Slice {
  /** As much as was asked for, or what was left. */
  readonly granted: number;
  /** Until the window ends. */
  readonly milliseconds: number;
}

export interface AllowanceOptions {
  readonly limit: number;
  readonly windowMs: number;
  /** Never rejects. Undefined where no other node counts: then the slice is the limit, taken once per window. */
  readonly fetch: ((key: string, points: number) => Promise<Slice>) | undefined;
  /**
   * What each node gives out in a window before it asks, and counts once it does: a crowd that comes back at once asks
   * nobody. All nodes together may pass the limit by this much for each node. Default: 0.
   */
  readonly free?: number;
  readonly clock: Clock;
}

export interface Exhausted {
  /** Whole seconds until one more is let through. */
  readonly retryAfter: number;
  /** How many were refused in this window. */
  readonly refused: number;
}

export interface Taken {
  readonly count: number;
  readonly exhausted: Exhausted | undefined;
}

const slices = 10;

interface Account {
  credits: number;
  creditsUntil: number;
  /** Until then no node has anything left, and the store is not asked. */
  emptyUntil: number;
  refused: number;
  /** Given out and not yet counted where all nodes are. */
  owed: number;
  fetching: Promise<void> | undefined;
}

export class Allowance {
  readonly #options: AllowanceOptions;
  readonly #slice: number;
  readonly #accounts = new Map<string, Account>();

  constructor(options: AllowanceOptions) {
    this.#options = options;
    this.#slice = Math.max(1, Math.floor(options.limit / slices));
  }

  get size(): number {
    return this.#accounts.size;
  }

  /** Undefined when it was spent. `count` is at most the limit. */
  spend(key: string, count = 1): MaybePromise<Exhausted | undefined> {
    const account = this.#accounts.get(key) ?? this.#open(key);
    const now = this.#options.clock.monotonic();
    if (now < account.creditsUntil && account.credits >= count) {
      account.credits -= count;
      return undefined;
    }
    if (now < account.emptyUntil) {
      account.refused++;
      return refusalOf(account, now);
    }
    const fetched = this.#replenish(key, account, count, now);
    // Others who waited for the same slice may have spent it. Each turn lets at least one of them pass.
    return fetched === undefined ? this.spend(key, count) : fetched.then(() => this.spend(key, count));
  }

  /** As many of these as are left; `exhausted` if they are not all. */
  take(key: string, count: number): MaybePromise<Taken> {
    const account = this.#accounts.get(key) ?? this.#open(key);
    const now = this.#options.clock.monotonic();
    const here = now < account.creditsUntil ? Math.min(count, account.credits) : 0;
    account.credits -= here;
    const rest = count - here;
    if (rest === 0) return { count, exhausted: undefined };
    if (now < account.emptyUntil) {
      account.refused += rest;
      return { count: here, exhausted: refusalOf(account, now) };
    }
    const fetched = this.#replenish(key, account, Math.min(rest, this.#options.limit), now);
    return whenKnown(fetched, () =>
      whenKnown(this.take(key, rest), (taken) => ({ ...taken, count: here + taken.count })),
    );
  }

  /** Whether one more would be refused, as far as this node knows. */
  exhausted(key: string): Exhausted | undefined {
    const account = this.#accounts.get(key);
    const now = this.#options.clock.monotonic();
    if (account === undefined || now >= account.emptyUntil) return undefined;
    return account.credits > 0 && now < account.creditsUntil ? undefined : refusalOf(account, now);
  }

  /** For a key that is never used again. */
  forget(key: string): void {
    this.#accounts.delete(key);
  }

  /** Drops the keys whose window has ended. */
  sweep(): void {
    const now = this.#options.clock.monotonic();
    for (const [key, { fetching, creditsUntil, emptyUntil }] of this.#accounts) {
      if (fetching === undefined && now >= creditsUntil && now >= emptyUntil) this.#accounts.delete(key);
    }
  }

  #open(key: string): Account {
    const account: Account = { credits: 0, creditsUntil: 0, emptyUntil: 0, refused: 0, owed: 0, fetching: undefined };
    this.#accounts.set(key, account);
    return account;
  }

  #replenish(key: string, account: Account, points: number, now: number): Promise<void> | undefined {
    if (account.fetching !== undefined) return account.fetching;
    if (now >= account.creditsUntil) account.credits = 0;
    account.refused = 0;
    const { fetch, limit, windowMs, free = 0 } = this.#options;
    if (free > 0 && now >= account.creditsUntil) {
      account.owed = free;
      this.#credit(account, { granted: free, milliseconds: windowMs }, free, now);
      return undefined;
    }
    if (fetch === undefined) {
      const granted = now < account.creditsUntil ? 0 : limit;
      this.#credit(
        account,
        { granted, milliseconds: granted === 0 ? account.creditsUntil - now : windowMs },
        limit,
        now,
      );
      return undefined;
    }
    const wanted = Math.max(this.#slice, points - account.credits);
    const { owed } = account;
    account.owed = 0;
    account.fetching = fetch(key, wanted + owed).then(({ granted, milliseconds }) => {
      account.fetching = undefined;
      this.#credit(account, { granted: Math.max(0, granted - owed), milliseconds }, wanted, now);
    });
    return account.fetching;
  }

  #credit(account: Account, { granted, milliseconds }: Slice, wanted: number, askedAt: number): void {
    // Counted from the question, it ends here no later than where it is kept.
    const until = askedAt + milliseconds;
    // The former window may have ended while the question was on its way, and what was left of it with it.
    const isSameWindow = until - account.creditsUntil < this.#options.windowMs / 2;
    account.credits = (isSameWindow ? account.credits : 0) + granted;
    account.creditsUntil = until;
    // Counted from the answer, it ends here no earlier: who comes back in time is not refused again.
    if (granted < wanted) account.emptyUntil = this.#options.clock.monotonic() + milliseconds;
  }
}

function refusalOf({ emptyUntil, refused }: Account, now: number): Exhausted {
  return { retryAfter: Math.max(1, Math.ceil((emptyUntil - now) / 1_000)), refused };
}
