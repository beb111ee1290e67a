// What the recovery of one member asks of its channel and its node. An object with methods, and no closures: a stream of
// fifty channels has fifty recoveries that wait for each other, and hundreds of streams come back at once.

import type { GapReason } from '../protocol/codes.ts';
import type { Position } from '../protocol/position.ts';
import type { Clock } from '../time/clock.ts';
import type { MissedHistory } from './history-reads.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { HubObserver } from './observer.ts';
import type { Outlet } from './outlet.ts';
import { isLagging, waitForPace, type Pace, type Paced } from './pace.ts';
import type { PageBudget } from './page-budget.ts';
import type { RecoveryPorts } from './recovery.ts';
import type { Slices } from './slices.ts';
import type { Subscriber, Subscription } from './subscription.ts';
import type { HistoryPage } from './sync-adapter.ts';

/** The channel, as the recovery of a member needs it. */
export interface RecoveryHome {
  readonly name: string;
  readonly position: Position;
  /** What of its log subscribers have missed. */
  readonly missed: Pick<MissedHistory, 'page'>;
  readonly members: { goLive(subscription: Subscription): void };
}

/** What all recoveries of a node share. */
export interface RecoveryMeans {
  readonly observer: HubObserver;
  readonly clock: Clock;
  readonly pace: Pace;
  /** What waits for sockets, of all recoveries. */
  readonly pages: PageBudget;
  /** In which recoveries send, by the number of publications. */
  readonly slices: Slices;
}

/** Between two looks at whether this node has caught up. */
const pauseMs = 5;

export class RecoveringMember implements RecoveryPorts {
  readonly #home: RecoveryHome;
  readonly #means: RecoveryMeans;
  readonly #subscription: Subscription;

  constructor(home: RecoveryHome, means: RecoveryMeans, subscription: Subscription) {
    this.#home = home;
    this.#means = means;
    this.#subscription = subscription;
  }

  get connection(): string {
    return this.#subscription.subscriber.id;
  }

  get channel(): string {
    return this.#home.name;
  }

  get pages(): PageBudget {
    return this.#means.pages;
  }

  read(since: Position): MaybePromise<HistoryPage> {
    const { account, outlet } = this.#subscription.subscriber;
    // A browser's EventSource gives up for good at an answer that is no stream.
    return this.#home.missed.page(since, { account, asksOnce: !outlet.takesCommands });
  }

  slice(publications: number): Promise<void> | undefined {
    return this.#means.slices.take(publications);
  }

  room(outlet: Outlet): MaybePromise<boolean> {
    const { subscriber } = this.#subscription;
    const { clock, pace, pages } = this.#means;
    if (subscriber.closed) return false;
    // Judged by itself: the pace of live publications, by which the subscriber may be slow already, is stricter.
    const paced = new Recovering(subscriber, outlet);
    const limits = { ...pace.recovery, highWaterBytes: pages.shareBytes };
    if (!isLagging(paced, limits)) return true;
    return waitForPace([paced], clock, limits).then(() => !subscriber.closed && !paced.slow);
  }

  head(): Position {
    return this.#home.position;
  }

  gap(reason: GapReason, position: Position): void {
    tellGap(this.#subscription.subscriber, this.#home.name, this.#means.observer, { reason, position });
  }

  sent(count: number): void {
    this.#means.observer.sent('message', this.#home.name, count);
  }

  sentRows(): void {
    this.#means.observer.sent('snapshot', this.#home.name, 1);
  }

  goLive(): void {
    this.#home.members.goLive(this.#subscription);
  }

  pause(): Promise<void> {
    return this.#means.clock.sleep(pauseMs);
  }

  monotonic(): number {
    return this.#means.clock.monotonic();
  }
}

/** A subscriber as it is waited for. Of one that is gone nothing more is taken in: to wait for that would keep its page. */
class Recovering implements Paced {
  readonly outlet: Outlet;
  slow = false;
  readonly #subscriber: Subscriber;

  constructor(subscriber: Subscriber, outlet: Outlet) {
    this.#subscriber = subscriber;
    this.outlet = outlet;
  }

  get closed(): boolean {
    return this.#subscriber.closed;
  }
}

/** A gap for one member alone; counted. */
export function tellGap(
  { outlet }: Subscriber,
  channel: string,
  observer: HubObserver,
  { reason, position }: { readonly reason: GapReason; readonly position: Position },
): void {
  observer.lost(reason, 1);
  outlet.gap({ channel, position, reason });
}
