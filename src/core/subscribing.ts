// How a subscription begins: permission, the sync layer, what was missed, and the moment when it becomes live.
//
//   1. each channel is checked, then opened; if one fails, none is subscribed (`entering.ts`)
//   2. those that say where they stood get a recovery, which holds back what is published from now on
//   3. the first page of history of each is read, so that `recovered` is known before it is told. Rows are taken for those
//      that want them and do not recover, see rows.ts; and presence is entered
//   4. in one synchronous step: `subscribed` is sent, and every channel without a recovery goes live
//   5. recoveries send what was missed and go live, those of one connection one after another

import { isRefused, type ChannelRequest, type SubscribeCommand } from '../protocol/commands.ts';
import type { CommandId, SubscriptionState } from '../protocol/frames.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Access } from './access.ts';
import type { Cluster } from './cluster.ts';
import type { Connection } from './connection.ts';
import type { Failures } from './failures.ts';
import type { Hub } from './hub.ts';
import { mapKnown, whenKnown, type MaybePromise } from './maybe-promise.ts';
import type { Beginning } from './members.ts';
import type { HubObserver } from './observer.ts';
import type { Presence } from './presence.ts';
import type { Recoveries } from './recoveries.ts';
import { Entering } from './entering.ts';
import { Rows } from './rows.ts';
import { Slices } from './slices.ts';
import type { Snapshots } from './snapshot.ts';
import { wantsPresence, type SubscribeRequest, type Subscription } from './subscription.ts';

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

/** Ready to be told, but for presence. */
interface Prepared {
  readonly requests: readonly SubscribeRequest[];
  readonly beginnings: readonly Beginning[];
  readonly refused: readonly RefusedRows[];
  readonly id: CommandId | undefined;
}

const none: readonly RefusedRows[] = [];
/** What a subscription costs as it begins, in publications sent. */
const beginningCost = 25;
/** Subscriptions that a turn of the event loop answers: a page of the log is one that hundreds may have waited for. */
const answersAtOnce = 50;

export class Subscribing {
  readonly #options: SubscribingOptions;
  readonly #entering: Entering;
  readonly #rows: Rows;
  /** Apart from those that begin: their pages wait in memory. */
  readonly #answers = new Slices(answersAtOnce);

  constructor(options: SubscribingOptions) {
    this.#options = options;
    this.#entering = new Entering(options);
    this.#rows = new Rows(options.snapshots);
  }

