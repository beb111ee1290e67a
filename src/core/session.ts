// One connection as the hub sees it: who it is, what it is subscribed to, and the queue of its commands, which run one
// at a time, in order. What a command does is the command runner's affair.

import { closeCodes, type ErrorCode } from '../protocol/codes.ts';
import { commandTypes, decodeCommand, isRefused, type Command, type RefusedCommand } from '../protocol/commands.ts';
import { encodeFrame, withId, type CommandId, type ErrorFrame, type WelcomeFrame } from '../protocol/frames.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Identity } from './access.ts';
import type { Hub } from './hub.ts';
import { refusalError, type Refusal } from './limits.ts';
import type { Outlet } from './outlet.ts';
import { Subscription } from './subscription.ts';

/** A frame as it came, or what was read from one. */
type Entry = string | Command | RefusedCommand;

/** What a connection has under way. */
interface Work {
  /** What waits for a command. */
  readonly queue: Entry[];
  /** A command runs that the following ones wait for. */
  busy: boolean;
  /** Publications on their way to the log. */
  publishing: number;
}

/** Commands that wait behind a slow one before reading from the peer is paused. */
const queuePauseAt = 32;
/** Publications of one connection on their way at once. */
const publishingMax = 256;
/** Channels that are asked about at once, when rights may have ended: what decides is not to be flooded. */
const askedAtOnce = 16;
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
    this.#take(text);
  }

  /** A command that the connection came with; it counts against no limit of commands. Never throws. */
  begin(command: Command | RefusedCommand): void {
    this.#take(command);
  }

  #take(entry: Entry): void {
    if (this.closed) return;
    const work = this.#work;
    if (work?.busy !== true) {
      this.#start(entry);
      return;
    }
    work.queue.push(entry);
    if (work.queue.length === queuePauseAt) this.outlet.pause();
    if (work.queue.length <= queueMax) return;
    this.#hub.observer.rateLimited('queue');
    this.outlet.disconnect(closeCodes.policyViolation, 'rate_limited');
  }

  /** Commands that answer at once run at once; only one that waits makes the next ones wait. */
  #start(entry: Entry): void {
    if (typeof entry !== 'string') {
      this.#startCommand(entry);
      return;
    }
    const verdict = this.#hub.limits.command(this);
    if (!(verdict instanceof Promise)) {
      this.#startCommand(this.#admitted(entry, verdict));
      return;
    }
    const work = this.#working();
    work.busy = true;
    void verdict.then((refusal) => {
      if (this.closed) return;
      work.queue.unshift(this.#admitted(entry, refusal));
      this.#next(work);
    });
  }

  #admitted(text: string, refusal: Refusal | undefined): Command | RefusedCommand {
    const command = decodeCommand(text);
    if (refusal === undefined) return command;
    this.#hub.observer.rateLimited(refusal.kind);
    if (refusal.isAbuse) this.outlet.disconnect(closeCodes.policyViolation, 'rate_limited');
    const { id } = command;
    const channel = 'channel' in command ? command.channel : undefined;
    return { error: refusalError(refusal), id, channel };
  }

  #startCommand(command: Command | RefusedCommand): void {
    const isPublish = !isRefused(command) && command.type === 'publish';
    if (this.#work !== undefined && this.#work.publishing > 0 && !isPublish) {
      // It must find what was published before it, and be answered after it.
      this.#work.busy = true;
      this.#work.queue.unshift(command);
      return;
    }
    const running = isRefused(command) ? this.#refuse(command) : this.#execute(command);
    if (running === undefined) return;
    const work = this.#working();
    if (isPublish) {
      // Handed over in order, they are numbered in order: waiting for each answer would only make each commit small.
      work.busy = ++work.publishing >= publishingMax;
      void running.then(() => this.#published(work));
    } else {
      work.busy = true;
      void running.then(() => this.#next(work));
    }
  }

  #working(): Work {
    return (this.#work ??= { queue: [], busy: false, publishing: 0 });
  }

  #published(work: Work): void {
    work.publishing--;
    if (work.publishing === 0 || (work.busy && work.publishing === publishingMax - 1)) this.#next(work);
  }

  #next(work: Work): void {
    const waited = work.queue.length > 0;
    work.busy = false;
    while (!this.closed && !work.busy) {
      const entry = work.queue.shift();
      if (entry === undefined) break;
      this.#start(entry);
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
      const running = this.#hub.commands.run(this, command);
      return running?.catch((error: unknown) => this.#failCommand(error, command));
    } catch (error) {
      this.#failCommand(error, command);
      return undefined;
    }
  }

  #failCommand(error: unknown, command: Command): void {
    this.fail(error, command.id, 'channel' in command ? command.channel : undefined);
  }

  /** Closes the connection once its token has ended, and says so a while before. */
  expire(nowSeconds: number): void {
    const { expiresAt, warnAt } = this.identity;
    if (expiresAt === undefined) return;
    if (nowSeconds >= expiresAt) this.outlet.disconnect(closeCodes.policyViolation, 'token_expired');
    else if (warnAt !== undefined && nowSeconds >= warnAt) this.#warn(expiresAt);
  }

  #warn(expires: number): void {
    // Told once; an idle connection has no field for it.
    this.identity = { ...this.identity, warnAt: undefined };
    // A stream has no way to refresh, and an event of this name would be taken for a failure of the stream.
    if (this.outlet.transport === 'sse') return;
    const { code, retryable } = new RealtimeError('token_expired');
    const message = 'The token is about to expire: send "refresh" with a fresh one.';
    this.outlet.send('error', encodeFrame({ type: 'error', code, message, retryable, expires }));
  }

  /** Leaves the channels that its rules no longer allow; answers how many. */
  async reauthorize(): Promise<number> {
    let left = 0;
    const held = this.subscriptions;
    for (let start = 0; start < held.length; start += askedAtOnce) {
      const some = held.slice(start, start + askedAtOnce);
      const outcomes = await Promise.all(some.map((subscription) => this.#leaveIfDenied(subscription)));
      left += outcomes.filter(Boolean).length;
    }
    return left;
  }

  async #leaveIfDenied(subscription: Subscription): Promise<boolean> {
    const channel = subscription.channel.name;
    const reason = await this.#denial(channel);
    // One that began meanwhile was asked about as it began.
    if (reason === undefined || this.subscription(channel) !== subscription) return false;
    this.#hub.unsubscribe(this, channel);
    this.outlet.send('unsubscribed', encodeFrame({ type: 'unsubscribed', channel, reason }));
    return true;
  }

  async #denial(channel: string): Promise<ErrorCode | undefined> {
    try {
      return (await this.#hub.access.may(this.identity, 'subscribe', channel)) ? undefined : 'forbidden';
    } catch (error) {
      // Whoever decides cannot be asked: nobody may stay on a guess.
      return this.#hub.expected(error).code;
    }
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
    if (code === closeCodes.tooBig) this.#hub.observer.rateLimited('frames');
    this.#work = undefined;
    this.#hub.leave(this, code);
  }
}

/** The labels under which commands are counted; anything else counts as `invalid`. */
export const receivedTypes: readonly string[] = [...commandTypes, 'invalid'];
