// What a connection is told and tells: its options, its status, its events, and what it needs of a channel.

import type { Clock } from './clock.ts';
import type { SobranieError } from './errors.ts';
import type { Link, LinkOptions, TransportName } from './link.ts';
import type { Message, Position, ServerFrame, SubscribeEntry } from './protocol.ts';

/** What a connection needs of a channel. */
export interface ChannelPort {
  readonly name: string;
  readonly position: Position | undefined;
  /** What to subscribe with; undefined while nobody wants the channel or the server has refused it for good. */
  entry(): SubscribeEntry | undefined;
  receive(frame: ServerFrame): void;
  refused(error: SobranieError): void;
  /** The link is gone. */
  lost(): void;
  /** Whatever the server had refused may be asked for again. */
  reset(): void;
}

/** `waiting` is the pause between two attempts; `closed` lasts until `connect` is called. */
export type ConnectionState = 'idle' | 'connecting' | 'connected' | 'waiting' | 'closed';

/** Replaced by a new object whenever something in it changes. */
export interface ConnectionStatus {
  readonly state: ConnectionState;
  /** What carries the connection, or did last. */
  readonly transport?: TransportName | undefined;
  readonly user?: string | null | undefined;
  /** The server's name for this connection. */
  readonly connection?: string | undefined;
  /** Why the last attempt failed; gone once connected. */
  readonly error?: SobranieError | undefined;
}

export interface ConnectionEvents {
  status: ConnectionStatus;
  /** No WebSocket could be opened, so event streams and HTTP are used. */
  fallback: SobranieError;
  /**
   * Something failed that no promise tells: a token that could not be had, an attempt to connect, a channel that the
   * server refused (the error's `channel` names it), the connection for good.
   */
  error: SobranieError;
  /** A message to this connection alone, in no channel. */
  message: Message;
}

export interface ConnectionOptions {
  readonly token?: (() => Promise<string | null> | string | null) | undefined;
  /** More than one: the first, and the second where the first cannot be opened. */
  readonly transports: readonly TransportName[];
  readonly clock: Clock;
  readonly openLink: (transport: TransportName, context: LinkContext) => Promise<Link>;
  /** Upper bounds of the pauses before the first attempts, in milliseconds; the last one is that of all further ones. */
  readonly backoffMs: readonly number[];
  readonly log: (text: string) => void;
}

/** The part of a link's options that changes from one to the next. */
export type LinkContext = Pick<LinkOptions, 'token' | 'positionOf' | 'onReady' | 'onFrame' | 'onPause' | 'onEnd'>;
