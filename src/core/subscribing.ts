// How a subscription begins: permission, the sync layer, what was missed, and the moment when it becomes live.
//
//   1. each channel is checked, then opened; if one fails, none is subscribed. What was allowed must still be allowed in
//      the step in which the connection is added, from which on it is asked about anew by whoever takes rights away
//   2. those that say where they stood get a recovery, which holds back what is published from now on
//   3. the first page of history of each is read, so that `recovered` is known before it is told. Rows are taken for those
//      that want them and do not recover, see rows.ts; and presence is entered
//   4. in one synchronous step: `subscribed` is sent, and every channel without a recovery goes live
//   5. recoveries send what was missed and go live, those of one connection one after another

import { isRefused, type ChannelRequest, type SubscribeCommand } from '../protocol/commands.ts';
import type { CommandId, SubscriptionState } from '../protocol/frames.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Access } from './access.ts';
import { Capacity } from './capacity.ts';
import type { Channel } from './channel.ts';
import type { Cluster } from './cluster.ts';
import type { Connection } from './connection.ts';
import type { Failures } from './failures.ts';
import type { Hub } from './hub.ts';
import { mapKnown, type MaybePromise } from './maybe-promise.ts';
import type { Beginning } from './members.ts';
import type { HubObserver } from './observer.ts';
import type { Presence } from './presence.ts';
import type { Recoveries } from './recoveries.ts';
import { Rows } from './rows.ts';
import { Slices } from './slices.ts';
import type { Snapshots } from './snapshot.ts';
import type { SubscribeRequest, Subscription } from './subscription.ts';

export interface SubscribingOptions {
  readonly hub: Hub;
  readonly access: Access;
  readonly presence: Presence;
  /** In which subscriptions begin, those of one connection and those of thousands. */
  readonly slices: Slices;
  /** All nodes together, this one among them; undefined before it has joined them. */
  readonly cluster: () => Cluster | undefined;
  readonly observer: HubObserver;
  readonly failures: Failures;
  readonly recoveries: Recoveries;
  readonly snapshots: Snapshots;
  readonly channelsPerConnectionMax: number;
}

/** A channel of several whose rows cannot be taken. */
interface RefusedRows {
  readonly channel: string;
  readonly error: unknown;
}

/** What a subscription costs as it begins, in publications sent. */
const beginningCost = 25;
/** Subscriptions that a turn of the event loop answers: a page of the log is one that hundreds may have waited for. */
const answersAtOnce = 50;

export class Subscribing {
  readonly #options: SubscribingOptions;
  readonly #capacity: Capacity;
  readonly #byBackend = new WeakSet<Subscription>();
  readonly #rows: Rows;
  /** Apart from those that begin: their pages wait in memory. */
  readonly #answers = new Slices(answersAtOnce);

  constructor(options: SubscribingOptions) {
    this.#options = options;
    this.#capacity = new Capacity(options);
    this.#rows = new Rows(options.snapshots);
  }

  /**
   * Throws when one of the channels is not allowed, or cannot be opened or read; then none of them was subscribed. Those
   * that were so before go on as before.
   */
  async subscribe(connection: Connection, requests: readonly SubscribeRequest[], id?: CommandId): Promise<void> {
    const turn = this.#options.slices.take(requests.length * beginningCost);
    if (turn !== undefined) await turn;
    let beginnings = await this.#enter(connection, requests);
    let refused: readonly RefusedRows[] = [];
    try {
      if (beginnings.some(({ recovery }) => recovery !== undefined)) {
        await this.#prepare(beginnings);
        const answer = this.#answers.take(requests.length);
        if (answer !== undefined) await answer;
      }
      if (requests.some(({ snapshot }) => snapshot !== undefined)) {
        refused = await this.#takeRows(connection, beginnings, requests);
      }
      if (refused.length > 0) {
        const out = new Set(refused.map(({ channel }) => channel));
        requests = requests.filter(({ channel }) => !out.has(channel));
        beginnings = beginnings.filter(({ channel }) => !out.has(channel.name));
      }
      if (requests.some(({ presence }) => presence !== undefined)) await this.#enterPresence(connection, requests);
      if (connection.closed) return;
      requireAll(connection, beginnings);
    } catch (error) {
      for (const beginning of beginnings) this.#takeBack(connection, beginning);
      throw error;
    }
    connection.outlet.subscribed(beginnings.map(stateOf), id);
    for (const { channel, presence } of requests) {
      if (presence !== undefined) this.#options.presence.hear(connection, channel);
    }
    for (const { channel, error } of refused)
      this.#options.failures.reply(connection.outlet, error, undefined, channel);
    for (const beginning of beginnings) this.#goLiveOrRecover(connection, beginning);
  }

