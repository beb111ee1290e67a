// How a subscription begins: permission, the sync layer, what was missed, and the moment when it becomes live.
//
//   1. each channel is checked, then opened; if one fails, none is subscribed. What was allowed must still be allowed in
//      the step in which the connection is added, from which on it is asked about anew by whoever takes rights away
//   2. those that say where they stood get a recovery, which holds back what is published from now on
//   3. the first page of history of each is read, so that `recovered` is known before it is told
//   4. in one synchronous step: `subscribed` is sent, and every channel without a recovery goes live
//   5. recoveries send what was missed and go live one by one

import type { CommandId, SubscriptionState } from '../protocol/frames.ts';
import type { GapReason } from '../protocol/codes.ts';
import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Channel } from './channel.ts';
import type { Cluster } from './cluster.ts';
import type { Hub } from './hub.ts';
import { isLagging, recoveryPaceLimits, waitForPace } from './pace.ts';
import { Recovery, type RecoveryPorts } from './recovery.ts';
import { Room } from './room.ts';
import type { Session } from './session.ts';
import type { Subscription } from './subscription.ts';

/**
 * Where a client stood: a position, or `lost` when it stood in a log that is no more. `epoch` is the channel's present
 * one, which a cursor needs to tell.
 */
export type Resume = (epoch: string) => Position | 'lost' | undefined;

/** Between two looks at whether this node has caught up. */
const pauseMs = 5;

export interface SubscribeRequest {
  readonly channel: string;
  readonly resume?: Resume | undefined;
}

interface Beginning {
  readonly subscription: Subscription;
  readonly channel: Channel;
  readonly resumes: boolean;
  recovery: Recovery | undefined;
  recovered: boolean;
  /** The client's position is void, or older than a subscription that it has already; it is told a gap. */
  lost: GapReason | undefined;
  /** Was live before this request. */
  readonly again: boolean;
}

export class Subscriber {
  readonly #hub: Hub;
  readonly #room: Room;

  constructor(hub: Hub, cluster: () => Cluster | undefined) {
    this.#hub = hub;
    this.#room = new Room(hub, cluster);
  }

  async subscribe(session: Session, requests: readonly SubscribeRequest[], id: CommandId | undefined): Promise<void> {
    const beginnings = await this.#enter(session, requests);
    try {
      await this.#prepare(beginnings);
      if (session.closed) return;
      requireAll(session, beginnings);
    } catch (error) {
      for (const { again, channel } of beginnings) if (!again) this.#hub.unsubscribe(session, channel.name);
      throw error;
    }
    session.outlet.subscribed(beginnings.map(stateOf), id);
    for (const beginning of beginnings) this.#goLiveOrRecover(session, beginning);
  }

  /** Adds the session to all channels in one step, in which all of them are open and allowed; to none if it is closed. */
  async #enter(session: Session, requests: readonly SubscribeRequest[]): Promise<Beginning[]> {
    const { access } = this.#hub;
    let channels: readonly Channel[] = [];
    try {
      while (!session.closed) {
        const { generation } = access;
        const elsewhere = await this.#permit(session, requests);
        channels = await this.#open(requests);
        // While the opening was awaited another session may have left a channel as its last one, which closed it. Those
        // that are open are kept meanwhile: to give them up would do the same to others, and they to this one.
        while (!session.closed && !this.#areOpen(channels)) channels = await this.#open(requests);
        if (session.closed || generation !== access.generation) continue;
        this.#requireRoom(session, channels, elsewhere);
        return requests.map((request, index) => this.#begin(session, request, channels[index]));
      }
    } catch (error) {
      for (const channel of channels) this.#hub.release(channel);
      throw error;
    }
    for (const channel of channels) this.#hub.release(channel);
    return [];
  }

  #areOpen(channels: readonly Channel[]): boolean {
    return channels.every((channel) => this.#hub.channels.get(channel.name) === channel);
  }

  #requireRoom(session: Session, channels: readonly Channel[], elsewhere: readonly number[]): void {
    const full = channels.find(({ name }, index) => {
      return session.subscription(name) === undefined && this.#room.isFull(name, elsewhere[index] ?? 0);
    });
    if (full !== undefined) throw new RealtimeError('limit_exceeded', `${full.name} has no room for one more.`);
  }

