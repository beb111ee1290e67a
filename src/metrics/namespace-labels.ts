// Turns what clients choose into label values: of a channel its namespace, of a connection's end its close code. Each
// for the first ones seen alone. A label lives as long as the process, so clients that make up names or codes must not
// create time series without end.

import { closeCodes } from '../protocol/codes.ts';
import { namespaceOf } from '../protocol/channel.ts';

export const namespacesMax = 200;
export const otherLabel = 'other';

class FirstLabels {
  readonly #known: Set<string>;
  readonly #max: number;

  /** `max` labels beside the `known` ones. */
  constructor(max: number, known: readonly string[] = []) {
    this.#known = new Set(known);
    this.#max = this.#known.size + max;
  }

  of(label: string): string {
    if (this.#known.has(label)) return label;
    if (this.#known.size >= this.#max) return otherLabel;
    this.#known.add(label);
    return label;
  }
}

export class NamespaceLabels {
  readonly #labels = new FirstLabels(namespacesMax);

  of(channel: string): string {
    return this.#labels.of(namespaceOf(channel));
  }
}

/** Without a code, and without a close frame. */
const silentCodes = [1005, 1006];
/** An application has few codes of its own, and may close with any from 3000 to 4999. */
export const clientCodesMax = 20;

export class CloseCodeLabels {
  readonly #labels = new FirstLabels(clientCodesMax, [...Object.values(closeCodes), ...silentCodes].map(String));

  of(code: number): string {
    return this.#labels.of(String(code));
  }
}

/** Remembers a metric's children by label value: looking one up in prom-client costs more than counting. */
export class Children<Child> {
  readonly #make: (label: string) => Child;
  readonly #children = new Map<string, Child>();

  /** Children of the `known` labels are made at once. */
  constructor(make: (label: string) => Child, known: readonly string[] = []) {
    this.#make = make;
    for (const label of known) this.of(label);
  }

  of(label: string): Child {
    const known = this.#children.get(label);
    if (known !== undefined) return known;
    const child = this.#make(label);
    this.#children.set(label, child);
    return child;
  }
}
