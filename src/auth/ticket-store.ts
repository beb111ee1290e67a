// Where tickets wait to be used: the port, one implementation per sync layer, so that a ticket of one node opens a
// connection on any other.

export interface TicketStore {
  /**
   * Keeps the text under the digest for so many seconds, by the store's own clock. Rejects with a RealtimeError when
   * there is no room, and with the driver's error when the store cannot be reached.
   */
  put(digest: string, text: string, seconds: number): Promise<void>;
  /** Takes the text away: of any number who ask at once, on any node, one gets it. Rejects like `put`. */
  take(digest: string): Promise<string | undefined>;
}
