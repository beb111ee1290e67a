// One connection as the hub sees it: who it is, what it is subscribed to, and its commands, one at a time in order.

import { closeCodes } from '../protocol/codes.ts';
import { commandTypes, decodeCommand, isRefused, type Command, type RefusedCommand } from '../protocol/commands.ts';
import {
  encodeFrame,
  historyFrame,
  publishedFrame,
  type CommandId,
  type ErrorFrame,
  type WelcomeFrame,
} from '../protocol/frames.ts';
import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Identity } from './access.ts';
import type { Hub } from './hub.ts';
import type { Outlet } from './outlet.ts';
import { Subscription } from './subscription.ts';

/** What a connection has under way. */
interface Work {
  /** Frames that wait for a command. */
  readonly queue: string[];
  /** A command runs that the following ones wait for. */
  busy: boolean;
  /** Publications on their way to the log. */
  publishing: number;
}

/** Commands that wait behind a slow one before reading from the peer is paused. */
const queuePauseAt = 32;
/** Publications of one connection on their way at once. */
const publishingMax = 256;
/** A peer that goes on in spite of the pause sends what was already on its way; more than this is abuse. */
const queueMax = 10_000;

export class Session {
  readonly id: string;
  identity: Identity;
  readonly outlet: Outlet;
  readonly #hub: Hub;
  /** The only one as it is, several in a map: idle connections with one subscription are the most frequent by far. */
  #subscriptions: Subscription | Map<string, Subscription> | undefined;
  closed = false;
  /** Too slow to be waited for; its own buffer limit decides its fate. */
  slow = false;
  /** Set while a command has not been answered: an idle connection pays nothing for it. */
  #work: Work | undefined;

  constructor(id: string, identity: Identity, outlet: Outlet, hub: Hub) {
    this.id = id;
    this.identity = identity;
    this.outlet = outlet;
    this.#hub = hub;
  }

  subscription(channel: string): Subscription | undefined {
    const held = this.#subscriptions;
    if (held instanceof Subscription) return held.channel.name === channel ? held : undefined;
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

  /** Called by the hub alone, which counts; the channel has none yet. */
  addSubscription(subscription: Subscription): void {
    const held = this.#subscriptions;
    if (held === undefined) this.#subscriptions = subscription;
    else if (!(held instanceof Subscription)) held.set(subscription.channel.name, subscription);
    else this.#subscriptions = new Map([held, subscription].map((each) => [each.channel.name, each]));
  }

  /** Called by the hub alone. */
  removeSubscription(subscription: Subscription): void {
    const held = this.#subscriptions;
    if (held === subscription) this.#subscriptions = undefined;
    else if (held instanceof Map && held.delete(subscription.channel.name) && held.size === 0) {
      this.#subscriptions = undefined;
    }
  }

  welcome(): WelcomeFrame {
    const { nodeId, heartbeatSeconds } = this.#hub.options;
    return {
      type: 'welcome',
      connection: this.id,
      user: this.identity.user,
      node: nodeId,
      heartbeat: heartbeatSeconds,
    };
  }

  /** A text frame from the peer. Never throws. */
  receive(text: string): void {
    if (this.closed) return;
    const work = this.#work;
    if (work?.busy !== true) {
      this.#start(text);
      return;
    }
    work.queue.push(text);
    if (work.queue.length === queuePauseAt) this.outlet.pause();
    if (work.queue.length > queueMax) this.outlet.disconnect(closeCodes.policyViolation, 'rate_limited');
  }

  /** Commands that answer at once run at once; only one that waits makes the next ones wait. */
  #start(text: string): void {
    const command = decodeCommand(text);
    const isPublish = !isRefused(command) && command.type === 'publish';
    if (this.#work !== undefined && this.#work.publishing > 0 && !isPublish) {
      // It must find what was published before it, and be answered after it.
      this.#work.busy = true;
      this.#work.queue.unshift(text);
      return;
    }
    const running = isRefused(command) ? this.#refuse(command) : this.#execute(command);
    if (running === undefined) return;
    const work = (this.#work ??= { queue: [], busy: false, publishing: 0 });
    if (isPublish) {
      // Handed over in order, they are numbered in order: waiting for each answer would only make each commit small.
      work.busy = ++work.publishing >= publishingMax;
      void running.then(() => this.#published(work));
    } else {
      work.busy = true;
      void running.then(() => this.#next(work));
    }
  }

  #published(work: Work): void {
    work.publishing--;
    if (work.publishing === 0 || (work.busy && work.publishing === publishingMax - 1)) this.#next(work);
  }

  #next(work: Work): void {
    const waited = work.queue.length > 0;
    work.busy = false;
    while (!this.closed && !work.busy) {
      const text = work.queue.shift();
      if (text === undefined) break;
      this.#start(text);
    }
    if (waited && work.queue.length === 0) this.outlet.resume();
    if (!work.busy && work.publishing === 0) this.#work = undefined;
  }

  #refuse({ error, id, channel }: RefusedCommand): undefined {
    this.#hub.observer.received('invalid');
    this.fail(error, id, channel);
  }

