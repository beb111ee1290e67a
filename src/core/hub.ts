// The hub: the registry of channels and sessions of this node, and what moves between them and the sync layer.
// It does no I/O of its own: transports hand it sessions, an adapter hands it publications.

import type { GapReason } from '../protocol/codes.ts';
import type { CommandId } from '../protocol/frames.ts';
import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Access, Authenticate, Identity } from './access.ts';
import { Channel, type ChannelPorts } from './channel.ts';
import { controlChannel, controlRule, refuseControl, type ChannelCount } from './cluster.ts';
import { randomId, type Clock } from '../time/clock.ts';
import { CommandRunner } from './command-runner.ts';
import type { HubObserver } from './observer.ts';
import { boundPage } from './history-page.ts';
import { senderAnswer, type HubOptions, type HubPorts, type PublishRequest } from './hub-ports.ts';
import type { Limits } from './limits.ts';
import type { Fanout, Outlet } from './outlet.ts';
import { isLagging, paceLimits, waitForPace } from './pace.ts';
import { Publication } from './publication.ts';
import type { Recovery } from './recovery.ts';
import type { Rules } from '../rules/rules.ts';
import { Session } from './session.ts';
import { Subscription } from './subscription.ts';
import { Subscriber, type SubscribeRequest } from './subscriber.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { HistoryPage, HistoryQuery, SyncAdapter, SyncEvents } from './sync-adapter.ts';

/** Publications read at once to fill a hole. */
const fillPageSize = 500;
/** The sockets of a channel are looked at each time it has fanned out this much to each of them. */
const settleEveryBytes = 128 << 10;

export class Hub implements SyncEvents {
  readonly options: HubOptions;
  readonly observer: HubObserver;
  readonly access: Access;
  readonly limits: Limits;
  readonly authenticate: Authenticate;
  readonly adapter: SyncAdapter;
  readonly rules: Rules;
  readonly clock: Clock;
  readonly commands = new CommandRunner(this);
  readonly sessions = new Map<string, Session>();
  readonly channels = new Map<string, Channel>();
  readonly #log: HubPorts['log'];
  readonly #fanouts: Fanout[] = [];
  readonly #subscriber: Subscriber;
  readonly #channelPorts: ChannelPorts;
  readonly #unsettled = new Set<Channel>();
  #heardNode: ((data: string) => void) | undefined;
  #subscriptions = 0;

