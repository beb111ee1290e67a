// Which envelopes of each sender were heard: one that comes by two ways is taken once, whichever way is the faster.
//
// A sender numbers its envelopes from 1. One that travels by a single way may be overtaken by later ones that travel by
// both: as nodes change to another bus, and as a bus comes back. It is late then, and new all the same.

/** Senders whose numbers are known. A node that ended is forgotten with the oldest ones. */
const sendersMax = 1_000;
/** Of one sender, numbers below the highest that may still come. */
const missingMax = 1_000;

interface Heard {
  highest: number;
  /** Below the highest and not heard, the lowest first. Undefined as long as there is none. */
  missing: Set<number> | undefined;
}

export class HeardNumbers {
  readonly #senders = new Map<string, Heard>();

  /** Whether this envelope was not heard before. It is from then on. */
  isNew(sender: string, number: number): boolean {
    const heard = this.#senders.get(sender) ?? { highest: 0, missing: undefined };
    if (number <= heard.highest) return heard.missing?.delete(number) === true;
    this.#miss(heard, number);
    heard.highest = number;
    // The one that sent last stands last.
    this.#senders.delete(sender);
    this.#senders.set(sender, heard);
    const oldest = this.#senders.keys().next().value;
    if (this.#senders.size > sendersMax && oldest !== undefined) this.#senders.delete(oldest);
    return true;
  }

  /** Those between the highest one and this. */
  #miss(heard: Heard, number: number): void {
    const first = Math.max(heard.highest + 1, number - missingMax);
    for (let each = first; each < number; each++) (heard.missing ??= new Set()).add(each);
    for (const lowest of heard.missing ?? []) {
      if (lowest >= number - missingMax) break;
      heard.missing?.delete(lowest);
    }
  }
}