  /**
   * Throws, or rejects, when one of the channels is not allowed, or cannot be opened or read; then none of them was
   * subscribed. Those that were so before go on as before. Where nothing has to be waited for, all of it is done at once:
   * most subscriptions of a crowd are so, and each promise would cost it more than all else.
   */
  subscribe(connection: Connection, requests: readonly SubscribeRequest[], id?: CommandId): MaybePromise<void> {
    const turn = this.#options.slices.take(requests.length * beginningCost);
    const entering =
      turn === undefined
        ? this.#entering.enter(connection, requests)
        : turn.then(() => this.#entering.enter(connection, requests));
    return whenKnown(entering, (beginnings) => {
      return beginnings.some(recovers) || requests.some(wantsRows)
        ? this.#beginWithHistory(connection, requests, beginnings, id)
        : this.#beginAll(connection, { requests, beginnings, refused: none, id });
    });
  }

  async #beginWithHistory(
    connection: Connection,
    requests: readonly SubscribeRequest[],
    beginnings: readonly Beginning[],
    id: CommandId | undefined,
  ): Promise<void> {
    let refused = none;
    try {
      if (beginnings.some(recovers)) {
        await this.#prepare(beginnings);
        const answer = this.#answers.take(requests.length);
        if (answer !== undefined) await answer;
      }
      if (requests.some(wantsRows)) refused = await this.#takeRows(connection, beginnings, requests);
    } catch (error) {
      this.#takeAllBack(connection, beginnings);
      throw error;
    }
    const out = new Set(refused.map(({ channel }) => channel));
    await this.#beginAll(connection, {
      requests: requests.filter(({ channel }) => !out.has(channel)),
      beginnings: beginnings.filter(({ channel }) => !out.has(channel.name)),
      refused,
      id,
    });
  }

  #beginAll(connection: Connection, prepared: Prepared): MaybePromise<void> {
    const { requests, beginnings } = prepared;
    try {
      const entering = requests.some(wantsPresence) ? this.#enterPresence(connection, requests) : undefined;
      if (entering instanceof Promise) return this.#beginOnceIn(entering, connection, prepared);
      if (connection.closed) return undefined;
      requireAll(connection, beginnings);
    } catch (error) {
      this.#takeAllBack(connection, beginnings);
      throw error;
    }
    this.#goOn(connection, prepared);
    return undefined;
  }

  async #beginOnceIn(entering: Promise<unknown>, connection: Connection, prepared: Prepared): Promise<void> {
    try {
      await entering;
      if (connection.closed) return;
      requireAll(connection, prepared.beginnings);
    } catch (error) {
      this.#takeAllBack(connection, prepared.beginnings);
      throw error;
    }
    this.#goOn(connection, prepared);
  }

  /** In one step. */
  #goOn(connection: Connection, { requests, beginnings, refused, id }: Prepared): void {
    const { presence: presences, failures } = this.#options;
    connection.outlet.subscribed(beginnings.map(stateOf), id);
    for (const { channel, presence } of requests) if (presence !== undefined) presences.hear(connection, channel);
    for (const { channel, error } of refused) failures.reply(connection.outlet, error, undefined, channel);
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
  subscribeEach(connection: Connection, command: SubscribeCommand): MaybePromise<void> {
    const [only] = command.channels;
    if (command.channels.length === 1 && only !== undefined) return this.#subscribeOne(connection, only, command);
    return this.#subscribeAll(connection, command);
  }

  async #subscribeAll(connection: Connection, command: SubscribeCommand): Promise<void> {
    // A channel that is named twice is answered twice, one after the other.
    const answered = new Map<string, Promise<void>>();
    for (const wanted of command.channels) {
      const earlier = isRefused(wanted) ? undefined : answered.get(wanted.channel);
      const subscribing = whenKnown(earlier, () => this.#subscribeOne(connection, wanted, command));
      if (!isRefused(wanted) && subscribing instanceof Promise) answered.set(wanted.channel, subscribing);
    }
    await Promise.all(answered.values());
  }

  #subscribeOne(
    connection: Connection,
    wanted: SubscribeCommand['channels'][number],
    command: SubscribeCommand,
  ): MaybePromise<void> {
    const { id } = command;
    if (isRefused(wanted)) {
      this.#options.failures.reply(connection.outlet, wanted.error, id, wanted.channel);
      return undefined;
    }
    try {
      const subscribing = this.subscribe(connection, [requestOf(wanted)], id);
      return subscribing instanceof Promise
        ? this.#repliedFor(subscribing, connection, wanted.channel, command)
        : undefined;
    } catch (error) {
      this.#fail(connection, wanted.channel, command, error);
      return undefined;
    }
  }

  async #repliedFor(
    subscribing: Promise<void>,
    connection: Connection,
    channel: string,
    command: SubscribeCommand,
  ): Promise<void> {
    try {
      await subscribing;
    } catch (error) {
      this.#fail(connection, channel, command, error);
    }
  }

  #fail({ outlet }: Connection, channel: string, { id, isUnasked }: SubscribeCommand, error: unknown): void {
    const isForbidden = error instanceof RealtimeError && error.code === 'forbidden';
    if (isUnasked !== true || !isForbidden) this.#options.failures.reply(outlet, error, id, channel);
  }

  /** A backend began it, so no right can end it. */
  isByBackend(subscription: Subscription): boolean {
    return this.#entering.isByBackend(subscription);
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
  #enterPresence(connection: Connection, requests: readonly SubscribeRequest[]): MaybePromise<unknown> {
    const { presence, access } = this.#options;
    return mapKnown(requests, ({ channel, presence: data }) => {
      if (data === undefined || connection.closed) return undefined;
      return presence.enter(connection, channel, data, access.membersMax(channel));
    });
  }

  #takeAllBack(connection: Connection, beginnings: readonly Beginning[]): void {
    for (const beginning of beginnings) this.#takeBack(connection, beginning);
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

// Named once, since each subscription asks them.

function recovers({ recovery }: Beginning): boolean {
  return recovery !== undefined;
}

function wantsRows({ snapshot }: SubscribeRequest): boolean {
  return snapshot !== undefined;
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
