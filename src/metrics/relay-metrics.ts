// What the relay of this node counts by itself. What it reads from the database is a source of `metrics.ts`.

import { Counter, type Registry } from 'prom-client';

export interface RelayMetrics {
  /** Rows were set aside in `realtime.parked`. */
  rowsParked(count: number): void;
}

export function relayMetrics(registry: Registry): RelayMetrics {
  const parked = new Counter({
    name: 'sobranie_rows_parked_total',
    help: 'Changes that could not be carried, and are in `realtime.parked`; counted by the node that relayed',
    registers: [registry],
  });
  return { rowsParked: (count) => parked.inc(count) };
}