  /** Answers how many are subscribed on the other nodes, where that matters. */
  async #permit(session: Session, requests: readonly SubscribeRequest[]): Promise<number[]> {
    const { channelsPerConnectionMax } = this.#hub.options;
    const fresh = requests.filter(({ channel }) => session.subscription(channel) === undefined);
    if (session.subscriptionCount + fresh.length > channelsPerConnectionMax) {
      throw new RealtimeError('limit_exceeded', `A connection has at most ${channelsPerConnectionMax} channels.`);
    }
    // At once: a stream of fifty channels waits as long as one of one.
    const allowed = await Promise.all(
      requests.map(async ({ channel }) => this.#hub.access.may(session.identity, 'subscribe', channel)),
    );
    const forbidden = requests[allowed.indexOf(false)];
    if (forbidden !== undefined) {
      throw new RealtimeError('forbidden', `No rule allows to subscribe to ${forbidden.channel}.`);
    }
    return Promise.all(requests.map(({ channel }) => this.#room.elsewhere(channel)));
  }

  async #open(requests: readonly SubscribeRequest[]): Promise<Channel[]> {
    const opened = await Promise.allSettled(requests.map(async ({ channel }) => this.#hub.open(channel)));
    const failed = opened.find((result) => result.status === 'rejected');
    const channels = opened.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    if (failed === undefined) return channels;
    for (const channel of channels) this.#hub.release(channel);
    throw failed.reason;
  }

  #begin(session: Session, request: SubscribeRequest, channel: Channel | undefined): Beginning {
    if (channel === undefined) throw new Error('a channel that was opened is missing');
    const before = session.subscription(channel.name);
    const recoverable = channel.rule.recoverable;
    const resume = recoverable ? request.resume?.(channel.epoch) : undefined;
    const resumes = request.resume !== undefined && (resume !== undefined || !recoverable);
    const common = { channel, resumes, recovery: undefined };
    if (before !== undefined) {
      const lost = resume === undefined ? undefined : uncovered(before, resume);
      return { ...common, subscription: before, again: true, lost, recovered: recoverable && lost === undefined };
    }
    const from = resume === undefined || resume === 'lost' || resume.epoch !== channel.epoch ? undefined : resume;
    // Even one that lacks nothing holds: other channels of the request may take a while to read.
    const start = from ?? channel.position;
    const subscription = this.#hub.add(session, channel, start);
    const lost = resume !== undefined && from === undefined ? 'epoch_changed' : undefined;
    const beginning: Beginning = { ...common, subscription, again: false, lost, recovered: false };
    if (resume === undefined) return beginning;
    const recovery = new Recovery(start, this.#recoveryPorts(session, subscription), this.#hub.options.recovery);
    (channel.recoveries ??= new Set()).add(recovery);
    subscription.recovery = recovery;
    beginning.recovery = recovery;
    return beginning;
  }

  async #prepare(beginnings: readonly Beginning[]): Promise<void> {
    await Promise.all(
      beginnings.map(async (beginning) => {
        const { recovery, lost, channel } = beginning;
        if (recovery === undefined) return;
        if (lost !== undefined) recovery.jump(lost, channel.position);
        const whole = await recovery.prepare();
        beginning.recovered = whole && lost === undefined;
        // A position that the log denies says nothing of where the subscription begins.
        if (!whole) beginning.subscription.start = channel.position;
      }),
    );
  }

  #goLiveOrRecover(session: Session, beginning: Beginning): void {
    const { subscription, channel, recovery, recovered, again, lost } = beginning;
    // What was sent just now may have run over the connection's buffer, which ended it.
    if (session.closed) return;
    if (again) {
      if (lost !== undefined) this.#tellUncovered(session, subscription, lost);
      return;
    }
    if (recovery === undefined) {
      subscription.start = channel.position;
      this.#hub.goLive(session, channel);
      return;
    }
    this.#hub.observer.recovery(recovered ? 'recovered' : 'gap');
    recovery.run(session.outlet).then(
      (caughtUp) => {
        // Too slow to take in what it missed: it comes back and goes on from the position that it reached.
        if (!caughtUp && !session.closed && subscription.recovery === recovery) session.outlet.terminate();
      },
      (error: unknown) => this.#abandon(session, subscription, recovery, error),
    );
  }

  /** A live subscription cannot go back: lower offsets would follow higher ones. */
  #tellUncovered(session: Session, subscription: Subscription, reason: GapReason): void {
    const { channel, recovery } = subscription;
    if (recovery !== undefined) recovery.jump(reason, channel.position);
    else this.#tellGap(session, channel, reason, channel.position);
    subscription.start = channel.position;
  }

