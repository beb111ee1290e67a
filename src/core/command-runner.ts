// What each command of a connection does. One runner serves all sessions, which hand it one command at a time.

import type { Command } from '../protocol/commands.ts';
import { encodeFrame, historyFrame, publishedFrame, withId } from '../protocol/frames.ts';
import { keyOf, type Identity } from './access.ts';
import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Hub } from './hub.ts';
import { isLagging, recoveryPaceLimits, waitForPace } from './pace.ts';
import { refusalError } from './limits.ts';
import type { Session } from './session.ts';

type Of<Type extends Command['type']> = Extract<Command, { type: Type }>;

/** Nobody else waits for these, and there may be many. */
const historyPollMs = 50;
/** Characters past which writing a reply takes a noticeable part of a millisecond. */
const largeReply = 128 << 10;

export class CommandRunner {
  readonly #hub: Hub;

  constructor(hub: Hub) {
    this.#hub = hub;
  }

  /** Undefined when it is done already. Throws, or rejects with, what the client is to be told. */
  run(session: Session, command: Command): Promise<void> | undefined {
    switch (command.type) {
      case 'ping':
        session.outlet.send('pong', encodeFrame({ type: 'pong', ...withId(command.id) }));
        return undefined;
      case 'publish':
        return this.#publish(session, command);
      case 'subscribe':
        return this.#subscribe(session, command);
      case 'unsubscribe':
        return this.#unsubscribe(session, command);
      case 'history':
        return this.#history(session, command);
      case 'refresh':
        return this.#refresh(session, command);
      case 'presence':
        throw new RealtimeError('bad_request', `This server does not offer "${command.type}".`);
    }
  }

  #publish(session: Session, command: Of<'publish'>): Promise<void> | undefined {
    const { id, channel, data, echo, key } = command;
    const { identity, outlet } = session;
    const allowed = this.#hub.access.may(identity, 'publish', channel);
    if (allowed === false) throw new RealtimeError('forbidden');
    const publish = () =>
      this.#hub.publish({
        channel,
        data,
        key: keyOf(identity, key),
        from: { user: identity.user, connection: session.id },
        except: echo ? undefined : session.id,
        source: 'client',
      });
    const reply = (position: Position | undefined) => outlet.send('published', publishedFrame(id, channel, position));
    if (allowed !== true) {
      return allowed.then(async (yes) => {
        if (!yes) throw new RealtimeError('forbidden');
        // Whoever was disconnected while this was decided publishes nothing any more.
        if (!session.closed) reply(await publish());
      });
    }
    const position = publish();
    if (position instanceof Promise) return position.then(reply);
    reply(position);
    return undefined;
  }

  async #subscribe(session: Session, { id, channel, since }: Of<'subscribe'>): Promise<void> {
    await this.#hub.subscribe(session, [{ channel, resume: since && (() => since) }], id);
  }

  #unsubscribe(session: Session, { id, channel }: Of<'unsubscribe'>): undefined {
    if (session.subscription(channel) === undefined) throw new RealtimeError('not_subscribed');
    this.#hub.unsubscribe(session, channel);
    session.outlet.send('unsubscribed', encodeFrame({ type: 'unsubscribed', ...withId(id), channel }));
    return undefined;
  }

  /** To guess tokens here is no better than to guess them at the door. */
  async #authenticate(session: Session, token: string): Promise<Identity> {
    const { authenticate, limits, observer } = this.#hub;
    const refusal = limits.refreshing(session);
    if (refusal !== undefined) {
      observer.rateLimited(refusal.kind);
      throw refusalError(refusal);
    }
    try {
      return await authenticate(token);
    } catch (error) {
      if (error instanceof RealtimeError && error.code === 'unauthorized') limits.refreshFailed(session);
      throw error;
    }
  }

  /** A fresh token for the same user extends the connection; what it grants no more is left. */
  async #refresh(session: Session, { id, token }: Of<'refresh'>): Promise<void> {
    const identity = await this.#authenticate(session, token);
    if (identity.user !== session.identity.user) {
      throw new RealtimeError('unauthorized', 'The token is another user’s.');
    }
    session.identity = identity;
    const { expiresAt } = identity;
    const expires = expiresAt === undefined ? {} : { expires: expiresAt };
    session.outlet.send('refreshed', encodeFrame({ type: 'refreshed', ...withId(id), ...expires }));
    await session.reauthorize();
  }

  async #history(session: Session, { id, channel, since, limit }: Of<'history'>): Promise<void> {
    await this.#untilRead(session);
    if (session.closed) return;
    // After the wait, which may be long: the right may have ended in it.
    if (!(await this.#hub.access.may(session.identity, 'history', channel))) throw new RealtimeError('forbidden');
    const page = await this.#hub.history(channel, { since, limit });
    const messages = page.publications.map((publication) => publication.frame);
    const frame = historyFrame(id, channel, page.head, messages, page.complete);
    session.outlet.send('history', frame);
    // Several in one packet would hold everybody up for as long as all of them take to write.
    if (frame.length > largeReply) await this.#hub.clock.sleep(0);
  }

  /** A few bytes ask for a mebibyte: who has not read the reply before is not given the next, and in the end cut off. */
  async #untilRead(session: Session): Promise<void> {
    const paced = {
      outlet: session.outlet,
      get closed() {
        return session.closed;
      },
      slow: false,
    };
    if (!isLagging(paced, recoveryPaceLimits)) return;
    await waitForPace([paced], this.#hub.clock, recoveryPaceLimits, historyPollMs);
    if (paced.slow) session.outlet.terminate();
  }
}
