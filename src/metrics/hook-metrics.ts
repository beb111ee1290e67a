// What became of the events for the application's own endpoint.

import type { Registry } from 'prom-client';
import { counter, fromZero } from './counter.ts';
import { Children } from './namespace-labels.ts';

export interface HookMetrics {
  hooks(outcome: 'sent' | 'failed' | 'lost', count: number): void;
}

export function hookMetrics(registry: Registry): HookMetrics {
  const total = counter(
    registry,
    'sobranie_hooks_total',
    'Hook events that the receiver took (`sent`), did not take this time (`failed`), or that were dropped (`lost`)',
    ['outcome'],
  );
  const children = new Children((outcome) => fromZero(total.labels(outcome)), ['sent', 'failed', 'lost']);
  return { hooks: (outcome, count) => children.of(outcome).inc(count) };
}
