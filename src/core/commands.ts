// What each command of a connection does, but for `subscribe`, which has `subscribing.ts`. One object serves all sessions,
// which hand it one command at a time.

import type { Command } from '../protocol/commands.ts';
import {
  directFrame,
  encodeFrame,
  historyFrame,
  olderFrame,
  presenceFrame,
  publishedFrame,
  withId,
} from '../protocol/frames.ts';
import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Clock } from '../time/clock.ts';
import { keyOf, type Access, type Authenticate, type Identity } from './access.ts';
import type { Cluster } from './cluster.ts';
import type { Connection } from './connection.ts';
import type { Denials } from './denials.ts';
import type { Hub } from './hub.ts';
import { refusalError, type Limits } from './limits.ts';
import type { HubObserver } from './observer.ts';
import { isLagging, waitForPace } from './pace.ts';
import type { Presence } from './presence.ts';
import type { Snapshots } from './snapshot.ts';

/** All but one. */
export type SimpleCommand = Exclude<Command, { type: 'subscribe' }>;
type Of<Type extends SimpleCommand['type']> = Extract<SimpleCommand, { type: Type }>;
type Older = Pick<Of<'history'>, 'id' | 'channel' | 'limit'> & { readonly before: string | number };

/** Nobody else waits for these, and there may be many. */
const historyPollMs = 50;
/** Characters past which writing a reply takes a noticeable part of a millisecond. */
const largeReply = 128 << 10;

export interface CommandsOptions {
  readonly hub: Hub;
  readonly snapshots: Snapshots;
  readonly denials: Denials;
  readonly access: Access;
  readonly presence: Presence;
  readonly limits: Limits;
  /** Checks the tokens of `refresh` commands. */
  readonly authenticate: Authenticate;
  /** All nodes together, this one among them; undefined before it has joined them. */
  readonly cluster: () => Cluster | undefined;
  readonly observer: HubObserver;
  readonly clock: Clock;
}

export class Commands {
  readonly #options: CommandsOptions;

  constructor(options: CommandsOptions) {
    this.#options = options;
  }

  /** Undefined when it is done already. Throws, or rejects with, what the client is to be told. */
  run(connection: Connection, command: SimpleCommand): Promise<void> | undefined {
    switch (command.type) {
      case 'ping':
        connection.outlet.send('pong', encodeFrame({ type: 'pong', ...withId(command.id) }));
        return undefined;
      case 'publish':
        return this.#publish(connection, command);
      case 'unsubscribe':
        return this.#unsubscribe(connection, command);
      case 'history':
        return this.#history(connection, command);
      case 'refresh':
        return this.#refresh(connection, command);
      case 'presence':
        return this.#presence(connection, command);
    }
  }

