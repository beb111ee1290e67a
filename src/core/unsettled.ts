// What was fanned out in each channel since the sockets of its members were last looked at. A channel that was given much
// is looked at by itself. One connection may be in many channels that were given a little each: once all of them together
// were given much, all are looked at.

export interface UnsettledLimits {
  /** The sockets of a channel are looked at once each was given more than this in it... */
  readonly channelBytes: number;
  /** ...and those of all channels once so much was given in all of them. */
  readonly totalBytes: number;
}

export class Unsettled<Channel> {
  readonly #limits: UnsettledLimits;
  readonly #bytes = new Map<Channel, number>();
  readonly #due = new Set<Channel>();
  #total = 0;

  constructor(limits: UnsettledLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#bytes.size;
  }

  /** Each member of the channel was given so many bytes. */
  add(channel: Channel, bytes: number): void {
    const sum = (this.#bytes.get(channel) ?? 0) + bytes;
    this.#bytes.set(channel, sum);
    this.#total += bytes;
    if (sum > this.#limits.channelBytes) this.#due.add(channel);
  }

  /** Nobody is in the channel any more. */
  delete(channel: Channel): void {
    this.#total -= this.#bytes.get(channel) ?? 0;
    this.#bytes.delete(channel);
    this.#due.delete(channel);
  }

  /** Those whose sockets are to be looked at now, from which on they are counted anew. */
  take(): readonly Channel[] {
    const all = this.#total > this.#limits.totalBytes;
    if (!all && this.#due.size === 0) return [];
    const taken = [...(all ? this.#bytes.keys() : this.#due)];
    for (const channel of taken) this.delete(channel);
    return taken;
  }
}
