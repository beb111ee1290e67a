// What the process runs, seen by main.ts: a node, one of several workers, or their keeper.

export interface Running {
  /** Call it for every signal of `shutdownSignals`. */
  signal(name: string): void;
  /** Resolves when everything is closed and the process may end. */
  readonly ended: Promise<void>;
}
