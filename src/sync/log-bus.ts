// A bus beside the log: what carries word of the log, and ephemeral publications, from one node to the others. The log
// itself stays where the rows are. A bus may lose what it carries, repeat it, or bring it late: rows that do not follow
// directly on what a node has are read from the log, which every node also looks at from time to time.
//
// Another bus than the database's notifications is an engine of its own, one folder, with nothing but this port.

import type { Clock } from '../time/clock.ts';

/** Which log it is. Nodes of one log hear each other, and nobody else. */
export interface LogName {
  /** The beginning of the names under which the log's nodes notify each other; a secret of the schema's owner. */
  readonly topic: string;
  /** A log that was set back or copied has another one. */
  readonly epoch: string;
}

/**
 * What an adapter asks of a bus.
 *
 * Lifecycle: `start` once, then the calls in any order, then `close` once; nothing is told after it.
 */
export interface LogBus {
  /** What this node sends comes back to it. */
  readonly up: boolean;
  /** Resolves when it listens; rejects when the bus cannot be reached. */
  start(log: LogName): Promise<void>;
  /** The log is this one from now on. Without effect if it is the same. */
  follow(log: LogName): void;
  /**
   * The log has grown by this node: a notice, see `postgres/notice.ts`. Returns at once; a bus that cannot take it drops
   * it. Absent where the database itself notifies at the commit.
   */
  readonly tell?: (notice: string) => void;
  /** Sends an envelope to all other nodes, after those before it. Rejects when it could not. */
  send(envelope: string): Promise<void>;
  /** Resolves when a message sent now came back to this node; rejects after `timeoutMs`. */
  probe(timeoutMs: number): Promise<void>;
  /** Never rejects. */
  close(): Promise<void>;
}

/** What a bus tells the adapter. None of it throws. */
export interface BusEvents {
  /** Listening, for the first time or again: what was sent in between is lost. */
  connected(): void;
  /** It is deaf or gone. */
  lost(error: unknown): void;
  /** Another node, or this one, appended to the log. */
  appended(notice: string): void;
  /** An envelope from another node. */
  envelope(text: string): void;
  /** Another node of the log shows that it lives, as each does every few seconds. */
  peer(node: string): void;
}

/** What every bus that is no part of the database is opened with. */
export interface OwnBusOptions<Target> {
  readonly target: Target;
  /** Names this life of this process, as no other. */
  readonly nodeId: string;
  readonly clock: Clock;
  /** The bus is not there at the start; it is tried again for a while. */
  readonly waiting: (error: unknown) => void;
}

/** A bus that is no part of the database. */
export interface OwnBus {
  /** Of its engine. */
  readonly name: string;
  open(events: BusEvents): LogBus;
}
