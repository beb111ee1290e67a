// How a connection comes into channels: each is checked, then opened; if one fails, it comes into none. What was allowed
// must still be allowed in the step in which the connection is added, from which on it is asked about anew by whoever takes
// rights away.

import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Access } from './access.ts';
import { Capacity, type CapacityOptions } from './capacity.ts';
import type { Channel } from './channel.ts';
import type { Connection } from './connection.ts';
import { mapKnown, whenKnown, type MaybePromise } from './maybe-promise.ts';
import type { Beginning } from './members.ts';
import { wantsPresence, type SubscribeRequest, type Subscription } from './subscription.ts';

export interface EnteringOptions extends CapacityOptions {
  readonly channelsPerConnectionMax: number;
}

/** What was asked already, under rights of this generation. */
interface Asked {
  readonly generation: Access['generation'];
  readonly permitting: MaybePromise<number[]>;
  readonly opening: MaybePromise<Channel[]> | undefined;
}

export class Entering {
  readonly #options: EnteringOptions;
  readonly #capacity: Capacity;
  readonly #byBackend = new WeakSet<Subscription>();

  constructor(options: EnteringOptions) {
    this.#options = options;
    this.#capacity = new Capacity(options);
  }

  /** A backend began it, so no right can end it. */
  isByBackend(subscription: Subscription): boolean {
    return this.#byBackend.has(subscription);
  }

  /** Adds the connection to all channels in one step, in which all are open and allowed; to none if it is closed. */
  enter(connection: Connection, requests: readonly SubscribeRequest[]): MaybePromise<readonly Beginning[]> {
    if (connection.closed) return [];
    const { generation } = this.#options.access;
    const permitting = this.#permit(connection, requests);
    const opening = permitting instanceof Promise ? undefined : this.#open(requests);
    if (permitting instanceof Promise || opening === undefined || opening instanceof Promise) {
      return this.#enterOnceOpen(connection, requests, { generation, permitting, opening });
    }
    try {
      return this.#beginIn(opening, connection, requests, permitting);
    } catch (error) {
      for (const channel of opening) this.#options.hub.release(channel);
      throw error;
    }
  }

  async #enterOnceOpen(
    connection: Connection,
    requests: readonly SubscribeRequest[],
    asked: Asked,
  ): Promise<readonly Beginning[]> {
    const { access, hub } = this.#options;
    let channels: readonly Channel[] = [];
    let { generation, permitting, opening } = asked;
    try {
      while (true) {
        const elsewhere = await permitting;
        channels = await (opening ?? this.#open(requests));
        // While the opening was awaited another connection may have left a channel as its last one, which closed it.
        // Those that are open are kept meanwhile: to give them up would do the same to others, and they to this one.
        while (!connection.closed && !channels.every((channel) => hub.isOpen(channel))) {
          channels = await this.#open(requests);
        }
        if (connection.closed) break;
        if (generation === access.generation) return this.#beginIn(channels, connection, requests, elsewhere);
        ({ generation } = access);
        [permitting, opening] = [this.#permit(connection, requests), undefined];
      }
    } catch (error) {
      for (const channel of channels) hub.release(channel);
      throw error;
    }
    for (const channel of channels) hub.release(channel);
    return [];
  }

  #beginIn(
    channels: readonly Channel[],
    connection: Connection,
    requests: readonly SubscribeRequest[],
    elsewhere: readonly number[],
  ): readonly Beginning[] {
    // Again, as other channels of the same command may have been added meanwhile.
    this.#requireRoom(connection, requests);
    this.#capacity.require(connection, channels.map(nameOf), elsewhere);
    return requests.map((request, index) => this.#begin(connection, request, channels[index]));
  }

  #begin(connection: Connection, request: SubscribeRequest, channel: Channel | undefined): Beginning {
    if (channel === undefined) throw new Error('a channel that was opened is missing');
    const beginning = channel.members.begin(connection, request);
    if (request.byBackend === true) this.#byBackend.add(beginning.subscription);
    return beginning;
  }

  /** Answers how many are subscribed on the other nodes, where that matters. */
  #permit(connection: Connection, requests: readonly SubscribeRequest[]): MaybePromise<number[]> {
    const { access } = this.#options;
    this.#requireRoom(connection, requests);
    // At once: a stream of fifty channels waits as long as one of one.
    const allowed = mapKnown(requests, ({ channel, byBackend }) => {
      return byBackend === true || access.may(connection.identity, 'subscribe', channel, connection.account);
    });
    return whenKnown(allowed, (answers) => {
      const forbidden = requests[answers.indexOf(false)];
      if (forbidden !== undefined) {
        throw new RealtimeError('forbidden', `No rule allows to subscribe to ${forbidden.channel}.`);
      }
      const permitted = requests.some(wantsPresence) ? this.#permitPresence(connection, requests) : undefined;
      return whenKnown(permitted, () => mapKnown(requests, ({ channel }) => this.#capacity.elsewhere(channel)));
    });
  }

  #permitPresence({ identity, account }: Connection, requests: readonly SubscribeRequest[]): MaybePromise<void> {
    const allowed = mapKnown(requests, ({ channel, presence }) => {
      return presence === undefined || this.#options.access.may(identity, 'presence', channel, account);
    });
    return whenKnown(allowed, (answers) => {
      const forbidden = requests[answers.indexOf(false)];
      if (forbidden === undefined) return;
      throw new RealtimeError('forbidden', `No rule allows to enter the presence of ${forbidden.channel}.`);
    });
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
}

function nameOf({ name }: Channel): string {
  return name;
}
