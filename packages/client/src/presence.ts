// Who is in a channel, as one client sees it: a list from the server, and the joins, leaves and updates that continue
// it. One entry for each user, however many connections the user has; each anonymous connection counts as one.

import type { Connection } from './connection.ts';
import { Emitter, type Listener, type Stop } from './emitter.ts';
import type { Member, PresenceList } from './protocol.ts';
import type { RequestOptions } from './requests.ts';

/** What it needs of its channel. */
export interface PresentChannel {
  readonly name: string;
  readonly state: string;
  hold(): Stop;
  renew(): void;
}

/** Who is in a channel: `channel.presence`. */
export class Presence {
  readonly #channel: PresentChannel;
  readonly #connection: Connection;
  readonly #events = new Emitter<{ change: readonly Member[] }>();
  readonly #byUser = new Map<string, Member>();
  #members: readonly Member[] = [];
  #listeners = 0;
  /** What this client is in the channel with; undefined while it only looks. */
  #entered: unknown;

  /** Made by its channel. */
  constructor(channel: PresentChannel, connection: Connection) {
    this.#channel = channel;
    this.#connection = connection;
  }

  /** One for each user. Replaced by a new array with every change; kept up while somebody listens. */
  get members(): readonly Member[] {
    return this.#members;
  }

  /** What goes with the subscription. */
  get entry(): unknown {
    return this.#entered;
  }

  /**
   * Calls `listener` whenever somebody comes, goes or changes.
   *
   * @example
   * const stop = client.channel('chat:42').presence.subscribe((members) => showNames(members));
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
   * Is in the channel, with `data` for the others to see, until the returned function is called. Once in, call it again
   * with other data to change it.
   *
   * @example
   * const leave = client.channel('chat:42').presence.enter({ name: 'Ann' });
   */
  enter(data: Readonly<Record<string, unknown>> | true = true): Stop {
    const stop = this.#channel.hold();
    const wasIn = this.#entered;
    this.#entered = data;
    // Refused or not, the next subscription carries the data.
    if (wasIn) this.#ask({ data }).catch(() => undefined);
    else this.#channel.renew();
    return () => {
      if (this.#entered === data) this.#entered = undefined;
      stop();
    };
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
    if (this.#listeners === 0) return;
    // Where presence is forbidden the list stays empty.
    this.list().then(this.replace, () => undefined);
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
