// One connection for all tabs of a browser. One tab leads: it holds a lock, has the connection, and passes frames on; the
// others follow it over a BroadcastChannel. When the leader is closed or crashes the lock falls to another tab, which
// connects and asks for the channels of all at the oldest position of any, so nothing is lost in the change.
//
// A link of a tab leads to the leader, be it in this tab or in another one. To the rest of the client it looks like any
// other link. A leader that does not answer, because its tab is frozen, loses the lock to who asked.

import type { Clock } from './clock.ts';
import type { LinkContext } from './connection-types.ts';
import type { Connection } from './connection.ts';
import type { SobranieError } from './errors.ts';
import type { Link, TransportName } from './link.ts';
import type { LocksLike } from './platform.ts';
import type { Command, ServerFrame } from './protocol.ts';
import { SharedChannel } from './shared-channel.ts';

/** What goes over the BroadcastChannel. `to` and `from` are tabs. */
type Note =
  | { readonly type: 'leader' }
  | { readonly type: 'hello' | 'bye' | 'renew'; readonly from: string }
  | { readonly type: 'command'; readonly from: string; readonly command: Command }
  | { readonly type: 'seen' | 'paused'; readonly to: string }
  | { readonly type: 'end'; readonly to: string; readonly reason: string }
  | { readonly type: 'frame'; readonly to: string; readonly frame: ServerFrame };

/** Seconds; a leader that is silent for twice as long is left. */
const heartbeat = 10;
const answerMs = 2_000;
/** After a change of leaders tabs say what they want, and where they are, before the server is asked. */
const gatherMs = 150;

export class Share {
  readonly #name: string;
  readonly #tab: string;
  readonly #locks: LocksLike;
  readonly #clock: Clock;
  readonly #connect: () => Connection;
  readonly #radio: BroadcastChannel;
  #leadership: Leadership | undefined;
  #link: SharedLink | undefined;
  #resign: (() => void) | undefined;
  #leave: (() => void) | undefined;
  readonly #isHere: Promise<void>;
  #isClosed = false;
  /** Locks are refused here, as in a sandboxed frame: this tab has a connection of its own, and speaks to no other. */
  #isAlone = false;

  /** `connect` makes the one connection, should this tab lead. */
  constructor(name: string, locks: LocksLike, clock: Clock, connect: () => Connection) {
    this.#name = name;
    this.#locks = locks;
    this.#clock = clock;
    this.#connect = connect;
    this.#tab = clock.random(1).toString(36).slice(2);
    this.#radio = new BroadcastChannel(name);
    this.#radio.onmessage = ({ data }) => this.#isAlone || this.#hear(data as Note);
    // Whoever leads learns by this lock that the tab is gone, and must not get it before the tab has it.
    this.#isHere = new Promise((here) => {
      const hold = (): Promise<void> => {
        here();
        return new Promise<void>((resolve) => (this.#leave = resolve));
      };
      locks.request(`${name} ${this.#tab}`, {}, hold).catch(here);
    });
    void this.#stand({});
  }

