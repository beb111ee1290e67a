// What the process runs, whatever that is: a node, one of several workers, or their keeper.

export interface Running {
  /** SIGTERM or SIGINT has come; may be called again. */
  signal(name: string): void;
  /** Resolves when everything is closed and the process may end. */
  readonly ended: Promise<void>;
}