  /** Resolves always: a failure becomes an error reply. */
  #execute(command: Command): Promise<void> | undefined {
    this.#hub.observer.received(command.type);
    try {
      const running = this.#run(command);
      return running?.catch((error: unknown) => this.#failCommand(error, command));
    } catch (error) {
      this.#failCommand(error, command);
      return undefined;
    }
  }

  #failCommand(error: unknown, command: Command): void {
    this.fail(error, command.id, 'channel' in command ? command.channel : undefined);
  }

  #run(command: Command): Promise<void> | undefined {
    switch (command.type) {
      case 'ping':
        this.outlet.send('pong', encodeFrame({ type: 'pong', ...withId(command.id) }));
        return undefined;
      case 'publish':
        return this.#publish(command);
      case 'subscribe':
        return this.#subscribe(command);
      case 'unsubscribe':
        return this.#unsubscribe(command);
      case 'history':
        return this.#history(command);
      case 'refresh':
        return this.#refresh(command);
      case 'presence':
        throw new RealtimeError('bad_request', `This server does not offer "${command.type}".`);
    }
  }

  #publish(command: Command & { type: 'publish' }): Promise<void> | undefined {
    const { id, channel, data, echo, key } = command;
    const allowed = this.#hub.access.may(this.identity, 'publish', channel);
    if (allowed === false) throw new RealtimeError('forbidden');
    const publish = () =>
      this.#hub.publish({
        channel,
        data,
        key,
        from: { user: this.identity.user, connection: this.id },
        except: echo ? undefined : this.id,
        source: 'client',
      });
    const reply = (position: Position | undefined) =>
      this.outlet.send('published', publishedFrame(id, channel, position));
    if (allowed !== true) {
      return allowed.then(async (yes) => {
        if (!yes) throw new RealtimeError('forbidden');
        reply(await publish());
      });
    }
    const position = publish();
    if (position instanceof Promise) return position.then(reply);
    reply(position);
    return undefined;
  }

  async #subscribe(command: Command & { type: 'subscribe' }): Promise<void> {
    const { id, channel, since } = command;
    await this.#hub.subscribe(this, [{ channel, resume: since && (() => since) }], id);
  }

  #unsubscribe({ id, channel }: Command & { type: 'unsubscribe' }): undefined {
    if (this.subscription(channel) === undefined) throw new RealtimeError('not_subscribed');
    this.#hub.unsubscribe(this, channel);
    this.outlet.send('unsubscribed', encodeFrame({ type: 'unsubscribed', ...withId(id), channel }));
    return undefined;
  }

  /** A fresh token for the same user extends the connection; what it grants no more is left. */
  async #refresh({ id, token }: Command & { type: 'refresh' }): Promise<void> {
    const identity = await this.#hub.authenticate(token);
    if (identity.user !== this.identity.user) throw new RealtimeError('unauthorized', 'The token is another user’s.');
    this.identity = identity;
    const { expiresAt } = identity;
    const expires = expiresAt === undefined ? {} : { expires: expiresAt };
    this.outlet.send('refreshed', encodeFrame({ type: 'refreshed', ...withId(id), ...expires }));
    for (const { channel } of this.subscriptions) {
      if (await this.#hub.access.may(identity, 'subscribe', channel.name)) continue;
      this.#hub.unsubscribe(this, channel.name);
      const frame = { type: 'unsubscribed', channel: channel.name, reason: 'forbidden' } as const;
      this.outlet.send('unsubscribed', encodeFrame(frame));
    }
  }

  /** Closes the connection once its token has ended. */
  expire(nowSeconds: number): void {
    const { expiresAt } = this.identity;
    if (expiresAt !== undefined && nowSeconds >= expiresAt) {
      this.outlet.disconnect(closeCodes.policyViolation, 'token_expired');
    }
  }

  async #history({ id, channel, since, limit }: Command & { type: 'history' }): Promise<void> {
    if (!(await this.#hub.access.may(this.identity, 'history', channel))) throw new RealtimeError('forbidden');
    const page = await this.#hub.history(channel, { since, limit });
    const messages = page.publications.map((publication) => publication.frame);
    this.outlet.send('history', historyFrame(id, channel, page.head, messages, page.complete));
  }

  /** Replies with an error; what was not expected is logged and told as `internal`. */
  fail(error: unknown, id?: CommandId, channel?: string): void {
    const expected = this.#hub.expected(error);
    const frame: ErrorFrame = {
      type: 'error',
      ...withId(id),
      ...(channel === undefined ? {} : { channel }),
      ...expected.body(),
    };
    this.outlet.send('error', encodeFrame(frame));
  }

  /** The connection is gone: everything of it leaves the hub. Idempotent. */
  end(code: number): void {
    if (this.closed) return;
    this.closed = true;
    this.#work = undefined;
    this.#hub.leave(this, code);
  }
}

function withId(id: CommandId | undefined): { id?: CommandId } {
  return id === undefined ? {} : { id };
}

/** The labels under which commands are counted; anything else counts as `invalid`. */
export const receivedTypes: readonly string[] = [...commandTypes, 'invalid'];
