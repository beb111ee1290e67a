// One connection: who it is, its way out, and what it is subscribed to. `session.ts` adds the queue of its commands.

import type { Identity } from './access.ts';
import type { Outlet } from './outlet.ts';
import { Subscription, type Subscriber } from './subscription.ts';

const isClosed = 1;
const isSlow = 2;
/** Above the two flags stands how many commands came, up to 2^28. */
const oneCommand = 4;
const commandsFull = 0x3fff_fffc;

export class Connection implements Subscriber {
  readonly id: string;
  identity: Identity;
  readonly outlet: Outlet;
  /** One number for two truths and a count: a field more would take every connection to the next larger size. */
  #flags = 0;
  /** The only one as it is, several in a map: idle connections with one subscription are the most frequent by far. */
  #subscriptions: Subscription | Map<string, Subscription> | undefined;

  constructor(id: string, identity: Identity, outlet: Outlet) {
    this.id = id;
    this.identity = identity;
    this.outlet = outlet;
  }

  get account(): string {
    return this.identity.user ?? this.id;
  }

  get closed(): boolean {
    return (this.#flags & isClosed) !== 0;
  }

  set closed(is: boolean) {
    this.#flags = is ? this.#flags | isClosed : this.#flags & ~isClosed;
  }

  /** Too slow to be waited for; its own buffer limit decides its fate. */
  get slow(): boolean {
    return (this.#flags & isSlow) !== 0;
  }

  set slow(is: boolean) {
    this.#flags = is ? this.#flags | isSlow : this.#flags & ~isSlow;
  }

  /** Commands that came from the peer. */
  get commandCount(): number {
    return this.#flags >>> 2;
  }

  countCommand(): void {
    if (this.#flags < commandsFull) this.#flags += oneCommand;
  }

  subscription(channel: string): Subscription | undefined {
    const held = this.#subscriptions;
    if (held instanceof Subscription) return held.channel === channel ? held : undefined;
    return held?.get(channel);
  }

  get subscriptions(): readonly Subscription[] {
    const held = this.#subscriptions;
    if (held === undefined) return [];
    return held instanceof Subscription ? [held] : [...held.values()];
  }

  get subscriptionCount(): number {
    const held = this.#subscriptions;
    return held instanceof Subscription ? 1 : (held?.size ?? 0);
  }

  /** The connection has no other one to this channel. */
  add(subscription: Subscription): void {
    const held = this.#subscriptions;
    if (held === undefined) this.#subscriptions = subscription;
    else if (!(held instanceof Subscription)) held.set(subscription.channel, subscription);
    else this.#subscriptions = new Map([held, subscription].map((each) => [each.channel, each]));
  }

  remove(subscription: Subscription): void {
    const held = this.#subscriptions;
    if (held === subscription) this.#subscriptions = undefined;
    else if (held instanceof Map && held.delete(subscription.channel) && held.size === 0) {
      this.#subscriptions = undefined;
    }
  }
}