  /** The channels to which the connection is subscribed by itself, and may be. Never rejects. */
  async joined({ identity, account }: Connection): Promise<readonly string[]> {
    const { access, failures } = this.#options;
    const names = access.joined(identity);
    if (names.length === 0) return names;
    const allowed = await Promise.all(
      names.map(async (name) => {
        try {
          return await access.may(identity, 'subscribe', name, account);
        } catch (error) {
          failures.expected(error);
          return false;
        }
      }),
    );
    return names.filter((_name, index) => allowed[index]);
  }

  /**
   * The command: each channel by itself. One that fails gets its error, and the others go on. All are opened at once, so
   * that many cost the sync layer hardly more round trips than one. Never rejects.
   */
  async subscribeEach(connection: Connection, command: SubscribeCommand): Promise<void> {
    const [only] = command.channels;
    if (command.channels.length === 1 && only !== undefined) return this.#subscribeOne(connection, only, command);
    // A channel that is named twice is answered twice, one after the other.
    const answered = new Map<string, Promise<void>>();
    for (const wanted of command.channels) {
      const subscribe = (): Promise<void> => this.#subscribeOne(connection, wanted, command);
      const earlier = isRefused(wanted) ? undefined : answered.get(wanted.channel);
      const subscribing = earlier === undefined ? subscribe() : earlier.then(subscribe);
      if (!isRefused(wanted)) answered.set(wanted.channel, subscribing);
    }
    await Promise.all(answered.values());
  }