  #tellGap(session: Session, { name }: Channel, reason: GapReason, position: Position): void {
    this.#hub.observer.lost(reason, 1);
    session.outlet.gap({ channel: name, position, reason });
  }

  #finish(session: Session, subscription: Subscription): void {
    const { channel, recovery } = subscription;
    if (recovery === undefined) return;
    this.#hub.endRecovery(channel, recovery);
    subscription.recovery = undefined;
    this.#hub.goLive(session, channel);
  }

  /** History could not be read. The client was promised everything, so the promise is taken back. */
  #abandon(session: Session, subscription: Subscription, recovery: Recovery, error: unknown): void {
    // Ended meanwhile, by an unsubscribe or with the connection.
    if (session.closed || subscription.recovery !== recovery) return;
    const { channel } = subscription;
    this.#hub.endRecovery(channel, recovery);
    session.fail(error, undefined, channel.name);
    session.outlet.terminate();
  }

  #recoveryPorts(session: Session, subscription: Subscription): RecoveryPorts {
    const { channel } = subscription;
    return {
      connection: session.id,
      head: () => channel.position,
      gap: (reason, position) => this.#tellGap(session, channel, reason, position),
      goLive: () => this.#finish(session, subscription),
      monotonic: () => this.#hub.clock.monotonic(),
      pause: () => this.#hub.clock.sleep(pauseMs),
      read: async (since, limit) => {
        const epoch = channel.epoch;
        const page = await this.#hub.adapter.history(channel.name, channel.rule, { since, limit });
        // History may know of a new epoch before this node was told; an answer from before the change is ignored.
        const changed = page.head.epoch !== epoch && channel.epoch === epoch;
        const isAhead = page.head.epoch === channel.epoch && since.offset > channel.offset && page.gap === undefined;
        if (changed || isAhead) channel.reachHead(page.head);
        return page;
      },
      room: (outlet) => {
        if (session.closed) return false;
        // Judged by itself: the pace of live publications, by which the session may be slow already, is a stricter one.
        const paced = { outlet, slow: false, closed: false };
        if (!isLagging(paced, recoveryPaceLimits)) return true;
        return waitForPace([paced], this.#hub.clock, recoveryPaceLimits).then(() => !session.closed && !paced.slow);
      },
    };
  }
}

/** Rights may have been taken away while history was read. */
function requireAll(session: Session, beginnings: readonly Beginning[]): void {
  for (const { channel, subscription } of beginnings) {
    if (session.subscription(channel.name) === subscription) continue;
    throw new RealtimeError('forbidden', `No rule allows to subscribe to ${channel.name} any more.`);
  }
}

/** Why a subscription that began earlier does not bring everything since the position; undefined if it does. */
function uncovered({ channel, start }: Subscription, resume: Position | 'lost'): GapReason | undefined {
  if (resume === 'lost' || resume.epoch !== channel.epoch) return 'epoch_changed';
  return start.epoch === channel.epoch && resume.offset < start.offset ? 'trimmed' : undefined;
}

function stateOf({ channel, subscription, resumes, recovered }: Beginning): SubscriptionState {
  const { name, rule, epoch } = channel;
  const recovery = resumes ? { recovered } : {};
  if (!rule.recoverable) return { channel: name, recoverable: false, ...recovery };
  // A client may know more than this node, which catches up before the subscription becomes live.
  const { start } = subscription;
  const offset = start.epoch === epoch ? Math.max(channel.offset, start.offset) : channel.offset;
  return { channel: name, recoverable: true, epoch, offset, ...recovery };
}
