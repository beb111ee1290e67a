// The two ports that a transport gives the core: one connection's way out, and the way to all of them at once.

import type { SubscriptionState } from '../protocol/frames.ts';
import type { GapReason } from '../protocol/codes.ts';
import type { Position } from '../protocol/position.ts';
import type { Publication } from './publication.ts';

/** A gap as subscribers are told of it: the channel's position is now `position`. */
export interface Gap {
  readonly channel: string;
  readonly position: Position;
  readonly reason: GapReason;
}

/** A frame for everyone who hears of a channel's presence. */
export interface PresencePush {
  /** The frame's type. */
  readonly type: string;
  /** Made when it is asked for first: often nobody hears. */
  readonly frame: string;
}

/**
 * One connection. All calls are synchronous and keep their order; calls after the connection is gone do nothing and
 * throw nothing.
 */
export interface Outlet {
  /** The transport's name, which is that of its `Fanout` and a label of metrics. */
  readonly transport: string;
  /** Whether the client can send commands, such as `refresh`. */
  readonly takesCommands: boolean;
  /** A frame for this connection alone. `type` is the frame's type. */
  send(type: string, frame: string): void;
  /** Subscriptions of one request begin, in the order asked; `id` repeats the command's. */
  subscribed(states: readonly SubscriptionState[], id: number | string | undefined): void;
  /** Publications of one channel for this connection alone: it recovers, and has not joined the channel yet. */
  deliver(publications: readonly Publication[]): void;
  /** Rows of the channel are about to be sent. Until the last of them the client stands nowhere in it. */
  awaitSnapshot(channel: string): void;
  /** Rows for this connection alone. With the last ones comes where the client stands then. */
  snapshot(channel: string, frame: string, position: Position | undefined): void;
  /** A gap for this connection alone. */
  gap(gap: Gap): void;
  /** From now on the transport's `Fanout` reaches this connection on the channel. */
  join(channel: string): void;
  leave(channel: string): void;
  /** As `leave`, of a channel that it joins again: an event stream keeps its place in it. */
  rest(channel: string): void;
  /** As `join`, for what changes in the channel's presence. Connections are told by shards, a few small numbers. */
  joinPresence(channel: string, shard: number): void;
  hearsPresence(channel: string, shard: number): boolean;
  /** Does nothing to one that is not in the shard. */
  leavePresence(channel: string, shard: number): void;
  /** Bytes that were handed over and not yet taken in by the peer. */
  bufferedBytes(): number;
  /** Stops and resumes reading from the peer, so that commands cannot pile up. */
  pause(): void;
  resume(): void;
  /** Says farewell with a close code and ends. */
  disconnect(code: number, reason: string): void;
  /** Cuts the connection without a farewell, as to a peer that does not read: it may come back and recover. */
  terminate(): void;
}

/** What metrics know of a transport. */
export interface TransportKind {
  /** That of its `Fanout`, and a label of metrics. */
  readonly name: string;
  /** The gauge of its open connections. */
  readonly active: { readonly name: string; readonly help: string };
}

/** All connections of one transport that have joined a channel. Encodes once, however many they are. */
export interface Fanout {
  readonly transport: string;
  /** Answers how many of the connections that joined do not get it: the one that `except` names, if it is among them. */
  publication(publication: Publication): number;
  gap(gap: Gap): void;
  /** To all that joined this shard of the channel's presence, in order. Answers how many these are. */
  presence(channel: string, shard: number, pushes: readonly PresencePush[]): number;
}
