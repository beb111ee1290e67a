// The members of one channel on this node: its subscriptions. They are added, held back while they recover, reached by
// the transports' fan-outs once they are live, and removed here alone.
//
//   added        nothing is sent to it yet
//   recovering   live publications are held back for it, and history is read; see recovery.ts
//   live         its transport's fan-out reaches it
//   suspended    nothing reaches it, and nothing is held for it; it goes on from where it was suspended

import type { GapReason } from '../protocol/codes.ts';
import type { Position } from '../protocol/position.ts';
import type { Clock } from '../time/clock.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { HubObserver } from './observer.ts';
import type { Fanout, Gap } from './outlet.ts';
import type { PageBudget } from './page-budget.ts';
import { isLagging, waitForPace, type Pace, type Paced, type PaceLimits } from './pace.ts';
import type { Publication } from './publication.ts';
import { Recovery, type RecoveryLimits, type RecoveryPorts } from './recovery.ts';
import type { Slices } from './slices.ts';
import { Subscription, type Subscriber } from './subscription.ts';
import type { Snapshot } from './snapshot.ts';
import type { HistoryPage } from './sync-adapter.ts';

/** The channel, as its members see it. */
export interface Home {
  readonly name: string;
  readonly epoch: string;
  readonly offset: number;
  readonly position: Position;
  /** Reads what a subscriber missed, on an account. The page may tell that this node lags behind the log. */
  read(since: Position, account: string): MaybePromise<HistoryPage>;
}

/** What all channels of a node share. */
export interface MembersPorts {
  /** Of each transport one. */
  readonly fanouts: readonly Fanout[];
  readonly observer: HubObserver;
  readonly clock: Clock;
  readonly recovery: RecoveryLimits;
  readonly pace: Pace;
  /** What waits for sockets, of all recoveries. */
  readonly pages: PageBudget;
  /** In which recoveries send, by the number of publications. */
  readonly slices: Slices;
  /** So much was fanned out to each member that its socket is to be looked at before more follows. */
  readonly unsettled: (members: Members) => void;
  readonly log: (message: string, error: unknown) => void;
}

/** Members of one transport that its fan-out reaches. */
interface Live {
  readonly fanout: Fanout;
  count: number;
}

/** Between two looks at whether this node has caught up. */
const pauseMs = 5;

export class Members {
  readonly #home: Home;
  readonly #ports: MembersPorts;
  readonly #subscriptions = new Set<Subscription>();
  #recoveries: Set<Recovery> | undefined;
  #live: readonly Live[] = [];
  #bytesSinceSettled = 0;

  constructor(home: Home, ports: MembersPorts) {
    this.#home = home;
    this.#ports = ports;
  }

  get size(): number {
    return this.#subscriptions.size;
  }

