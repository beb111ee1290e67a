// The connections of this node as a backend and the other nodes reach them: those of a user together, and one by its id.

import { encodeFrame } from '../protocol/frames.ts';
import type { UserConnection } from './cluster.ts';
import type { Failures } from './failures.ts';
import type { Hub } from './hub.ts';
import type { HubObserver } from './observer.ts';
import type { Session } from './session.ts';
import type { Sessions } from './sessions.ts';
import type { Subscribing } from './subscribing.ts';

export interface UsersOptions {
  readonly nodeId: string;
  readonly sessions: Sessions;
  readonly hub: Hub;
  readonly subscribing: Subscribing;
  readonly observer: HubObserver;
  readonly failures: Failures;
}

/** Why a subscription ended that the client did not end: a backend did. */
const removed = 'removed';

export class Users {
  readonly #options: UsersOptions;

  constructor(options: UsersOptions) {
    this.#options = options;
  }

  connections(user: string): UserConnection[] {
    const { nodeId, sessions } = this.#options;
    return sessions.of(user).map((session) => ({
      connection: session.id,
      node: nodeId,
      transport: session.outlet.transport,
      since: session.since,
      channels: session.subscriptions.map(({ channel }) => channel),
    }));
  }

  /**
   * Subscribes the user's WebSockets, whatever rules say: the backend decides. Each hears `subscribed`. Answers how many
   * are subscribed now; one that has no room for another channel is not.
   */
  async subscribe(user: string, channel: string): Promise<number> {
    const { sessions, subscribing } = this.#options;
    const sockets = sessions.of(user).filter(({ outlet }) => outlet.takesCommands);
    const subscribed = await Promise.all(sockets.map((session) => this.#subscribe(subscribing, session, channel)));
    return subscribed.filter(Boolean).length;
  }

  /** Ends the user's subscriptions to the channel, those of event streams too. Each hears why. Answers how many. */
  unsubscribe(user: string, channel: string): number {
    const { sessions, hub } = this.#options;
    const theirs = sessions.of(user).filter((session) => session.subscription(channel) !== undefined);
    for (const session of theirs) {
      hub.unsubscribe(session, channel);
      session.outlet.send('unsubscribed', encodeFrame({ type: 'unsubscribed', channel, reason: removed }));
    }
    return theirs.length;
  }

  /** Gives a `message` frame to one connection, which is subscribed to the channel, if one is named. Answers whether. */
  deliver(connection: string, channel: string | undefined, frame: string): boolean {
    const { sessions, observer } = this.#options;
    const session = sessions.get(connection);
    if (session === undefined || session.closed) return false;
    if (channel !== undefined && session.subscription(channel) === undefined) return false;
    session.outlet.send('message', frame);
    observer.sent('message', channel ?? '', 1);
    return true;
  }

  async #subscribe(subscribing: Subscribing, session: Session, channel: string): Promise<boolean> {
    try {
      await subscribing.subscribe(session, [{ channel, byBackend: true }]);
      return session.subscription(channel) !== undefined;
    } catch (error) {
      this.#options.failures.expected(error);
      return false;
    }
  }
}
