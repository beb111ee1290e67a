// Turns channel names into label values: the namespace, for the first few hundred namespaces seen. A label lives as
// long as the process, so clients that make up namespaces must not create time series without end.

import { namespaceOf } from '../protocol/channel.ts';

export const namespacesMax = 200;
export const otherNamespace = 'other';

export class NamespaceLabels {
  readonly #known = new Set<string>();

  of(channel: string): string {
    const namespace = namespaceOf(channel);
    if (this.#known.has(namespace)) return namespace;
    if (this.#known.size >= namespacesMax) return otherNamespace;
    this.#known.add(namespace);
    return namespace;
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
