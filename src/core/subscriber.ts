// How a subscription begins: permission, the sync layer, what was missed, and the moment when it becomes live.
//
//   1. each channel is checked, then opened; if one fails, none is subscribed
//   2. those that say where they stood get a recovery, which holds back what is published from now on
//   3. the first page of history of each is read, so that `recovered` is known before it is told
//   4. in one synchronous step: `subscribed` is sent, and every channel without a recovery goes live
//   5. recoveries send what was missed and go live one by one

import type { CommandId, SubscriptionState } from '../protocol/frames.ts';
import { isPosition, type Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Channel } from './channel.ts';
import type { Hub } from './hub.ts';
import { isLagging, recoveryPaceLimits, waitForPace } from './pace.ts';
import { Recovery, type RecoveryPorts } from './recovery.ts';
import type { Session, Subscription } from './session.ts';

/**
 * Where a client stood: a position, or `lost` when it stood in a log that is no more. `epoch` is the channel's present
 * one, which a cursor needs to tell.
 */
export type Resume = (epoch: string) => Position | 'lost' | undefined;

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
  /** The client's position is void; it is told a gap. */
  lost: boolean;
  /** Was live before this request. */
  readonly again: boolean;
}

export class Subscriber {
  readonly #hub: Hub;

  constructor(hub: Hub) {
    this.#hub = hub;
  }

  async subscribe(session: Session, requests: readonly SubscribeRequest[], id: CommandId | undefined): Promise<void> {
    await this.#permit(session, requests);
    const channels = await this.#open(session, requests);
    if (session.closed) {
      for (const channel of channels) this.#hub.release(channel);
      return;
    }
    const beginnings = requests.map((request, index) => this.#begin(session, request, channels[index]));
    try {
      await this.#prepare(beginnings);
    } catch (error) {
      for (const { again, channel } of beginnings) if (!again) this.#hub.unsubscribe(session, channel.name);
      throw error;
    }
    if (session.closed) return;
    session.outlet.subscribed(beginnings.map(stateOf), id);
    for (const beginning of beginnings) this.#goLiveOrRecover(session, beginning);
  }

  async #permit(session: Session, requests: readonly SubscribeRequest[]): Promise<void> {
    const { channelsPerConnectionMax } = this.#hub.options;
    const fresh = requests.filter(({ channel }) => session.subscriptions?.has(channel) !== true);
    if ((session.subscriptions?.size ?? 0) + fresh.length > channelsPerConnectionMax) {
      throw new RealtimeError('limit_exceeded', `A connection has at most ${channelsPerConnectionMax} channels.`);
    }
    for (const { channel } of requests) {
      if (!(await this.#hub.access.may(session.identity, 'subscribe', channel))) {
        throw new RealtimeError('forbidden', `No rule allows to subscribe to ${channel}.`);
      }
    }
  }

  async #open(session: Session, requests: readonly SubscribeRequest[]): Promise<Channel[]> {
    const opened = await Promise.allSettled(requests.map(async ({ channel }) => this.#hub.open(channel)));
    const failed = opened.find((result) => result.status === 'rejected');
    const channels = opened.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    if (failed === undefined) return this.#stillOpen(session, channels);
    for (const channel of channels) this.#hub.release(channel);
    throw failed.reason;
  }

  /** Between opening and now another session may have left a channel as its last one, which closed it. */
  async #stillOpen(session: Session, channels: Channel[]): Promise<Channel[]> {
    for (let index = 0; index < channels.length && !session.closed; index++) {
      const channel = channels[index];
      if (channel === undefined || this.#hub.channels.get(channel.name) === channel) continue;
      channels[index] = await this.#hub.open(channel.name);
      // Opening waited, so the ones before may have closed meanwhile.
      index = -1;
    }
    return channels;
  }

  #begin(session: Session, request: SubscribeRequest, channel: Channel | undefined): Beginning {
    if (channel === undefined) throw new Error('a channel that was opened is missing');
    const before = session.subscriptions?.get(channel.name);
    const recoverable = channel.rule.recoverable;
    const resume = recoverable ? request.resume?.(channel.epoch) : undefined;
    const resumes = request.resume !== undefined && (resume !== undefined || !recoverable);
    const common = { channel, resumes, recovery: undefined, lost: false };
    if (before !== undefined) {
      return { ...common, subscription: before, again: true, recovered: recoverable };
    }
    this.#hub.add(session, channel);
    const subscription = session.subscriptions?.get(channel.name);
    if (subscription === undefined) throw new Error('a subscription that was added is missing');
    const beginning: Beginning = { ...common, subscription, again: false, recovered: false };
    if (resume === undefined) return beginning;
    beginning.lost = !isPosition(resume) || resume.epoch !== channel.epoch || resume.offset > channel.offset;
    // Even one that lacks nothing holds: other channels of the request may take a while to read.
    const from = beginning.lost || !isPosition(resume) ? channel.position : resume;
    const recovery = new Recovery(from, this.#recoveryPorts(session, subscription), this.#hub.options.recovery);
    (channel.recoveries ??= new Set()).add(recovery);
    subscription.recovery = recovery;
    beginning.recovery = recovery;
    return beginning;
  }

  async #prepare(beginnings: readonly Beginning[]): Promise<void> {
    await Promise.all(
      beginnings.map(async (beginning) => {
        if (beginning.recovery === undefined) return;
        if (beginning.lost) beginning.recovery.jump('epoch_changed', beginning.channel.position);
        const whole = await beginning.recovery.prepare();
        beginning.recovered = whole && !beginning.lost;
      }),
    );
  }

  #goLiveOrRecover(session: Session, { subscription, channel, recovery, recovered, again }: Beginning): void {
    if (again) return;
    if (recovery === undefined) {
      this.#hub.goLive(session, channel);
      return;
    }
    this.#hub.observer.recovery(recovered ? 'recovered' : 'gap');
    recovery.run(session.outlet).then(
      (caughtUp) => {
        // Too slow to take in what it missed: it comes back and goes on from the position that it reached.
        if (!caughtUp && !session.closed && subscription.recovery === recovery) session.outlet.terminate();
      },
      (error: unknown) => this.#abandon(session, channel, recovery, error),
    );
  }

