// The WebSocket transport: one object per connection that translates between Bun's socket and the hub's session. It
// decides nothing.

import type { ServerWebSocket } from 'bun';
import type { Identity } from '../core/access.ts';
import type { Gap, Outlet, TransportKind } from '../core/outlet.ts';
import type { Publication } from '../core/publication.ts';
import type { Session } from '../core/session.ts';
import type { Sessions } from '../core/sessions.ts';
import { closeCodes, type ErrorCode } from '../protocol/codes.ts';
import { subscribeTo, subscribeUnasked } from '../protocol/commands.ts';
import { encodeFrame, type SubscriptionState } from '../protocol/frames.ts';
import type { RealtimeError } from '../protocol/realtime-error.ts';
import { gapFrame } from './gap-frame.ts';

export interface ConnectionStart {
  readonly sessions: Sessions;
  readonly identity: Identity;
  /** What the client is counted by; undefined while addresses are not limited. */
  readonly address?: string | undefined;
  /** Subscribed at once, in order. */
  readonly channels: readonly string[];
  /** The client reads large frames compressed. */
  readonly deflates?: boolean;
  /** The connection is closed as soon as it has opened: a browser cannot see why an upgrade was refused. */
  readonly refusal?: RealtimeError | undefined;
}

/** The transport's name. */
export const websocket = 'websocket';

export const webSockets: TransportKind = {
  name: websocket,
  active: { name: 'sobranie_ws_connections_active', help: 'Open WebSocket connections' },
};

const tooBigReason = 'Received too big message';

type Socket = ServerWebSocket<WebSocketConnection>;

/** Within a handler the runtime joins by itself what is sent. */
let isHandling = false;

/** Replies that wait for the end of the tick. Not in the connections, most of which never have any. */
const joined = new Map<WebSocketConnection, string[]>();

/**
 * Bun calls its handlers as methods of the socket's `data`, which is this object. There are many and most are idle, so it
 * holds no more than it must.
 */
export class WebSocketConnection implements Outlet {
  #start: ConnectionStart | undefined;
  #socket: Socket | undefined;
  #session: Session | undefined;

  constructor(start: ConnectionStart) {
    this.#start = start;
  }

  get transport(): string {
    return websocket;
  }

  get takesCommands(): boolean {
    return true;
  }

  // Called by Bun

  open(socket: Socket): void {
    this.#socket = socket;
    const start = this.#start;
    this.#start = undefined;
    if (start === undefined) return;
    if (start.refusal !== undefined) {
      refuse(socket, start.refusal);
      return;
    }
    const session = start.sessions.connect(start.identity, this, start.address);
    this.#session = session;
    socket.sendText(encodeFrame(session.welcome()));
    const joined = start.sessions.joined(start.identity);
    if (joined.length > 0) session.begin(subscribeUnasked(joined));
    const named = joined.length === 0 ? start.channels : start.channels.filter((name) => !joined.includes(name));
    if (named.length > 0) session.begin(subscribeTo(named));
  }

  message(socket: Socket, message: string | Buffer): void {
    if (typeof message !== 'string') {
      socket.close(closeCodes.unsupportedData, 'text frames only');
      return;
    }
    isHandling = true;
    try {
      this.#session?.receive(message);
    } finally {
      isHandling = false;
    }
  }

  close(_socket: Socket, code: number, reason: string): void {
    this.#socket = undefined;
    // The runtime tells the peer 1009, and this side that the connection broke.
    this.#session?.end(reason === tooBigReason ? closeCodes.tooBig : code, reason);
    this.#session = undefined;
  }

  // Called by the hub

  send(type: string, frame: string): void {
    if (type === 'published' && !isHandling) {
      this.#join(frame);
      return;
    }
    this.#flush();
    this.#socket?.sendText(frame);
  }

  subscribed(states: readonly SubscriptionState[], id: number | string | undefined): void {
    this.#flush();
    for (const state of states) {
      this.#socket?.sendText(encodeFrame({ type: 'subscribed', ...(id === undefined ? {} : { id }), ...state }));
    }
  }

  deliver(publications: readonly Publication[]): void {
    this.#flush();
    const socket = this.#socket;
    socket?.cork(() => {
      for (const publication of publications) socket.sendText(publication.frame);
    });
  }

  awaitSnapshot(): void {
    // The client itself keeps where it stands.
  }

  snapshot(_channel: string, frame: string): void {
    this.send('snapshot', frame);
  }

  gap(gap: Gap): void {
    this.#flush();
    this.#socket?.sendText(gapFrame(gap));
  }

  join(channel: string): void {
    this.#socket?.subscribe(this.topicOf(channel));
  }

  leave(channel: string): void {
    this.#socket?.unsubscribe(this.topicOf(channel));
  }

  rest(channel: string): void {
    this.leave(channel);
  }

  joinPresence(channel: string, shard: number): void {
    this.#socket?.subscribe(presenceTopic(channel, shard));
  }

  hearsPresence(channel: string, shard: number): boolean {
    return this.#socket?.isSubscribed(presenceTopic(channel, shard)) === true;
  }

  leavePresence(channel: string, shard: number): void {
    this.#socket?.unsubscribe(presenceTopic(channel, shard));
  }

  /** Of the runtime's topics, the one through which this connection gets what is published in the channel. */
  topicOf(channel: string): string {
    return channel;
  }

  hears(channel: string): boolean {
    return this.#socket?.isSubscribed(this.topicOf(channel)) === true;
  }

  /** To all of the topic but this connection. */
  publish(topic: string, data: string | Uint8Array): void {
    this.#socket?.publish(topic, data);
  }

  bufferedBytes(): number {
    return this.#socket?.getBufferedAmount() ?? 0;
  }

  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  disconnect(code: number, reason: string): void {
    this.#flush();
    this.#socket?.close(code, reason);
  }

  terminate(): void {
    this.#socket?.terminate();
  }

  /**
   * The sync layer answers many publications at once: what comes of them goes out in one write. No other frame of this
   * connection overtakes them.
   */
  #join(frame: string): void {
    const replies = joined.get(this);
    if (replies !== undefined) {
      replies.push(frame);
      return;
    }
    joined.set(this, [frame]);
    queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    if (joined.size === 0) return;
    const replies = joined.get(this);
    if (replies === undefined) return;
    joined.delete(this);
    const socket = this.#socket;
    socket?.cork(() => {
      for (const reply of replies) socket.sendText(reply);
    });
  }
}

/** The client learns from the frame which check failed, and from the close code whether to come back. */
function refuse(socket: Socket, refusal: RealtimeError): void {
  socket.sendText(encodeFrame({ type: 'error', ...refusal.body() }));
  socket.close(closeCodeOf(refusal), refusal.code);
}

/** Worth another try, here or elsewhere. */
const laterCodes: readonly ErrorCode[] = ['limit_exceeded', 'rate_limited', 'unavailable'];

function closeCodeOf({ code }: RealtimeError): number {
  if (code === 'shutting_down') return closeCodes.goingAway;
  return laterCodes.includes(code) ? closeCodes.tryAgainLater : closeCodes.policyViolation;
}

/** No channel's name has a blank. */
export function presenceTopic(channel: string, shard: number): string {
  return `${channel} ${shard}`;
}
