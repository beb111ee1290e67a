// The rows with which subscriptions begin.

import type { Registry } from 'prom-client';
import { counter, fromZero } from './counter.ts';
import { Children } from './namespace-labels.ts';

export interface SnapshotMetrics {
  /** Rows that one subscription asked for were read for it, shared with others, or could not be read. */
  rows(outcome: 'taken' | 'shared' | 'failed'): void;
}

export function snapshotMetrics(registry: Registry): SnapshotMetrics {
  const total = counter(
    registry,
    'sobranie_snapshots_total',
    'Subscriptions that asked for rows: `taken` by a query, `shared` with others, or `failed`',
    ['outcome'],
  );
  const children = new Children((outcome) => fromZero(total.labels(outcome)), ['taken', 'shared', 'failed']);
  return { rows: (outcome) => children.of(outcome).inc() };
}
