// One connection to a server, whatever carries it: a pipe of commands and frames that is opened once and ends once.
// It keeps no positions, retries nothing and judges nothing: that is the connection's part.

import type { Clock } from './clock.ts';
import type { Command, Position, ServerFrame } from './protocol.ts';

/**
 * The id of every `subscribe`: its answers name their channel, so they need no other. A type, for of a value that parts
 * share which are loaded apart, a bundler makes a part of its own.
 */
export type SubscribeId = 's';

export type TransportName = 'websocket' | 'sse';

/** How a link ended, in the terms of WebSocket's close codes whatever carried it. */
export interface LinkEnd {
  readonly code: number;
  readonly reason: string;
  /** Milliseconds that the server asked to wait. */
  readonly retryAfterMs?: number | undefined;
  /** The client ended it itself and need not wait for the next one. */
  readonly again?: boolean;
}

export interface LinkOptions {
  /** The server's address over HTTP, without a slash at its end. */
  readonly url: string;
  readonly token: string | undefined;
  readonly parse: (text: string) => unknown;
  readonly print: (value: unknown) => string;
  readonly clock: Clock;
  /** Where the client stands in a channel: an event stream that is opened again resumes there. */
  readonly positionOf: (channel: string) => Position | undefined;
  /** Commands may be sent from now on. */
  readonly onReady: () => void;
  readonly onFrame: (frame: ServerFrame) => void;
  /** The link stands, and what it leads through does not: it has to say `welcome` again. */
  readonly onPause: () => void;
  /** Called once, and nothing else is called after it. */
  readonly onEnd: (end: LinkEnd) => void;
}

export interface Link {
  readonly transport: TransportName;
  send(command: Command): void;
  /** Milliseconds for which nothing was heard. */
  silence(): number;
  /** Ends it without a further call. */
  close(): void;
}
