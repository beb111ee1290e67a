// Where a limit is counted for all nodes: the port. The engine brings the store, since it is what the nodes share; an
// engine of a single process has none.

export interface Counted {
  /** Spent under the key since its window began, with what was just added. */
  readonly points: number;
  /** Until the window ends. */
  readonly milliseconds: number;
}

export interface LimitStore {
  /**
   * Adds points to what was spent under the key. A window of `windowMs` begins with the first points. Any number of
   * nodes may call at once: each sum is answered to one of them.
   *
   * Time is the store's, not the nodes', whose clocks differ. A window that claims to last longer than windows do was
   * begun by a clock that has been set back since. It begins again, or its user would be locked out for as long.
   *
   * Rejects when the store cannot be reached. Callers wait for half a second and no longer.
   */
  count(key: string, points: number, windowMs: number): Promise<Counted>;
}