  /** Members that a publication reaches at once. */
  get live(): number {
    let count = 0;
    for (const live of this.#live) count += live.count;
    return count;
  }

  /** A subscription that begins after `start`. The caller makes it live, or lets it recover first. */
  add(subscriber: Subscriber, start: Position): Subscription {
    const subscription = new Subscription(this.#home.name, subscriber, start);
    this.#subscriptions.add(subscription);
    return subscription;
  }

  /** What was published up to there is not sent by the subscription. */
  startAt(subscription: Subscription, start: Position): void {
    subscription.start = start;
  }

  /** From here on live publications are held back for the subscription, until its recovery has run. */
  holdFor(subscription: Subscription, snapshot?: Snapshot): Recovery {
    const ports = this.#recoveryPorts(subscription);
    const recovery = new Recovery(subscription.start, ports, this.#ports.recovery, snapshot);
    (this.#recoveries ??= new Set()).add(recovery);
    subscription.phase = recovery;
    return recovery;
  }

  /** The subscription begins with these rows, whatever it was about to recover. */
  beginWith(subscription: Subscription, snapshot: Snapshot): Recovery {
    this.#stop(subscription);
    subscription.start = snapshot.position;
    return this.holdFor(subscription, snapshot);
  }

  /** From here on the fan-out reaches the subscriber: it has been sent everything up to the channel's position. */
  goLive(subscription: Subscription): void {
    // Whoever suspends it resumes it, whatever was under way then.
    if (subscription.phase === 'suspended') return;
    this.endRecovery(subscription);
    const { outlet } = subscription.subscriber;
    subscription.phase = 'live';
    this.#count(outlet.transport, 1);
    outlet.join(this.#home.name);
  }

  /** What it held is forgotten. Does nothing to a subscription that does not recover. */
  endRecovery(subscription: Subscription): void {
    const { recovery } = subscription;
    if (recovery === undefined) return;
    subscription.phase = 'added';
    this.#recoveries?.delete(recovery);
    if (this.#recoveries?.size === 0) this.#recoveries = undefined;
  }

  remove(subscription: Subscription): void {
    if (!this.#subscriptions.delete(subscription)) return;
    this.#stop(subscription);
  }

  /** Nothing reaches it from here on. What it has been sent is where it goes on, once it is resumed. */
  suspend(subscription: Subscription): void {
    const { isLive, recovery } = subscription;
    if (isLive) subscription.start = this.#home.position;
    else if (recovery !== undefined) subscription.start = recovery.position;
    this.#stop(subscription);
    subscription.phase = 'suspended';
    if (isLive) subscription.subscriber.outlet.rest(this.#home.name);
  }

  /** Of a channel that keeps nothing it is live at once; else it recovers, and the caller runs the recovery. */
  resume(subscription: Subscription, recoverable: boolean): Recovery | undefined {
    subscription.phase = 'added';
    if (recoverable) return this.holdFor(subscription);
    this.goLive(subscription);
    return undefined;
  }

  #stop(subscription: Subscription): void {
    subscription.recovery?.cancel();
    this.endRecovery(subscription);
    if (!subscription.isLive) return;
    subscription.phase = 'added';
    this.#count(subscription.subscriber.outlet.transport, -1);
  }

  // Fan-out

  publication(publication: Publication): void {
    if (this.#recoveries !== undefined) for (const recovery of this.#recoveries) recovery.hold(publication);
    const { observer, clock, log } = this.#ports;
    let reached = 0;
    for (const { fanout, count } of this.#live) {
      if (count === 0) continue;
      try {
        reached += count - fanout.publication(publication);
      } catch (error) {
        observer.broadcastFailed();
        log('a publication could not be fanned out', error);
      }
    }
    if (reached === 0) return;
    this.#bytesSinceSettled += publication.data.length;
    if (this.#bytesSinceSettled > this.#ports.pace.lookEveryBytes) this.#ports.unsettled(this);
    observer.delivered(this.#home.name, reached, Math.max(0, clock.now() - publication.at) / 1000);
  }

  /** The channel lost its place and stands at another position now: all members are told. */
  jump(reason: GapReason): void {
    const { name, position } = this.#home;
    for (const recovery of this.#recoveries ?? []) recovery.jump(reason, position);
    this.#tellLive({ channel: name, position, reason });
  }

  /** In the place of a publication the log has a gap. Subscribers that recover meet it in its place. */
  missing(publication: Publication): void {
    for (const recovery of this.#recoveries ?? []) recovery.hold(publication);
    this.#tellLive({ channel: this.#home.name, position: this.#home.position, reason: 'trimmed' });
  }

  #tellLive(gap: Gap): void {
    if (this.live === 0) return;
    this.#ports.observer.lost(gap.reason, this.live);
    for (const { fanout, count } of this.#live) if (count > 0) fanout.gap(gap);
  }

  /** A gap for one member alone, which goes on from the position. */
  gap(subscription: Subscription, reason: GapReason, position: Position): void {
    const { subscriber, recovery } = subscription;
    if (recovery === undefined) this.#tellGap(subscriber, reason, position);
    else recovery.jump(reason, position);
    subscription.start = position;
  }

  /** Starts the count of bytes anew. Answers those whose sockets lag; one that recovers is paced by itself. */
  lagging(limits: PaceLimits): Paced[] {
    this.#bytesSinceSettled = 0;
    const lagging: Paced[] = [];
    for (const { subscriber, recovery } of this.#subscriptions) {
      if (recovery === undefined && isLagging(subscriber, limits)) lagging.push(subscriber);
    }
    return lagging;
  }

  #count(transport: string, change: number): void {
    const known = this.#live.find(({ fanout }) => fanout.transport === transport);
    if (known !== undefined) {
      known.count += change;
      return;
    }
    const fanout = this.#ports.fanouts.find((each) => each.transport === transport);
    if (fanout === undefined) throw new Error(`no fan-out was attached for the transport ${transport}`);
    this.#live = [...this.#live, { fanout, count: change }];
  }

  #tellGap({ outlet }: Subscriber, reason: GapReason, position: Position): void {
    this.#ports.observer.lost(reason, 1);
    outlet.gap({ channel: this.#home.name, position, reason });
  }

  #recoveryPorts(subscription: Subscription): RecoveryPorts {
    const { subscriber } = subscription;
    const { observer, clock, pace, pages, slices } = this.#ports;
    return {
      connection: subscriber.id,
      channel: this.#home.name,
      head: () => this.#home.position,
      gap: (reason, position) => this.#tellGap(subscriber, reason, position),
      sent: (count) => observer.sent('message', this.#home.name, count),
      sentRows: () => observer.sent('snapshot', this.#home.name, 1),
      goLive: () => this.goLive(subscription),
      monotonic: () => clock.monotonic(),
      pause: () => clock.sleep(pauseMs),
      read: (since) => this.#home.read(since, subscriber.account),
      slice: (publications) => slices.take(publications),
      pages,
      room: (outlet) => {
        if (subscriber.closed) return false;
        // Judged by itself: the pace of live publications, by which the subscriber may be slow already, is stricter.
        const paced = {
          outlet,
          slow: false,
          // Of one that is gone nothing more is taken in: to wait for that would keep its page.
          get closed() {
            return subscriber.closed;
          },
        };
        const limits = { ...pace.recovery, highWaterBytes: pages.shareBytes };
        if (!isLagging(paced, limits)) return true;
        return waitForPace([paced], clock, limits).then(() => !subscriber.closed && !paced.slow);
      },
    };
  }
}
