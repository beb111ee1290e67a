// The hub: the registry of the channels of this node, and what moves between them and the sync layer. It does no I/O of
// its own: an adapter hands it publications, and channels hand them on to the transports.

import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { ChannelRule, Rules } from '../rules/rules.ts';
import type { Clock } from '../time/clock.ts';
import { Channel, type ChannelPorts } from './channel.ts';
import { controlChannel, controlRule, refuseControl, type ChannelCount } from './cluster.ts';
import type { Connection } from './connection.ts';
import { HistoryReads } from './history-reads.ts';
import { Kept } from './kept.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { HubObserver, PublicationSource } from './observer.ts';
import type { Occupancy } from './occupancy.ts';
import type { Fanout } from './outlet.ts';
import { paceWithin, waitForPace, type Pace } from './pace.ts';
import type { Presence } from './presence.ts';
import { PageBudget } from './page-budget.ts';
import { Publication, type Sender } from './publication.ts';
import type { Recovering } from './recoveries.ts';
import { roomEveryBytes, type RecoveryLimits } from './recovery.ts';
import type { Slices } from './slices.ts';
import type { Subscription } from './subscription.ts';
import type { Appended, Carried, HistoryPage, HistoryQuery, SyncAdapter, SyncEvents } from './sync-adapter.ts';
import { Unsettled } from './unsettled.ts';

export interface HubOptions {
  readonly messageBytesMax: number;
  /** A connection with more bytes than this waiting for it is cut off. */
  readonly bufferedBytesMax: number;
  readonly recovery: RecoveryLimits;
  /** Publications held per channel while a hole is filled. */
  readonly holdMax: number;
  /** Bytes of what this node has seen that it keeps for those who come back; 0 keeps nothing. */
  readonly keptBytesMax: number;
}

export interface HubPorts {
  readonly adapter: SyncAdapter;
  readonly rules: Rules;
  readonly presence: Presence;
  readonly observer: HubObserver;
  readonly occupancy: Occupancy;
  readonly clock: Clock;
  /** In which recoveries send, by the number of publications. */
  readonly slices: Slices;
  /** Where failures go that no client is told in detail. */
  readonly log: (message: string, error: unknown) => void;
}

export interface PublishRequest {
  readonly channel: string;
  /** JSON text on one line. */
  readonly data: string;
  readonly source: PublicationSource;
  readonly key?: string | undefined;
  readonly carried?: Carried | undefined;
  readonly from?: Sender | undefined;
  readonly except?: string | undefined;
  /** Of a table change: the transaction that wrote it. */
  readonly xid?: string | undefined;
  /** Of the caller, where publications are traced: a W3C `traceparent`. */
  readonly trace?: string | undefined;
}

/** Bytes for all who recover: of pages, and in their sockets. */
const recoveryBytesMax = 32 << 20;
/** A share is more than a line of the internet takes in while the next is sent. */
const shareBytesMin = 32 << 10;
/** Clients of a deploy come back within about this long. */
const keptLingerMs = 15_000;

export class Hub implements SyncEvents {
  readonly #options: HubOptions;
  readonly #ports: HubPorts;
  readonly #channels = new Map<string, Channel>();
  readonly #fanouts: Fanout[] = [];
  readonly #channelPorts: ChannelPorts;
  readonly #unsettled: Unsettled<Channel>;
  readonly #reads: HistoryReads;
  readonly pace: Pace;
  /** None where the log is in this process's memory anyway. */
  readonly #kept: Kept | undefined;
  #heardNode: ((data: string) => void) | undefined;

