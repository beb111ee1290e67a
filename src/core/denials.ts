// How a subscription ends when the right to it has ended, and a membership with the right to presence: after a token was
// refreshed, or when rights are checked again.

import type { ErrorCode } from '../protocol/codes.ts';
import { encodeFrame } from '../protocol/frames.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Action } from '../rules/config.ts';
import type { Access } from './access.ts';
import type { Connection } from './connection.ts';
import type { Failures } from './failures.ts';
import type { Hub } from './hub.ts';
import type { Presence } from './presence.ts';
import type { Subscription } from './subscription.ts';

export interface DenialsOptions {
  readonly hub: Hub;
  readonly access: Access;
  readonly presence: Presence;
  readonly failures: Failures;
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

  /** Ends the subscriptions that are no longer allowed; answers how many. */
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
    const reason = await this.#denial(connection, 'subscribe', channel);
    // One that began meanwhile was asked about as it began.
    if (connection.subscription(channel) !== subscription) return false;
    if (reason === undefined) return this.#leavePresenceIfDenied(connection, subscription);
    this.#end(connection, channel, reason);
    return true;
  }

  #end(connection: Connection, channel: string, reason: string): void {
    this.#options.hub.unsubscribe(connection, channel);
    connection.outlet.send('unsubscribed', encodeFrame({ type: 'unsubscribed', channel, reason }));
  }

  /** A WebSocket stays subscribed, and hears by an error of its own that it is no member any more. */
  async #leavePresenceIfDenied(connection: Connection, { channel }: Subscription): Promise<boolean> {
    const { presence, failures } = this.#options;
    if (!presence.has(connection.id, channel)) return false;
    const reason = await this.#denial(connection, 'presence', channel);
    if (reason === undefined || !presence.has(connection.id, channel)) return false;
    // An event stream asked for both, and has no other way to be told.
    if (!connection.outlet.takesCommands) {
      this.#end(connection, channel, reason);
      return true;
    }
    presence.leave(connection, channel);
    const error = new RealtimeError(reason, `This connection is no member of ${channel} any more.`);
    failures.reply(connection.outlet, error, undefined, channel);
    return false;
  }

  async #denial({ identity, account }: Connection, action: Action, channel: string): Promise<ErrorCode | undefined> {
    const { access, failures } = this.#options;
    try {
      return (await access.may(identity, action, channel, account)) ? undefined : 'forbidden';
    } catch (error) {
      // Whoever decides cannot be asked: nobody may stay on a guess.
      return failures.expected(error).code;
    }
  }
}
