// What an engine is: the layer that carries publications between nodes, and the stores of what else nodes share. Each
// is a folder beside this file, whose `engine.ts` opens it, and a row in `src/app/engines.ts`, which names it and its
// settings. Nothing else knows an engine by name.

import type { TicketStore } from '../auth/ticket-store.ts';
import type { Destination, DestinationPorts } from '../changes/destination.ts';
import type { LayerName } from '../changes/layer-name.ts';
import type { SyncObserver } from '../core/observer.ts';
import type { SyncAdapter } from '../core/sync-adapter.ts';
import type { Database } from '../database/connect.ts';
import type { LimitStore } from '../limits/store.ts';
import type { PresenceStore } from '../presence/store.ts';
import type { Clock } from '../time/clock.ts';

/** What every engine may use of the node. */
export interface EngineParts {
  /** Names this life of this process, as no other: the layer tells its own messages from those of other nodes by it. */
  readonly incarnation: string;
  readonly database: {
    /** A pool; may lead through a pooler. */
    readonly sql: Database;
    /** As `sql`: for a pool of the engine's own. */
    readonly url: string;
    /** For sessions of their own: LISTEN and locks. */
    readonly directUrl: string;
    /** Of the connections of this process, its relay's among them. */
    readonly applicationName: string;
  };
  readonly observer: SyncObserver;
  readonly clock: Clock;
  readonly log: EngineLog;
  /** Where it leaves what it opens beside the adapter, to be closed with the node. */
  readonly closing: { add(what: string, close: () => void | Promise<void>): void };
}

export interface EngineLog {
  error(details: { readonly err: unknown }, message: string): void;
  warn(details: { readonly err: unknown }, message: string): void;
  debug(details: { readonly err: unknown }, message: string): void;
}

/** An engine that is open. */
export interface OpenEngine {
  /** The node starts it and closes it. */
  readonly adapter: SyncAdapter;
  readonly tickets: TicketStore;
  /** Undefined for an engine of a single process, which has nobody to count together with. */
  readonly limits: LimitStore | undefined;
  /** Who is in which channel. The node starts it after the adapter, and closes it before. */
  readonly presence: PresenceStore;
  /** Where the relay of this node takes its batches. Called at most once, after the adapter was started. */
  readonly destination: (ports: DestinationPorts) => Destination;
  /** Default: the adapter's name. */
  readonly layer?: LayerName;
  /**
   * The log of the node's database has this generation; called at the start, and with each later one. What was carried
   * from an earlier one cannot be vouched for: everybody who holds a position has to get a gap. What it answers resolves
   * when that is so on this node; no change is relayed before.
   */
  readonly follow?: (generation: number) => void | Promise<void>;
}
