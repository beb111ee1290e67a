// What the hub and the sync layer report while they work, for metrics. Calls sit on the hot path: an implementation
// must be cheap, and must not throw.

import type { ErrorCode, GapReason } from '../protocol/codes.ts';

/** Where a publication came from: a client's command, the HTTP API, a table change, the server itself. */
export type PublicationSource = 'client' | 'api' | 'database' | 'server';
/** How an attempt to connect ended. */
export type ConnectOutcome = 'accepted' | 'refused' | 'limit' | 'shutting_down';
export type RecoveryOutcome = 'recovered' | 'gap';
export type HistorySource = 'kept' | 'log';

export interface HubObserver {
  connection(transport: string, outcome: ConnectOutcome): void;
  disconnection(transport: string, code: number): void;
  /** A command arrived; `type` is one of the known commands or `invalid`. */
  received(type: string): void;
  /** A publication was accepted on this node. */
  published(source: PublicationSource, channel: string): void;
  /** A publication was handed to `count` connections, `seconds` after it was accepted. */
  delivered(channel: string, count: number, seconds: number): void;
  /** Frames of a type were handed to connections, so many in all: about presence, or publications that one recovers. */
  sent(type: string, channel: string, count: number): void;
  /** A publication could not be written to one or more connections. */
  broadcastFailed(): void;
  /** `count` subscribers were told of a gap. */
  lost(reason: GapReason, count: number): void;
  recovery(outcome: RecoveryOutcome): void;
  /** A stretch of a channel was read: from what this node has seen, or from the log. */
  historyRead(source: HistorySource): void;
  error(code: ErrorCode): void;
  /** Something was refused by a limit; `kind` is one of a few fixed words. */
  rateLimited(kind: string): void;
}

export interface SyncObserver {
  up(adapter: string, up: boolean): void;
  message(adapter: string, direction: 'in' | 'out', count: number): void;
  /** Seconds between a publication's acceptance anywhere and its arrival on this node. */
  delay(adapter: string, seconds: number): void;
  reconnected(adapter: string): void;
  failed(adapter: string): void;
}
