// The memory that pages may cost which were read for subscribers and wait for their sockets. A page that does not fit is
// dropped, and what is left of it is read again when there is room in the socket: mostly from this node's memory.

import type { Publication } from './publication.ts';

export class PageBudget {
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether so many bytes may wait; if so, they are given back with `give`. */
  take(bytes: number): boolean {
    if (this.#bytes + bytes > this.#bytesMax) return false;
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
