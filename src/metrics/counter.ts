// How counters are made, the same for every group of metrics.

import { Counter, type Registry } from 'prom-client';

export function counter<Label extends string>(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly Label[],
): Counter<Label> {
  return new Counter({ name, help, labelNames, registers: [registry] });
}

/** Shows the child at 0 from the start, so that a rate over it sees the first event. */
export function fromZero(child: Counter.Internal): Counter.Internal {
  child.inc(0);
  return child;
}
