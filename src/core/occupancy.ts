// What the core says of who is there, for hooks: which channels have subscribers on this node, and which users have
// connections. No call may throw.

export interface Occupancy {
  /** The channel has its first subscriber here, or lost its last one. */
  channel(name: string, isOccupied: boolean): void;
  /** A connection of the user came or went. */
  user(user: string, isComing: boolean): void;
}

/** Nobody wants to know. */
export const unobserved: Occupancy = {
  channel: () => undefined,
  user: () => undefined,
};