  constructor(options: HubOptions, ports: HubPorts) {
    this.#options = options;
    this.#ports = ports;
    const { adapter, observer, clock, slices, log } = ports;
    this.#reads = new HistoryReads({ adapter, observer });
    const { keptBytesMax: bytesMax } = options;
    this.#kept = adapter.traits.shared ? new Kept({ bytesMax, lingerMs: keptLingerMs }, clock) : undefined;
    this.pace = paceWithin(options.bufferedBytesMax);
    const { highWaterBytes } = this.pace.recovery;
    this.#unsettled = new Unsettled({
      channelBytes: this.pace.lookEveryBytes,
      totalBytes: this.pace.lookAllEveryBytes,
    });
    this.#channelPorts = {
      fanouts: this.#fanouts,
      observer,
      clock,
      log,
      recovery: {
        ...options.recovery,
        holdBytesMax: Math.min(options.recovery.holdBytesMax, this.pace.heldBytesMax),
      },
      holdMax: options.holdMax,
      reads: this.#reads,
      kept: this.#kept,
      pace: this.pace,
      pages: new PageBudget({
        bytesMax: recoveryBytesMax,
        pageBytesMin: roomEveryBytes,
        socketBytesMax: recoveryBytesMax,
        shareBytesMax: highWaterBytes,
        shareBytesMin: Math.min(shareBytesMin, highWaterBytes),
      }),
      slices,
      unsettled: this.#unsettled,
    };
  }

  /** Each transport attaches its way to all of its connections, once, before the first connection. */
  attach(fanout: Fanout): void {
    this.#fanouts.push(fanout);
  }

  // Channels

  /** Opens the channel at the sync layer if it is new here. The caller adds a member to it, or calls `release`. */
  open(name: string): MaybePromise<Channel> {
    const known = this.#channels.get(name);
    if (known !== undefined) return known.opening ?? known;
    refuseControl(name);
    const { adapter, rules } = this.#ports;
    const rule = rules.for(name);
    const channel = new Channel(name, rule, this.#channelPorts);
    this.#channels.set(name, channel);
    const opened = (position: Position | undefined): Channel => {
      channel.opened(position);
      this.#ports.occupancy.channel(name, true);
      return channel;
    };
    const refused = (error: unknown): never => {
      channel.opening = undefined;
      this.release(channel);
      throw error;
    };
    let head: MaybePromise<Position | undefined>;
    try {
      head = adapter.subscribe(name, rule);
    } catch (error) {
      return refused(error);
    }
    if (!(head instanceof Promise)) return opened(head);
    channel.opening = head.then(opened, refused);
    return channel.opening;
  }

  isOpen(channel: Channel): boolean {
    return this.#channels.get(channel.name) === channel;
  }

  /** Forgets the channel if nobody is subscribed to it: nothing of it may stay behind. */
  release(channel: Channel): void {
    if (channel.members.size > 0 || channel.opening !== undefined || !this.isOpen(channel)) return;
    if (channel.wasOpened) this.#ports.occupancy.channel(channel.name, false);
    channel.close();
    this.#channels.delete(channel.name);
    this.#unsettled.delete(channel);
    this.#ports.adapter.unsubscribe(channel.name);
  }

  /** Ends the connection's subscription to the channel, if it has one. */
  unsubscribe(connection: Connection, name: string): void {
    const subscription = connection.subscription(name);
    if (subscription === undefined) return;
    this.#ports.presence.leave(connection, name);
    connection.outlet.leave(name);
    this.#remove(connection, subscription);
  }

  /** No publication reaches the subscription from here on, until it is resumed. */
  suspend(subscription: Subscription): void {
    this.#channels.get(subscription.channel)?.members.suspend(subscription);
  }

  /** Goes on from where the subscription was suspended. Answers a recovery that the caller begins, if there is one. */
  resume(subscription: Subscription): Recovering | undefined {
    const channel = this.#channels.get(subscription.channel);
    const recovery = channel?.members.resume(subscription, channel.rule.recoverable);
    return channel === undefined || recovery === undefined ? undefined : { subscription, channel, recovery };
  }

  /** The connection is gone: ends all of its subscriptions. */
  leave(connection: Connection): void {
    for (const subscription of connection.subscriptions) {
      this.#ports.presence.part(connection, subscription.channel);
      this.#remove(connection, subscription);
    }
  }

  #remove(connection: Connection, subscription: Subscription): void {
    connection.remove(subscription);
    const channel = this.#channels.get(subscription.channel);
    if (channel === undefined) return;
    channel.members.remove(subscription);
    this.release(channel);
  }

  get channelCount(): number {
    return this.#channels.size;
  }

  get subscriptionCount(): number {
    let count = 0;
    for (const { members } of this.#channels.values()) count += members.size;
    return count;
  }

  /** Connections of this node that are subscribed to the channel. */
  subscribers(channel: string): number {
    return this.#channels.get(channel)?.members.size ?? 0;
  }

  /** Channels with subscribers on this node. */
  channelCounts(): ChannelCount[] {
    return [...this.#channels.values()]
      .filter(({ members }) => members.size > 0)
      .map(({ name, members }) => ({ channel: name, subscribers: members.size }));
  }

  // Publications

  /**
   * Accepts a publication. Ephemeral ones reach this node's subscribers before the sync layer hears of them;
   * recoverable ones are numbered there first and come back through `publication`.
   */
  publish(request: PublishRequest): MaybePromise<Position | undefined> {
    const { channel, data, source, key, carried, from, except, xid, trace } = request;
    const { adapter, observer, clock } = this.#ports;
    // A row is as large as it is: its writer has committed already and could not be told.
    if (source !== 'database') this.requireSize(data);
    refuseControl(channel);
    const local = this.#channels.get(channel);
    const rule = this.#ruleOf(channel);
    const at = clock.now();
    if (rule.recoverable) {
      const answer = adapter.publish({ channel, rule, data, at, from, except, key, xid, carried, trace });
      const accepted = (appended: Appended | undefined) => this.#accepted(request, appended);
      return answer instanceof Promise ? answer.then(accepted) : accepted(answer);
    }
    observer.published(source, channel);
    local?.accept(new Publication({ channel, offset: 0, epoch: '', data, at, from, except }));
    return toOthers(adapter.publish({ channel, rule, data, at, from, except, key, trace }));
  }

  /**
   * Counts it. One that fails was not accepted: its sender repeats it, and the relay does so without end. A repeat was
   * counted when it was new; what a source carries again was not, as its source never had the answer.
   */
  #accepted({ source, channel, carried }: PublishRequest, appended: Appended | undefined): Position | undefined {
    if (appended?.isRepeat !== true || carried !== undefined) this.#ports.observer.published(source, channel);
    return appended && { epoch: appended.epoch, offset: appended.offset };
  }

  /** Reads the log on an account, whose reads count together. */
  history(channel: string, query: HistoryQuery, account: string): MaybePromise<HistoryPage> {
    refuseControl(channel);
    const rule = this.#ruleOf(channel);
    // An ephemeral channel keeps nothing, and that is all of it.
    if (!rule.recoverable) return { head: { epoch: '', offset: 0 }, publications: [], complete: true };
    const page = this.#reads.read(channel, rule, query, { account });
    return page instanceof Promise ? page.then(withoutGaps) : withoutGaps(page);
  }

  /** Bytes of what this node has seen and keeps. */
  get keptBytes(): number {
    return this.#kept?.bytes ?? 0;
  }

  /** Forgets what is kept of channels that were left a while ago; to be called every few seconds. */
  sweep(): void {
    this.#kept?.sweep();
  }

  // Called by the sync layer

  publication(publication: Publication): void {
    const channel = this.#channels.get(publication.channel);
    if (channel !== undefined) channel.accept(publication);
    else if (publication.channel === controlChannel) this.#heardNode?.(publication.data);
  }

  head(channel: string, head: Position): void {
    this.#channels.get(channel)?.reachHead(head);
  }

  settled(): MaybePromise<void> {
    const channels = this.#unsettled.take();
    if (channels.length === 0) return undefined;
    const { live } = this.pace;
    // One that lags does so in each of its channels.
    const lagging = new Set(channels.flatMap(({ members }) => members.lagging(live)));
    return lagging.size === 0 ? undefined : waitForPace([...lagging], this.#ports.clock, live);
  }

  // Between nodes

  /** From now on `heard` is called with what other nodes send; it must not throw. Resolves when nothing can be missed. */
  async listenToNodes(heard: (data: string) => void): Promise<void> {
    this.#heardNode = heard;
    await this.#ports.adapter.subscribe(controlChannel, controlRule);
  }

  /** Tells all other nodes; resolves when it is on its way. `data` is JSON text on one line. */
  async tellNodes(data: string): Promise<void> {
    const { adapter, clock } = this.#ports;
    await adapter.publish({ channel: controlChannel, rule: controlRule, data, at: clock.now() });
  }

  /** An open channel keeps the rule that it was opened with. */
  #ruleOf(channel: string): ChannelRule {
    return this.#channels.get(channel)?.rule ?? this.#ports.rules.for(channel);
  }

  /** Throws `too_large`. */
  requireSize(data: string): void {
    const { messageBytesMax } = this.#options;
    // A character is at most three bytes of UTF-8, so only long texts need to be counted exactly.
    if (data.length * 3 <= messageBytesMax) return;
    if (new TextEncoder().encode(data).length <= messageBytesMax) return;
    throw new RealtimeError('too_large', `The data is larger than ${messageBytesMax} bytes.`);
  }
}

/**
 * The answer to the sender of an ephemeral publication. One that did not reach the other nodes was delivered here, and
 * nobody was promised more: told `unavailable`, its sender would send it to this node's subscribers again.
 */
function toOthers(sent: MaybePromise<Position | undefined>): MaybePromise<Position | undefined> {
  if (!(sent instanceof Promise)) return sent;
  return sent.catch((error: unknown) => {
    if (error instanceof RealtimeError && error.code === 'unavailable') return undefined;
    throw error;
  });
}

/** Gaps of the log are no messages. A page that had one is not complete. */
function withoutGaps(page: HistoryPage): HistoryPage {
  if (!page.publications.some(({ isGap }) => isGap)) return page;
  return { ...page, publications: page.publications.filter(({ isGap }) => !isGap), complete: false };
}
