// The decisions of the application's own code: functions of the rules, and the database's.

import type { Registry } from 'prom-client';
import { counter, fromZero } from './counter.ts';
import { Children } from './namespace-labels.ts';

export interface AccessMetrics {
  /** A decision that was asked for, not one that was remembered. */
  authorized(source: 'rules' | 'database', outcome: 'allowed' | 'forbidden' | 'undecided' | 'failed'): void;
}

export function accessMetrics(registry: Registry): AccessMetrics {
  const total = counter(
    registry,
    'sobranie_authorizations_total',
    'Calls of authorize functions, of `rules` or the `database`: `allowed`, `forbidden`, `undecided` or `failed`',
    ['source', 'outcome'],
  );
  const children = new Children(
    (source) =>
      new Children(
        (outcome) => fromZero(total.labels(source, outcome)),
        ['allowed', 'forbidden', 'undecided', 'failed'],
      ),
    ['rules', 'database'],
  );
  return { authorized: (source, outcome) => children.of(source).of(outcome).inc() };
}
