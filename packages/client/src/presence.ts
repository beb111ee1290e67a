// Who is in a channel, as one client sees it: a list from the server, and the joins, leaves and updates that continue
// it. One entry for each user, however many connections the user has; each anonymous connection counts as one.
//
// The server tells those alone who are in the channel themselves. Whoever only looks has the list of the moment.

import type { Clock } from './clock.ts';
import type { Connection } from './connection.ts';
import { Emitter, type Listener, type Stop } from './emitter.ts';
import { copyExact, printExact } from './exact-json.ts';
import type { Member, PresenceList } from './protocol.ts';
import type { RequestOptions } from './requests.ts';

/** What it needs of its channel. */
export interface PresentChannel {
  readonly name: string;
  readonly state: string;
  hold(): Stop;
  /** Subscribes once more, after leaving if this client is to be in the channel no more. */
  renew(leaves: boolean): void;
}

/** A component that is mounted again at once is in the channel all the while. */
const lingerMs = 250;

/** Who is in a channel: `channel.presence`. */
export class Presence {
  readonly #channel: PresentChannel;
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #events = new Emitter<{ change: readonly Member[] }>();
  readonly #byUser = new Map<string, Member>();
  #members: readonly Member[] = [];
  #listeners = 0;
  /** Those of this client who are in, the newest last. */
  readonly #holders = new Set<{ readonly data: unknown }>();
  /** What this client is in the channel with, as the newest of them says; undefined while it only looks. */
  #entered: unknown;
  #leaving: Stop | undefined;
  #isRefused = false;

  /** Made by its channel. */
  constructor(channel: PresentChannel, connection: Connection, clock: Clock) {
    this.#channel = channel;
    this.#connection = connection;
    this.#clock = clock;
  }

  /** One for each user. Replaced by a new array with every change; kept up while somebody listens and this client is in. */
  get members(): readonly Member[] {
    return this.#members;
  }

  /** What goes with the subscription. */
  get entry(): unknown {
    return this.#isRefused ? undefined : this.#entered;
  }

  /**
   * Calls `listener` whenever somebody comes, goes or changes, while this client is in the channel too: `enter`. A client
   * that only looks gets the list once.
   *
   * @example
   * const { presence } = client.channel('chat:42');
   * const stop = presence.subscribe((members) => showNames(members));
   * const leave = presence.enter({ name: 'Ann' });
   */
  subscribe(listener: Listener<readonly Member[]>): Stop {
    const stops = [this.#events.on('change', listener), this.#channel.hold()];
    if (this.#listeners++ === 0 && this.#channel.state === 'live') this.refresh();
    return () => {
      if (stops.length > 0) this.#listeners--;
      for (const stop of stops.splice(0)) stop();
    };
  }

  /**
   * Is in the channel, with `data` for the others to see, until the returned function is called. Call it again for other
   * data: the newest counts among those who have not left.
   *
   * @example
   * const leave = client.channel('chat:42').presence.enter({ name: 'Ann' });
   */
  enter(data: Readonly<Record<string, unknown>> | true = true): Stop {
    const own = { data: copyExact(data) };
    const stop = this.#channel.hold();
    this.#holders.add(own);
    this.#isRefused = false;
    this.#show();
    return () => {
      stop();
      if (this.#holders.delete(own)) this.#show();
    };
  }

  #show(): void {
    const before = this.#entered;
    const data = [...this.#holders].at(-1)?.data;
    this.#leaving?.();
    this.#entered = data ?? before;
    if (data === undefined) {
      this.#leaving = this.#clock.after(lingerMs, () => {
        this.#entered = undefined;
        this.#channel.renew(true);
      });
    } else if (before === undefined) this.#channel.renew(false);
    // The next subscription carries the data too, should this not arrive.
    else if (printExact(before) !== printExact(data)) {
      this.#ask({ data: data === true ? null : data }).then(this.replace, () => undefined);
    }
  }

  /** Asks the server once. `limit` is 1,000 unless given; `count` is that of all. */
  list({ limit, ...options }: RequestOptions & { readonly limit?: number } = {}): Promise<PresenceList> {
    return this.#ask({ limit }, options);
  }

  #ask(more: object, options?: RequestOptions): Promise<PresenceList> {
    return this.#connection.request({ type: 'presence', channel: this.#channel.name, ...more }, options);
  }

  // For the channel

  refresh(): void {
    // A stream brings the list by itself.
    if (this.#listeners === 0 || (this.entry && this.#connection.status.transport === 'sse')) return;
    // Where presence is forbidden the list stays empty.
    this.list().then(this.replace, () => undefined);
  }

  /** The channel may be subscribed and presence not be had: true if it is worth asking for the channel alone. */
  refuse(): boolean {
    const mayTry = this.entry !== undefined;
    this.#isRefused = true;
    return mayTry;
  }

  readonly replace = ({ members }: PresenceList): void => {
    this.#byUser.clear();
    for (const member of members) this.#put('join', member);
    this.#changed();
  };

  apply({ type, member }: { readonly type: string; readonly member: Member }): void {
    this.#put(type, member);
    this.#changed();
  }

  #put(type: string, member: Member): void {
    const key = member.user === null ? `c ${member.connection}` : `u ${member.user}`;
    if (type === 'leave') this.#byUser.delete(key);
    else this.#byUser.set(key, member);
  }

  #changed(): void {
    this.#members = [...this.#byUser.values()];
    this.#events.emit('change', this.#members);
  }
}
