// One connection's commands: the queue in which they run one at a time, in order. What they do stands in `commands.ts`
// and `subscribing.ts`.

import { closeCodes } from '../protocol/codes.ts';
import {
  decodeCommand,
  isRefused,
  type Command,
  type RefusedCommand,
  type SubscribeCommand,
} from '../protocol/commands.ts';
import { encodeFrame, type WelcomeFrame } from '../protocol/frames.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Identity } from './access.ts';
import type { Commands } from './commands.ts';
import { Connection } from './connection.ts';
import type { Failures } from './failures.ts';
import { refusalError, type CommandKind, type Limits, type Refusal } from './limits.ts';
import { whenKnown, type MaybePromise } from './maybe-promise.ts';
import type { HubObserver } from './observer.ts';
import type { Outlet } from './outlet.ts';
import type { Subscribing } from './subscribing.ts';

/** What all sessions of a node share. */
export interface SessionPorts {
  readonly nodeId: string;
  readonly heartbeatSeconds: number;
  readonly commands: Commands;
  readonly subscribing: Subscribing;
  readonly limits: Limits;
  readonly observer: HubObserver;
  readonly failures: Failures;
  /** Called once by each session, as it ends. `reason` is empty where nobody gave one. */
  ended(session: Session, code: number, reason: string): void;
}

/** A frame as it came, or what was read from one. Only one that was admitted is not counted again. */
type Entry = string | { readonly command: Command | RefusedCommand; readonly admitted: boolean };

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
/** A peer that goes on in spite of the pause sends what was already on its way; more than this is abuse. */
const queueMax = 10_000;

export class Session extends Connection {
  readonly #ports: SessionPorts;
  /** When it connected, in Unix milliseconds. */
  readonly since: number;
  /** Set while a command has not been answered: an idle connection pays nothing for it. */
  #work: Work | undefined;

  constructor(id: string, identity: Identity, outlet: Outlet, since: number, ports: SessionPorts) {
    super(id, identity, outlet);
    this.since = since;
    this.#ports = ports;
  }

  welcome(): WelcomeFrame {
    const { nodeId, heartbeatSeconds } = this.#ports;
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
    this.countCommand();
    this.#take(text);
  }

  /** A command that the connection came with. Never throws. */
  begin(command: Command): void {
    this.#take({ command, admitted: false });
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
    this.#ports.observer.rateLimited('queue');
    this.outlet.disconnect(closeCodes.policyViolation, 'rate_limited');
  }

  /** Commands that answer at once run at once; only one that waits makes the next ones wait. */
  #start(entry: Entry): void {
    const { command: read, admitted } =
      typeof entry === 'string' ? { command: decodeCommand(entry), admitted: false } : entry;
    const command = admitted ? read : this.#admit(read);
    if (!(command instanceof Promise)) {
      this.#startCommand(command);
      return;
    }
    const work = this.#working();
    work.busy = true;
    void command.then((known) => {
      if (this.closed) return;
      work.queue.unshift({ command: known, admitted: true });
      this.#next(work);
    });
  }

  /** Counts the command, and answers what of it may run. */
  #admit(command: Command | RefusedCommand): MaybePromise<Command | RefusedCommand> {
    const { limits } = this.#ports;
    if (!isRefused(command) && command.type === 'subscribe') {
      return whenKnown(limits.subscribe(this, command.channels.length), ({ count, refusal }) =>
        refusal === undefined ? command : this.#admitSome(command, count, refusal),
      );
    }
    return whenKnown(limits.command(this, 1, kindOf(command)), (refusal) => {
      if (refusal === undefined) return command;
      this.#noteRefusal(refusal);
      const { id } = command;
      const channel = 'channel' in command ? command.channel : undefined;
      const refused = { error: refusalError(refusal), id, channel };
      return isRefused(command) ? refused : { ...refused, type: command.type };
    });
  }

  /** The first ones of many channels may be let in when the others are not. */
  #admitSome(command: SubscribeCommand, count: number, refusal: Refusal): SubscribeCommand {
    this.#noteRefusal(refusal);
    const error = refusalError(refusal);
    const channels = command.channels.map((each, index) =>
      index < count || isRefused(each) ? each : { error, id: command.id, channel: each.channel },
    );
    return { ...command, channels };
  }

  #noteRefusal(refusal: Refusal): void {
    this.#ports.observer.rateLimited(refusal.kind);
    if (refusal.isAbuse) this.outlet.disconnect(closeCodes.policyViolation, 'rate_limited');
  }

  #startCommand(command: Command | RefusedCommand): void {
    const isPublish = !isRefused(command) && command.type === 'publish';
    if (this.#work !== undefined && this.#work.publishing > 0 && !isPublish) {
      // It must find what was published before it, and be answered after it.
      this.#work.busy = true;
      this.#work.queue.unshift({ command, admitted: true });
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

  #refuse({ error, id, channel, type }: RefusedCommand): undefined {
    this.#ports.observer.received(type ?? 'invalid');
    this.#ports.failures.reply(this.outlet, error, id, channel);
  }

  /** Resolves always: a failure becomes an error reply. */
  #execute(command: Command): Promise<void> | undefined {
    const { commands, subscribing, observer } = this.#ports;
    observer.received(command.type);
    try {
      const running =
        command.type === 'subscribe' ? subscribing.subscribeEach(this, command) : commands.run(this, command);
      return running instanceof Promise ? this.#finished(running, command) : undefined;
    } catch (error) {
      this.#failCommand(error, command);
      return undefined;
    }
  }

  #finished(running: Promise<void>, command: Command): Promise<void> {
    return running.catch((error: unknown) => this.#failCommand(error, command));
  }

  #failCommand(error: unknown, command: Command): void {
    const channel = 'channel' in command ? command.channel : undefined;
    this.#ports.failures.reply(this.outlet, error, command.id, channel);
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
    if (!this.outlet.takesCommands) return;
    const { code, retryable } = new RealtimeError('token_expired');
    const message = 'The token is about to expire: send "refresh" with a fresh one.';
    this.outlet.send('error', encodeFrame({ type: 'error', code, message, retryable, expires }));
  }

  /** The connection is gone: everything of it leaves the hub. Idempotent. */
  end(code: number, reason = ''): void {
    if (this.closed) return;
    this.closed = true;
    if (code === closeCodes.tooBig) this.#ports.observer.rateLimited('frames');
    this.#work = undefined;
    this.#ports.ended(this, code, reason);
  }
}

/** A heartbeat must not use up what a user may say. */
function kindOf(command: Command | RefusedCommand): CommandKind {
  if (isRefused(command)) return 'others';
  return command.type === 'publish' || command.type === 'history' || command.type === 'presence'
    ? 'commands'
    : 'others';
}