  #finish(session: Session, subscription: Subscription): void {
    const { channel, recovery } = subscription;
    if (recovery === undefined) return;
    this.#hub.endRecovery(channel, recovery);
    subscription.recovery = undefined;
    this.#hub.goLive(session, channel);
  }

  /** History could not be read. The client was promised everything, so the promise is taken back. */
  #abandon(session: Session, channel: Channel, recovery: Recovery, error: unknown): void {
    this.#hub.endRecovery(channel, recovery);
    if (session.closed) return;
    session.fail(error, undefined, channel.name);
    session.outlet.terminate();
  }

  #recoveryPorts(session: Session, subscription: Subscription): RecoveryPorts {
    const { channel } = subscription;
    return {
      head: () => channel.position,
      gap: (reason, position) => {
        this.#hub.observer.lost(reason, 1);
        session.outlet.gap({ channel: channel.name, position, reason });
      },
      goLive: () => this.#finish(session, subscription),
      monotonic: () => this.#hub.clock.monotonic(),
      read: async (since, limit) => {
        const epoch = channel.epoch;
        const page = await this.#hub.adapter.history(channel.name, channel.rule, { since, limit });
        // History may know of a new epoch before this node was told; an answer from before the change is ignored.
        if (page.head.epoch !== epoch && channel.epoch === epoch) channel.reachHead(page.head);
        return page;
      },
      room: (outlet) => {
        if (session.closed) return false;
        if (!isLagging(session, recoveryPaceLimits)) return true;
        return waitForPace([session], this.#hub.clock, recoveryPaceLimits).then(
          () => !session.closed && !session.slow && outlet === session.outlet,
        );
      },
    };
  }
}

function stateOf({ channel, resumes, recovered }: Beginning): SubscriptionState {
  const { name, rule } = channel;
  const recovery = resumes ? { recovered } : {};
  if (!rule.recoverable) return { channel: name, recoverable: false, ...recovery };
  return { channel: name, recoverable: true, epoch: channel.epoch, offset: channel.offset, ...recovery };
}