  #publish(connection: Connection, command: Of<'publish'>): Promise<void> | undefined {
    const { id, channel, data, echo, key, to } = command;
    if (to !== undefined) return this.#send(connection, command, to);
    const { identity, outlet } = connection;
    const allowed = this.#options.access.may(identity, 'publish', channel, connection.account);
    if (allowed === false) throw new RealtimeError('forbidden');
    const publish = () =>
      this.#options.hub.publish({
        channel,
        data,
        key: keyOf(identity, key),
        from: { user: identity.user, connection: connection.id },
        except: echo ? undefined : connection.id,
        source: 'client',
      });
    const reply = (position: Position | undefined) => outlet.send('published', publishedFrame(id, channel, position));
    if (allowed !== true) {
      return allowed.then(async (yes) => {
        if (!yes) throw new RealtimeError('forbidden');
        // Whoever was disconnected while this was decided publishes nothing any more.
        if (!connection.closed) reply(await publish());
      });
    }
    const position = publish();
    if (position instanceof Promise) return position.then(reply);
    reply(position);
    return undefined;
  }

  /** To one connection alone, in the order of the commands: what it is sent has no number that would tell it. */
  async #send(connection: Connection, { id, channel, data }: Of<'publish'>, to: string): Promise<void> {
    const { access, hub, cluster, observer, clock } = this.#options;
    const { identity } = connection;
    const allowed = access.may(identity, 'publish', channel, connection.account);
    if (!(allowed instanceof Promise ? await allowed : allowed)) throw new RealtimeError('forbidden');
    if (connection.closed) return;
    hub.requireSize(data);
    const all = cluster();
    if (all === undefined) throw new RealtimeError('unavailable');
    const from = { user: identity.user, connection: connection.id };
    const isThere = await all.send(to, channel, directFrame({ channel, data, at: clock.now(), from }));
    if (!isThere) throw new RealtimeError('not_subscribed', 'No such connection is subscribed to the channel.');
    observer.published('client', channel);
    connection.outlet.send('published', publishedFrame(id, channel, undefined));
  }

  #unsubscribe(connection: Connection, { id, channel }: Of<'unsubscribe'>): undefined {
    if (connection.subscription(channel) === undefined) throw new RealtimeError('not_subscribed');
    this.#options.hub.unsubscribe(connection, channel);
    connection.outlet.send('unsubscribed', encodeFrame({ type: 'unsubscribed', ...withId(id), channel }));
    return undefined;
  }

  /** To guess tokens here is no better than to guess them at the door. */
  async #authenticate(connection: Connection, token: string): Promise<Identity> {
    const { authenticate, limits, observer } = this.#options;
    const refusal = limits.refreshing(connection);
    if (refusal !== undefined) {
      observer.rateLimited(refusal.kind);
      throw refusalError(refusal);
    }
    try {
      return await authenticate(token);
    } catch (error) {
      if (error instanceof RealtimeError && error.code === 'unauthorized') limits.refreshFailed(connection);
      throw error;
    }
  }

  /** A fresh token for the same user extends the connection; what it grants no more is left. */
  async #refresh(connection: Connection, { id, token }: Of<'refresh'>): Promise<void> {
    const identity = await this.#authenticate(connection, token);
    if (identity.user !== connection.identity.user) {
      throw new RealtimeError('unauthorized', 'The token is another user’s.');
    }
    connection.identity = identity;
    const { expiresAt } = identity;
    const expires = expiresAt === undefined ? {} : { expires: expiresAt };
    connection.outlet.send('refreshed', encodeFrame({ type: 'refreshed', ...withId(id), ...expires }));
    await this.#options.denials.leaveDenied(connection);
  }

  async #history(connection: Connection, { id, channel, since, before, limit }: Of<'history'>): Promise<void> {
    await this.#untilRead(connection);
    if (connection.closed) return;
    // After the wait, which may be long: the right may have ended in it.
    if (!(await this.#options.access.may(connection.identity, 'history', channel, connection.account)))
      throw new RealtimeError('forbidden');
    const frame =
      before === undefined
        ? await this.#messages(connection, { id, channel, since, limit })
        : await this.#older(connection, { id, channel, before, limit });
    connection.outlet.send('history', frame);
    // Several in one packet would hold everybody up for as long as all of them take to write.
    if (frame.length > largeReply) await this.#options.clock.sleep(0);
  }

  async #messages(
    { account }: Connection,
    { id, channel, since, limit }: Omit<Of<'history'>, 'type'>,
  ): Promise<string> {
    const page = await this.#options.hub.history(channel, { since, limit }, account);
    const messages = page.publications.map((publication) => publication.frame);
    return historyFrame(id, channel, page.head, messages, page.complete);
  }

  async #older({ identity, account }: Connection, { id, channel, before, limit }: Older): Promise<string> {
    const { hub, snapshots } = this.#options;
    const { head } = await hub.history(channel, { limit: 1 }, account);
    const { rows, complete } = await snapshots.older(channel, { identity, account, before, limit });
    return olderFrame(id, channel, head, rows, complete);
  }

  async #presence(connection: Connection, { id, channel, data, limit }: Of<'presence'>): Promise<void> {
    const { access, presence, clock } = this.#options;
    await this.#untilRead(connection);
    if (connection.closed) return;
    if (!(await access.may(connection.identity, 'presence', channel, connection.account)))
      throw new RealtimeError('forbidden');
    if (data !== undefined) {
      if (!presence.has(connection.id, channel)) {
        throw new RealtimeError('not_subscribed', 'This connection is no member: subscribe with presence first.');
      }
      await presence.enter(connection, channel, data, 0);
    }
    // The list is made in the step in which it is sent: a change that is told in between would come before the list lacks it.
    let list = presence.list(channel, limit);
    while (list instanceof Promise) {
      await list;
      list = presence.list(channel, limit);
    }
    const frame = presenceFrame(id, channel, list);
    connection.outlet.send('presence', frame);
    if (frame.length > largeReply) await clock.sleep(0);
  }

  /** A few bytes ask for a mebibyte: who has not read the reply before is not given the next, and in the end cut off. */
  async #untilRead(connection: Connection): Promise<void> {
    const paced = {
      outlet: connection.outlet,
      get closed() {
        return connection.closed;
      },
      slow: false,
    };
    const { recovery } = this.#options.hub.pace;
    if (!isLagging(paced, recovery)) return;
    await waitForPace([paced], this.#options.clock, recovery, historyPollMs);
    if (paced.slow) connection.outlet.terminate();
  }
}