  async #subscribeOne(
    connection: Connection,
    wanted: SubscribeCommand['channels'][number],
    { id, isUnasked }: SubscribeCommand,
  ): Promise<void> {
    const { failures } = this.#options;
    if (isRefused(wanted)) {
      failures.reply(connection.outlet, wanted.error, id, wanted.channel);
      return;
    }
    try {
      await this.subscribe(connection, [requestOf(wanted)], id);
    } catch (error) {
      const isForbidden = error instanceof RealtimeError && error.code === 'forbidden';
      if (isUnasked !== true || !isForbidden) failures.reply(connection.outlet, error, id, wanted.channel);
    }
  }

  /** A backend began it, so no right can end it. */
  isByBackend(subscription: Subscription): boolean {
    return this.#byBackend.has(subscription);
  }

  // 1. Permission, and the sync layer

  /** Adds the connection to all channels in one step, in which all are open and allowed; to none if it is closed. */
  async #enter(connection: Connection, requests: readonly SubscribeRequest[]): Promise<Beginning[]> {
    const { access, hub } = this.#options;
    let channels: readonly Channel[] = [];
    try {
      while (!connection.closed) {
        const { generation } = access;
        const elsewhere = await this.#permit(connection, requests);
        channels = await this.#open(requests);
        // While the opening was awaited another connection may have left a channel as its last one, which closed it.
        // Those that are open are kept meanwhile: to give them up would do the same to others, and they to this one.
        while (!connection.closed && !channels.every((channel) => hub.isOpen(channel))) {
          channels = await this.#open(requests);
        }
        if (connection.closed || generation !== access.generation) continue;
        // Again, as other channels of the same command may have been added meanwhile.
        this.#requireRoom(connection, requests);
        const names = channels.map(({ name }) => name);
        this.#capacity.require(connection, names, elsewhere);
        return requests.map((request, index) => this.#begin(connection, request, channels[index]));
      }
    } catch (error) {
      for (const channel of channels) hub.release(channel);
      throw error;
    }
    for (const channel of channels) hub.release(channel);
    return [];
  }

  #begin(connection: Connection, request: SubscribeRequest, channel: Channel | undefined): Beginning {
    if (channel === undefined) throw new Error('a channel that was opened is missing');
    const beginning = channel.members.begin(connection, request);
    if (request.byBackend === true) this.#byBackend.add(beginning.subscription);
    return beginning;
  }

  /** Answers how many are subscribed on the other nodes, where that matters. */
  async #permit(connection: Connection, requests: readonly SubscribeRequest[]): Promise<number[]> {
    const { access } = this.#options;
    this.#requireRoom(connection, requests);
    // At once: a stream of fifty channels waits as long as one of one.
    const allowed = await mapKnown(requests, ({ channel, byBackend }) => {
      return byBackend === true || access.may(connection.identity, 'subscribe', channel, connection.account);
    });
    const forbidden = requests[allowed.indexOf(false)];
    if (forbidden !== undefined) {
      throw new RealtimeError('forbidden', `No rule allows to subscribe to ${forbidden.channel}.`);
    }
    if (requests.some(({ presence }) => presence !== undefined)) await this.#permitPresence(connection, requests);
    return mapKnown(requests, ({ channel }) => this.#capacity.elsewhere(channel));
  }

  async #permitPresence({ identity, account }: Connection, requests: readonly SubscribeRequest[]): Promise<void> {
    for (const { channel, presence } of requests) {
      if (presence === undefined || (await this.#options.access.may(identity, 'presence', channel, account))) continue;
      throw new RealtimeError('forbidden', `No rule allows to enter the presence of ${channel}.`);
    }
  }

  #requireRoom(connection: Connection, requests: readonly SubscribeRequest[]): void {
    const { channelsPerConnectionMax } = this.#options;
    const fresh = requests.filter(({ channel }) => connection.subscription(channel) === undefined);
    if (connection.subscriptionCount + fresh.length <= channelsPerConnectionMax) return;
    throw new RealtimeError('limit_exceeded', `A connection has at most ${channelsPerConnectionMax} channels.`);
  }

  #open(requests: readonly SubscribeRequest[]): MaybePromise<Channel[]> {
    const { hub } = this.#options;
    // Of one channel there is nothing to give back when it cannot be opened.
    return requests.length === 1 ? mapKnown(requests, ({ channel }) => hub.open(channel)) : this.#openEach(requests);
  }

  async #openEach(requests: readonly SubscribeRequest[]): Promise<Channel[]> {
    const { hub } = this.#options;
    const opened = await Promise.allSettled(requests.map(async ({ channel }) => hub.open(channel)));
    const failed = opened.find((result) => result.status === 'rejected');
    const channels = opened.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    if (failed === undefined) return channels;
    for (const channel of channels) hub.release(channel);
    throw failed.reason;
  }

  // 3. to 5. What was missed, and going live

  async #prepare(beginnings: readonly Beginning[]): Promise<void> {
    const recovering = beginnings.filter(({ recovery }) => recovery !== undefined);
    await mapKnown(recovering, async (beginning) => {
      const { recovery, lost, channel, subscription } = beginning;
      if (recovery === undefined) return;
      if (lost !== undefined) recovery.jump(lost, channel.position);
      const whole = await recovery.prepare();
      beginning.recovered = whole && lost === undefined;
      // A position that the log denies says nothing of where the subscription begins.
      if (!whole) channel.members.startAt(subscription, channel.position);
    });
  }

  /**
   * A channel whose rows cannot be taken is left alone, if there are others. Answers those; rejects if none is left.
   * With no beginnings the connection is closed.
   */
  async #takeRows(
    connection: Connection,
    beginnings: readonly Beginning[],
    requests: readonly SubscribeRequest[],
  ): Promise<readonly RefusedRows[]> {
    const refused: RefusedRows[] = [];
    await Promise.all(
      beginnings.map(async (beginning, index) => {
        try {
          await this.#rows.take(connection, beginning, requests[index]?.snapshot);
        } catch (error) {
          refused.push({ channel: beginning.channel.name, error });
        }
      }),
    );
    if (refused[0] !== undefined && refused.length === beginnings.length) throw refused[0].error;
    const names = new Set(refused.map(({ channel }) => channel));
    for (const beginning of beginnings) if (names.has(beginning.channel.name)) this.#takeBack(connection, beginning);
    return refused;
  }

  /** Who cannot enter is not subscribed either, so that what was asked for is done as a whole or not at all. */
  async #enterPresence(connection: Connection, requests: readonly SubscribeRequest[]): Promise<void> {
    const { presence, access } = this.#options;
    await mapKnown(requests, ({ channel, presence: data }) => {
      if (data === undefined || connection.closed) return undefined;
      return presence.enter(connection, channel, data, access.membersMax(channel));
    });
  }

  /** A client that was told an error believes itself where it was before: subscribed or not. */
  #takeBack(connection: Connection, { subscription, channel, seen, again }: Beginning): void {
    if (again) return;
    if (seen === undefined) {
      this.#options.hub.unsubscribe(connection, channel.name);
      return;
    }
    if (connection.closed || connection.subscription(channel.name) !== subscription) return;
    const recovery = channel.members.goOn(subscription, seen);
    if (recovery !== undefined) this.#options.recoveries.begin(connection, { subscription, channel, recovery });
  }

  #goLiveOrRecover(connection: Connection, beginning: Beginning): void {
    const { subscription, channel, recovery, resumes, recovered, again, lost, takesRows } = beginning;
    const { members, rule } = channel;
    // What was sent just now may have run over the connection's buffer, which ended it.
    if (connection.closed) return;
    if (resumes && rule.recoverable && !takesRows) this.#options.observer.recovery(recovered ? 'recovered' : 'gap');
    if (again) {
      // A live subscription cannot go back: lower offsets would follow higher ones.
      if (lost !== undefined) members.gap(subscription, lost, channel.position);
      return;
    }
    if (recovery === undefined) {
      members.startAt(subscription, channel.position);
      members.goLive(subscription);
      return;
    }
    this.#options.recoveries.begin(connection, { subscription, channel, recovery });
  }
}

function requestOf({ channel, since, presence, snapshot }: ChannelRequest): SubscribeRequest {
  return {
    channel,
    resume: since && (() => since),
    presence,
    snapshot: snapshot === true ? 'needed' : undefined,
  };
}

/** Rights may have been taken away while history was read. */
function requireAll(connection: Connection, beginnings: readonly Beginning[]): void {
  for (const { channel, subscription } of beginnings) {
    if (connection.subscription(channel.name) === subscription) continue;
    throw new RealtimeError('forbidden', `No rule allows to subscribe to ${channel.name} any more.`);
  }
}

function stateOf({ channel, subscription, resumes, recovered, takesRows }: Beginning): SubscriptionState {
  const { name, rule, epoch } = channel;
  const recovery = resumes ? { recovered } : {};
  if (!rule.recoverable) return { channel: name, recoverable: false, ...recovery };
  // A client may know more than this node, which catches up before the subscription becomes live.
  const { start } = subscription;
  // With rows, everything after them is yet to come.
  if (takesRows) return { channel: name, recoverable: true, ...start, ...recovery };
  const offset = start.epoch === epoch ? Math.max(channel.offset, start.offset) : channel.offset;
  return { channel: name, recoverable: true, epoch, offset, ...recovery };
}
