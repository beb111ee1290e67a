// How a subscription ends when the right to it has ended, and a membership with the right to presence: after a token was
// refreshed, or when rights are checked again.

import { encodeFrame } from '../protocol/frames.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Action } from '../rules/config.ts';
import type { Access } from './access.ts';
import type { Connection } from './connection.ts';
import type { Doubts, Verdict } from './doubts.ts';
import type { Failures } from './failures.ts';
import type { Hub } from './hub.ts';
import type { Presence } from './presence.ts';
import type { Subscription } from './subscription.ts';

export interface DenialsOptions {
  readonly hub: Hub;
  readonly access: Access;
  readonly presence: Presence;
  readonly failures: Failures;
  readonly doubts: Doubts;
  /** A subscription that no right can end. */
  readonly isExempt: (subscription: Subscription) => boolean;
}

/** Channels that are asked about at once: what decides is not to be flooded. */
const askedAtOnce = 16;

export class Denials {
  readonly #options: DenialsOptions;

  constructor(options: DenialsOptions) {
    this.#options = options;
  }

  /**
   * Ends the subscriptions that are no longer allowed; answers how many. Where nobody could be asked, the subscription is
   * suspended, and the check is repeated in the background.
   */
  async leaveDenied(connection: Connection): Promise<number> {
    let left = 0;
    const held = connection.subscriptions.filter((subscription) => !this.#options.isExempt(subscription));
    for (let start = 0; start < held.length; start += askedAtOnce) {
      const some = held.slice(start, start + askedAtOnce);
      const outcomes = await Promise.all(some.map((subscription) => this.#leaveIfDenied(connection, subscription)));
      left += outcomes.filter(Boolean).length;
    }
    return left;
  }

  async #leaveIfDenied(connection: Connection, subscription: Subscription): Promise<boolean> {
    const { channel } = subscription;
    const check = () => this.#checkBoth(connection, channel);
    const verdict = await check();
    // One that began meanwhile was asked about as it began.
    if (connection.subscription(channel) !== subscription) return false;
    const forbid = () => this.#end(connection, channel);
    if (verdict === 'forbidden') forbid();
    else if (verdict === 'unknown') this.#options.doubts.begin(connection, subscription, check, forbid);
    return verdict === 'forbidden';
  }

  /** The right to be subscribed, and with it the right to be a member of the channel. */
  async #checkBoth(connection: Connection, channel: string): Promise<Verdict> {
    const { presence } = this.#options;
    const verdict = await this.#check(connection, 'subscribe', channel);
    if (verdict !== 'allowed' || !presence.has(connection.id, channel)) return verdict;
    const member = await this.#check(connection, 'presence', channel);
    // Another check that ran meanwhile has ended the membership already, and nothing else.
    if (!presence.has(connection.id, channel)) return 'allowed';
    if (member !== 'forbidden') return member;
    // An event stream asked for both, and has no other way to be told.
    if (!connection.outlet.takesCommands) return 'forbidden';
    this.#endMembership(connection, channel);
    return 'allowed';
  }

  #end(connection: Connection, channel: string): void {
    this.#options.hub.unsubscribe(connection, channel);
    connection.outlet.send('unsubscribed', encodeFrame({ type: 'unsubscribed', channel, reason: 'forbidden' }));
  }

  /** A WebSocket stays subscribed, and hears by an error of its own that it is no member any more. */
  #endMembership(connection: Connection, channel: string): void {
    const { presence, failures } = this.#options;
    presence.leave(connection, channel);
    const error = new RealtimeError('forbidden', `This connection is no member of ${channel} any more.`);
    failures.reply(connection.outlet, error, undefined, channel);
  }

  async #check({ identity, account }: Connection, action: Action, channel: string): Promise<Verdict> {
    const { access, failures } = this.#options;
    try {
      return (await access.may(identity, action, channel, account)) ? 'allowed' : 'forbidden';
    } catch (error) {
      failures.expected(error);
      return 'unknown';
    }
  }
}