  open(context: LinkContext): Link {
    const clock = this.#clock;
    const link = new SharedLink(clock, context, (command) => this.#say({ type: 'command', from: this.#tab, command }));
    this.#link = link;
    void this.#isHere.then(() => this.#say({ type: 'hello', from: this.#tab }));
    clock.after(answerMs, () => {
      if (this.#link === link && !link.isSeen && !this.#isClosed) void this.#stand({ steal: true });
    });
    link.onClose = () => {
      if (this.#link !== link) return;
      this.#link = undefined;
      this.#say({ type: 'bye', from: this.#tab });
    };
    return link;
  }

  /** The connection of all gets a fresh token: who is logged in is so in every tab. */
  renew(): void {
    this.#say({ type: 'renew', from: this.#tab });
  }

  close(): void {
    this.#isClosed = true;
    this.#resign?.();
    this.#leave?.();
    this.#radio.close();
  }

  /** Waits for the lock, or takes it. Who has it leads until the tab is closed or the lock is taken away. */
  async #stand(options: { readonly steal?: true }): Promise<void> {
    try {
      await this.#locks.request(this.#name, options, () => this.#lead());
    } catch (error) {
      // Somebody else took it: this tab was thought to be frozen.
      const isTaken = (error as Error).name === 'AbortError';
      this.#isAlone ||= !isTaken;
      if (isTaken && !this.#isClosed) void this.#stand({});
      else await this.#lead();
    }
    this.#leadership?.close();
    this.#leadership = undefined;
  }

  #lead(): Promise<void> | undefined {
    if (this.#isClosed) return undefined;
    this.#leadership = new Leadership(
      this.#connect(),
      this.#clock,
      (note) => this.#say(note),
      (tab, gone) => {
        if (!this.#isAlone) void this.#locks.request(`${this.#name} ${tab}`, {}, gone);
      },
    );
    this.#say({ type: 'leader' });
    return new Promise<void>((resolve) => (this.#resign = resolve));
  }

  /** To everyone, this tab included. */
  #say(note: Note): void {
    if (!this.#isClosed && !this.#isAlone) this.#radio.postMessage(note);
    // In its turn, as the others hear it.
    queueMicrotask(() => this.#hear(note));
  }

  #hear(note: Note): void {
    if ('to' in note) {
      if (note.to === this.#tab) this.#link?.hear(note);
    } else if (note.type !== 'leader') this.#leadership?.hear(note);
    else if (this.#link?.isSeen === true) this.#link.end({ code: 1000, reason: 'another tab leads', again: true });
    else if (this.#link !== undefined) void this.#isHere.then(() => this.#say({ type: 'hello', from: this.#tab }));
  }
}

/** What the leading tab does for all. */
class Leadership {
  readonly #say: (note: Note) => void;
  readonly #untilGone: (tab: string, gone: () => void) => void;
  readonly #connection: Connection;
  readonly #tabs = new Set<string>();
  readonly #known = new Set<string>();
  #isGathering = true;
  #isClosed = false;

  constructor(
    connection: Connection,
    clock: Clock,
    say: (note: Note) => void,
    untilGone: (tab: string, gone: () => void) => void,
  ) {
    this.#say = say;
    this.#untilGone = untilGone;
    this.#connection = connection;
    connection.on('status', ({ state, error }) => {
      if (this.#isClosed) return;
      for (const to of this.#tabs) {
        if (state === 'connected') this.#welcome(to);
        else if (state !== 'closed') this.#say({ type: 'paused', to });
        else this.#say({ type: 'end', to, reason: error?.code ?? '' });
      }
    });
    connection.on('message', (frame) => {
      for (const to of this.#tabs) this.#say({ type: 'frame', to, frame });
    });
    clock.after(gatherMs, () => {
      this.#isGathering = false;
      if (this.#tabs.size > 0) this.#connection.connect();
    });
  }

  hear(note: Extract<Note, { from: string }>): void {
    const { from } = note;
    if (note.type === 'command') return this.#obey(from, note.command);
    if (note.type === 'bye') return this.#forget(from);
    if (note.type === 'renew') return this.#connection.reconnect();
    this.#tabs.add(from);
    this.#say({ type: 'seen', to: from });
    if (!this.#known.has(from)) this.#untilGone(from, () => this.#forget(from));
    this.#known.add(from);
    const { state } = this.#connection.status;
    if (state === 'connected') this.#welcome(from);
    // What every tab wants has to be known before the server is asked.
    else this.#say({ type: 'paused', to: from });
    if (!this.#isGathering && state !== 'connected') this.#connection.connect();
  }

  close(): void {
    this.#isClosed = true;
    this.#connection.close();
  }

  #welcome(to: string): void {
    const { connection = '', user = null, transport } = this.#connection.status;
    this.#say({ type: 'frame', to, frame: { type: 'welcome', connection, user, node: '', heartbeat, transport } });
  }

  #forget(tab: string): void {
    this.#tabs.delete(tab);
    for (const channel of this.#connection.channels.values()) this.#leave(tab, channel as SharedChannel);
    if (this.#tabs.size === 0) this.#connection.close();
  }

  #leave(tab: string, channel: SharedChannel): void {
    channel.unsubscribe(tab);
    if (channel.isUsed) return;
    this.#connection.channels.delete(channel.name);
    this.#connection.leave(channel.name);
  }

  #obey(tab: string, command: Command): void {
    const { channels } = this.#connection;
    const tell = (to: string, frame: ServerFrame): void => this.#say({ type: 'frame', to, frame });
    if (command.type === 'ping') return tell(tab, { type: 'pong' });
    if (command.type === 'subscribe') {
      for (const entry of command.channels) {
        const known = channels.get(entry.channel) as SharedChannel | undefined;
        const channel = known ?? new SharedChannel(entry.channel, tell);
        channels.set(entry.channel, channel);
        if (channel.subscribe(tab, entry) && !this.#isGathering) this.#connection.join(channel);
      }
      return;
    }
    if (command.type === 'unsubscribe') {
      const channel = channels.get(command.channel) as SharedChannel | undefined;
      if (channel) this.#leave(tab, channel);
      return tell(tab, { ...command, type: 'unsubscribed' });
    }
    const { id } = command;
    this.#connection.request(command).then(
      (answer) => tell(tab, { ...answer, id } as ServerFrame),
      (error: unknown) => {
        const { code, message } = error as SobranieError;
        tell(tab, {
          type: 'error',
          ...(id !== undefined && { id }),
          code: code as 'internal',
          message,
          retryable: false,
        });
      },
    );
  }
}

class SharedLink implements Link {
  readonly transport: TransportName = 'websocket';
  /** The leader has answered. */
  isSeen = false;
  onClose: () => void = () => undefined;
  readonly end: LinkContext['onEnd'];
  readonly #clock: Clock;
  readonly #context: LinkContext;
  readonly #say: (command: Command) => void;
  #heardAt: number;
  #isClosed = false;

  constructor(clock: Clock, context: LinkContext, say: (command: Command) => void) {
    this.#clock = clock;
    this.#context = context;
    this.#say = say;
    this.#heardAt = clock.now();
    this.end = context.onEnd;
  }

  hear(note: Extract<Note, { to: string }>): void {
    if (this.#isClosed) return;
    this.#heardAt = this.#clock.now();
    if (note.type === 'frame') return this.#context.onFrame(note.frame);
    if (note.type === 'paused') return this.#context.onPause();
    if (note.type === 'end') return this.#context.onEnd({ code: 1008, reason: note.reason });
    if (this.isSeen) return;
    this.isSeen = true;
    this.#context.onReady();
  }

  send(command: Command): void {
    this.#say(command);
  }

  silence(): number {
    return this.#clock.now() - this.#heardAt;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.onClose();
  }
}
