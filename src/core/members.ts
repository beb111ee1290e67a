// The members of one channel on this node: its subscriptions, from the step in which each begins to its end. What is
// published reaches them through the channel, which asks here whom.
//
//   added        nothing is sent to it yet
//   recovering   live publications are held back for it, and history is read; see recovery.ts
//   live         its transport's fan-out reaches it
//   suspended    nothing reaches it, and nothing is held for it; it goes on from where it was suspended

import type { GapReason } from '../protocol/codes.ts';
import type { Position } from '../protocol/position.ts';
import type { Connection } from './connection.ts';
import type { Fanout } from './outlet.ts';
import { isLagging, type Paced, type PaceLimits } from './pace.ts';
import { RecoveringMember, tellGap, type RecoveryHome, type RecoveryMeans } from './recovering-member.ts';
import { Recovery, type RecoveryLimits } from './recovery.ts';
import type { Snapshot, SnapshotChannel } from './snapshot.ts';
import { Subscription, type SubscribeRequest } from './subscription.ts';

/** The channel, as its members see it. */
export interface Home extends SnapshotChannel, RecoveryHome {
  readonly epoch: string;
  readonly offset: number;
  readonly members: Members;
}

/** One subscription of a request, from the step in which it was added until it is live. */
export interface Beginning {
  readonly subscription: Subscription;
  readonly channel: Home;
  readonly resumes: boolean;
  recovery: Recovery | undefined;
  recovered: boolean;
  /** The client's position is void, or older than a subscription that it has already; it gets a gap. */
  lost: GapReason | undefined;
  /** Its rows come first, unless everything since the client's position does. */
  readonly wantsRows: boolean;
  /** The rows were taken, and come first. */
  takesRows: boolean;
  /** The client had a subscription already, which began anew: up to here it was sent everything. */
  readonly seen: Position | undefined;
  /** Was live before this request, and stays so. */
  readonly again: boolean;
}

/** What all channels of a node share. */
export interface MembersPorts extends RecoveryMeans {
  /** Of each transport one. */
  readonly fanouts: readonly Fanout[];
  readonly recovery: RecoveryLimits;
}

/** Members of one transport that its fan-out reaches. */
export interface Live {
  readonly fanout: Fanout;
  readonly count: number;
}

export class Members {
  readonly #home: Home;
  readonly #ports: MembersPorts;
  readonly #subscriptions = new Set<Subscription>();
  #recoveries: Set<Recovery> | undefined;
  #live: readonly (Live & { count: number })[] = [];

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

  get liveByTransport(): readonly Live[] {
    return this.#live;
  }

  /** For these members publications are held back; undefined when there are none. */
  get recoveries(): ReadonlySet<Recovery> | undefined {
    return this.#recoveries;
  }

  /**
   * Adds the connection as the request wants, or finds it here. In the step in which all channels of the request are open
   * and allowed. The caller makes the subscription live, or runs its recovery.
   */
  begin(connection: Connection, request: SubscribeRequest): Beginning {
    const channel = this.#home;
    const { epoch, position } = channel;
    const { recoverable } = channel.rule;
    const before = connection.subscription(channel.name);
    const resume = recoverable ? request.resume?.(epoch) : undefined;
    const resumes = request.resume !== undefined && (resume !== undefined || !recoverable);
    const wantsRows = request.snapshot !== undefined && recoverable;
    const common = { channel, resumes, wantsRows, takesRows: false, recovery: undefined };
    if (before !== undefined && wantsRows && before.phase !== 'suspended' && !before.covers(resume, position)) {
      // It asks for rows again: it begins anew, after what it has been sent.
      const seen = before.recovery?.position ?? position;
      this.#end(connection, before);
      const subscription = this.#add(connection, seen);
      return { ...common, subscription, again: false, seen, lost: undefined, recovered: false };
    }
    let seen: Position | undefined;
    if (before?.canBeginAt(resume, position) === true) {
      // The server began it by itself, and the client says only now where it stood.
      seen = position;
      this.#end(connection, before);
    } else if (before !== undefined) {
      const lost = resume === undefined ? undefined : before.lacks(resume, epoch);
      // One in doubt gets no rows before the doubt is over: it is told so, and asks again.
      const recovered = recoverable && lost === undefined && !(wantsRows && resume === undefined);
      return { ...common, subscription: before, again: true, seen, lost, recovered };
    }
    const from = resume === undefined || resume === 'lost' || resume.epoch !== epoch ? undefined : resume;
    const subscription = this.#add(connection, from ?? position);
    const lost = resume !== undefined && from === undefined ? 'epoch_changed' : undefined;
    // Even one that lacks nothing is held for: other channels of the request may take a while to read.
    const recovery = resume === undefined ? undefined : this.holdFor(subscription);
    return { ...common, subscription, again: false, seen, lost, recovered: false, recovery };
  }

  /** A subscription that begins after `start`. */
  #add(connection: Connection, start: Position): Subscription {
    const subscription = new Subscription(this.#home.name, connection, start);
    this.#subscriptions.add(subscription);
    connection.add(subscription);
    return subscription;
  }

  #end(connection: Connection, subscription: Subscription): void {
    connection.outlet.leave(this.#home.name);
    connection.remove(subscription);
    this.remove(subscription);
  }

  /** What was published up to there is not sent by the subscription. */
  startAt(subscription: Subscription, start: Position): void {
    subscription.start = start;
  }

  /** From here on live publications are held back for the subscription, until its recovery has run. */
  holdFor(subscription: Subscription, snapshot?: Snapshot): Recovery {
    const ports = new RecoveringMember(this.#home, this.#ports, subscription);
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

  /** What the subscription began with failed: it goes on after `seen`. A suspended one does so once it is resumed. */
  goOn(subscription: Subscription, seen: Position): Recovery | undefined {
    const isSuspended = subscription.phase === 'suspended';
    this.#stop(subscription);
    subscription.start = seen;
    return isSuspended ? undefined : this.holdFor(subscription);
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

  /** A gap for one member alone, which goes on from the position. */
  gap(subscription: Subscription, reason: GapReason, position: Position): void {
    const { subscriber, recovery } = subscription;
    if (recovery === undefined) tellGap(subscriber, this.#home.name, this.#ports.observer, { reason, position });
    else recovery.jump(reason, position);
    subscription.start = position;
  }

  /** Those whose sockets lag; one that recovers is paced by itself. */
  lagging(limits: PaceLimits): Paced[] {
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
}
