// The memory that subscribers may cost who recover: what waits in their sockets, and pages that were read for them and wait
// for those. Each of them may have a share in its socket, the less the more there are. A page that does not fit is
// dropped, and what is left of it is read again when there is room in the socket: mostly from this node's memory.

import type { Publication } from './publication.ts';

export interface PageBudgetLimits {
  /** Of pages that wait... */
  readonly bytesMax: number;
  /** ...and of one of them, so many in any case. */
  readonly pageBytesMin: number;
  /** In the sockets of all who recover... */
  readonly socketBytesMax: number;
  /** ...and in one of them: so many at most, and so many in any case. */
  readonly shareBytesMax: number;
  readonly shareBytesMin: number;
}

export class PageBudget {
  readonly #limits: PageBudgetLimits;
  #bytes = 0;
  #recovering = 0;

  constructor(limits: PageBudgetLimits) {
    this.#limits = limits;
  }

  /** A subscriber begins to be sent what it missed; `leave` is called once, when it has it or is gone. */
  enter(): void {
    this.#recovering++;
  }

  leave(): void {
    this.#recovering--;
  }

  get recovering(): number {
    return this.#recovering;
  }

  /** Bytes that may wait in the socket of one of those who recover now. */
  get shareBytes(): number {
    const { socketBytesMax, shareBytesMax, shareBytesMin } = this.#limits;
    return Math.max(shareBytesMin, Math.min(shareBytesMax, socketBytesMax / Math.max(1, this.#recovering)));
  }

  /**
   * Bytes of a page for one of those who recover now: so many that the pages of all of them may wait. Of larger ones most
   * were dropped as soon as a part was sent, and read again for the next part.
   */
  get pageBytes(): number {
    const { bytesMax, pageBytesMin } = this.#limits;
    return Math.max(pageBytesMin, Math.floor(bytesMax / Math.max(1, this.#recovering)));
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether so many bytes may wait; if so, they are given back with `give`. */
  take(bytes: number): boolean {
    if (this.#bytes + bytes > this.#limits.bytesMax) return false;
    this.#bytes += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#bytes -= bytes;
  }
}

export function dataBytes(publications: readonly Publication[]): number {
  return publications.reduce((sum, { data }) => sum + data.length, 0);
}
