// What a session asks before it runs a command: whether its user may send one more. The port, and the answer of a
// server without limits.

import type { Identity } from './access.ts';
import type { MaybePromise } from './sync-adapter.ts';

export interface Refusal {
  /** Seconds after which one more would be let through. */
  readonly retryAfter: number;
  /** The user goes on in spite of many refusals: the connection is closed. */
  readonly isAbuse: boolean;
}

/** Whose commands are counted together: those of a user, or of one connection that has none. */
export interface Commander {
  readonly id: string;
  readonly identity: Identity;
}

export interface Limits {
  /** Counts one command; undefined lets it run. Synchronous wherever it can be; never throws, never rejects. */
  command(commander: Commander): MaybePromise<Refusal | undefined>;
  /** The session has ended: it counts no more among its user's. */
  left(commander: Commander): void;
  /** Open connections of this node under a key of the limiter's own, which another node asks by. */
  connectionsOf(key: string): number;
}

export const unlimited: Limits = { command: () => undefined, left: () => undefined, connectionsOf: () => 0 };