  constructor(options: HubOptions, ports: HubPorts) {
    this.options = options;
    this.observer = ports.observer;
    this.access = ports.access;
    this.limits = ports.limits;
    this.authenticate = ports.authenticate;
    this.adapter = ports.adapter;
    this.rules = ports.rules;
    this.clock = ports.clock;
    this.#log = ports.log;
    this.#subscriber = new Subscriber(this, ports.cluster);
    this.#channelPorts = {
      fanOut: (channel, publication) => this.#fanOut(channel, publication),
      gap: (channel, reason) => this.#fanOutGap(channel, reason),
      read: (channel, since) => this.adapter.history(channel.name, channel.rule, { since, limit: fillPageSize }, true),
      pause: (attempt) => this.clock.sleep(Math.min(5_000, 50 * 2 ** attempt) * (0.5 + this.clock.random() / 2)),
      failed: (error) => this.#log('a hole in a channel could not be filled yet', error),
    };
  }

  /** Each transport attaches its way to all of its connections, once, before the first connection. */
  attach(fanout: Fanout): void {
    this.#fanouts.push(fanout);
  }

  get subscriptionCount(): number {
    return this.#subscriptions;
  }

  // Connections

  connect(identity: Identity, outlet: Outlet): Session {
    const session = new Session(randomId(this.clock, 16), identity, outlet, this);
    this.sessions.set(session.id, session);
    this.observer.connection(outlet.transport, 'accepted');
    return session;
  }

  /** Called by the session as it ends. */
  leave(session: Session, code: number): void {
    this.sessions.delete(session.id);
    for (const subscription of session.subscriptions) this.#drop(session, subscription);
    this.limits.left(session);
    this.observer.disconnection(session.outlet.transport, code);
  }

  // Subscriptions

  /** Throws when one of the channels is not allowed or cannot be opened; then none of them was subscribed. */
  subscribe(session: Session, requests: readonly SubscribeRequest[], id?: CommandId): Promise<void> {
    return this.#subscriber.subscribe(session, requests, id);
  }

  unsubscribe(session: Session, name: string): void {
    const subscription = session.subscription(name);
    if (subscription === undefined) return;
    session.outlet.leave(name);
    this.#drop(session, subscription);
  }

  /** Opens the channel at the sync layer if it is new here. The caller adds a session to it, or calls `release`. */
  open(name: string): MaybePromise<Channel> {
    const known = this.channels.get(name);
    if (known !== undefined) return known.opening ?? known;
    refuseControl(name);
    const rule = this.rules.for(name);
    const channel = new Channel(name, rule, this.#channelPorts, this.options.holdMax);
    this.channels.set(name, channel);
    const opened = (position: Position | undefined): Channel => {
      channel.opened(position);
      return channel;
    };
    const refused = (error: unknown): never => {
      channel.opening = undefined;
      this.release(channel);
      throw error;
    };
    let head: MaybePromise<Position | undefined>;
    try {
      head = this.adapter.subscribe(name, rule);
    } catch (error) {
      return refused(error);
    }
    if (!(head instanceof Promise)) return opened(head);
    channel.opening = head.then(opened, refused);
    return channel.opening;
  }

  /** Forgets the channel if nobody is subscribed to it: nothing of it may stay behind. */
  release(channel: Channel): void {
    if (channel.sessions.size > 0 || channel.opening !== undefined) return;
    if (this.channels.get(channel.name) !== channel) return;
    channel.close();
    this.channels.delete(channel.name);
    this.#unsettled.delete(channel);
    this.adapter.unsubscribe(channel.name);
  }

  add(session: Session, channel: Channel, start: Position): Subscription {
    const subscription = new Subscription(channel, start);
    channel.sessions.add(session);
    session.addSubscription(subscription);
    this.#subscriptions++;
    return subscription;
  }

  /** From here on the fan-out reaches the session: the caller has sent it everything up to the channel's position. */
  goLive(session: Session, channel: Channel): void {
    session.outlet.join(channel.name);
    if (session.outlet.transport === 'websocket') channel.liveWebsocket++;
    else channel.liveSse++;
  }

  #drop(session: Session, subscription: Subscription): void {
    const { channel, recovery } = subscription;
    session.removeSubscription(subscription);
    if (recovery !== undefined) {
      recovery.cancel();
      this.endRecovery(channel, recovery);
      subscription.recovery = undefined;
    } else if (session.outlet.transport === 'websocket') channel.liveWebsocket--;
    else channel.liveSse--;
    channel.sessions.delete(session);
    this.#subscriptions--;
    this.release(channel);
  }

  endRecovery(channel: Channel, recovery: Recovery): void {
    channel.recoveries?.delete(recovery);
    if (channel.recoveries?.size === 0) channel.recoveries = undefined;
  }

  // Publications

  /**
   * Accepts a publication. Ephemeral ones reach this node's subscribers before the sync layer hears of them;
   * recoverable ones are numbered there first and come back through `publication`.
   */
  publish(request: PublishRequest): MaybePromise<Position | undefined> {
    const { channel, data, source, key, from, except } = request;
    // A character is at most three bytes of UTF-8, so only long texts need to be counted exactly.
    // A row is as large as it is: its writer has committed already and could not be told.
    const bytesMax = source === 'database' ? Number.POSITIVE_INFINITY : this.options.messageBytesMax;
    if (data.length * 3 > bytesMax && new TextEncoder().encode(data).length > bytesMax) {
      throw new RealtimeError('too_large', `The data is larger than ${bytesMax} bytes.`);
    }
    refuseControl(channel);
    const local = this.channels.get(channel);
    const rule = local?.rule ?? this.rules.for(channel);
    const at = this.clock.now();
    this.observer.published(source, channel);
    if (!rule.recoverable && local !== undefined) {
      this.#fanOut(local, new Publication({ channel, offset: 0, epoch: '', data, at, from, except }));
    }
    return senderAnswer(rule, this.adapter.publish({ channel, rule, data, at, from, except, key }));
  }

  history(channel: string, query: HistoryQuery): MaybePromise<HistoryPage> {
    refuseControl(channel);
    const rule = this.channels.get(channel)?.rule ?? this.rules.for(channel);
    // An ephemeral channel keeps nothing, and that is all of it.
    if (!rule.recoverable) return { head: { epoch: '', offset: 0 }, publications: [], complete: true };
    const page = this.adapter.history(channel, rule, query);
    return page instanceof Promise ? page.then((read) => boundPage(read, query)) : boundPage(page, query);
  }

  publication(publication: Publication): void {
    const channel = this.channels.get(publication.channel);
    if (channel !== undefined) channel.accept(publication);
    else if (publication.channel === controlChannel) this.#heardNode?.(publication.data);
  }

  head(channel: string, head: Position): void {
    this.channels.get(channel)?.reachHead(head);
  }

  settled(): MaybePromise<void> {
    if (this.#unsettled.size === 0) return undefined;
    const lagging: Session[] = [];
    for (const channel of this.#unsettled) {
      channel.bytesSinceSettled = 0;
      for (const session of channel.sessions) {
        // One that recovers waits for its own socket and holds up nobody.
        const recovers = session.subscription(channel.name)?.recovery !== undefined;
        if (!recovers && isLagging(session, paceLimits)) lagging.push(session);
      }
    }
    this.#unsettled.clear();
    return lagging.length === 0 ? undefined : waitForPace(lagging, this.clock, paceLimits);
  }

  #fanOut(channel: Channel, publication: Publication): void {
    if (channel.recoveries !== undefined) for (const recovery of channel.recoveries) recovery.hold(publication);
    const count = channel.liveWebsocket + channel.liveSse;
    if (count === 0) return;
    for (const fanout of this.#fanouts) {
      if ((fanout.transport === 'websocket' ? channel.liveWebsocket : channel.liveSse) === 0) continue;
      try {
        fanout.publication(publication);
      } catch (error) {
        this.observer.broadcastFailed();
        this.#log('a publication could not be fanned out', error);
      }
    }
    channel.bytesSinceSettled += publication.data.length;
    if (channel.bytesSinceSettled > settleEveryBytes) this.#unsettled.add(channel);
    const excepted = publication.except === undefined ? undefined : this.sessions.get(publication.except);
    const reached = excepted !== undefined && channel.sessions.has(excepted) ? count - 1 : count;
    this.observer.delivered(channel.name, reached, Math.max(0, this.clock.now() - publication.at) / 1000);
  }

  #fanOutGap(channel: Channel, reason: GapReason): void {
    const count = channel.liveWebsocket + channel.liveSse;
    if (count === 0) return;
    this.observer.lost(reason, count);
    for (const fanout of this.#fanouts) fanout.gap({ channel: channel.name, position: channel.position, reason });
  }

  // Between nodes

  /** From now on `heard` is told what other nodes tell; it must not throw. Resolves when nothing can be missed. */
  async listenToNodes(heard: (data: string) => void): Promise<void> {
    this.#heardNode = heard;
    await this.adapter.subscribe(controlChannel, controlRule);
  }

  /** Tells all other nodes; resolves when it is on its way. `data` is JSON text on one line. */
  async tellNodes(data: string): Promise<void> {
    await this.adapter.publish({ channel: controlChannel, rule: controlRule, data, at: this.clock.now() });
  }

  /** An expected error as it is; any other is logged whole and becomes `internal`. */
  expected(error: unknown): RealtimeError {
    const expected =
      error instanceof RealtimeError ? error : new RealtimeError('internal', undefined, { cause: error });
    if (expected.code === 'internal') this.#log('a command failed unexpectedly', error);
    this.observer.error(expected.code);
    return expected;
  }

  /** Channels with subscribers on this node. */
  channelCounts(): ChannelCount[] {
    return [...this.channels.values()]
      .filter((channel) => channel.sessions.size > 0)
      .map((channel) => ({ channel: channel.name, subscribers: channel.sessions.size }));
  }
}
