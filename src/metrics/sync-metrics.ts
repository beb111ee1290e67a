// What the sync adapters report: whether they are up, how many publications pass through them, and how long each takes.

import { Gauge, Histogram, type Registry } from 'prom-client';
import type { SyncObserver } from '../core/observer.ts';
import { counter } from './counter.ts';
import { delayBuckets } from './hub-metrics.ts';
import { Children } from './namespace-labels.ts';

export function syncMetrics(registry: Registry): SyncObserver {
  const up = new Gauge({
    name: 'sobranie_sync_up',
    help: '1 while the sync layer is reachable',
    labelNames: ['adapter'],
    aggregator: 'min',
    registers: [registry],
  });
  const messages = counter(
    registry,
    'sobranie_sync_messages_total',
    'Publications through the sync layer, `in` or `out`',
    ['adapter', 'direction'],
  );
  const messagesOf = new Children((adapter) => ({
    in: messages.labels(adapter, 'in'),
    out: messages.labels(adapter, 'out'),
  }));
  const delay = new Histogram({
    name: 'sobranie_sync_delay_seconds',
    help: 'Seconds from accepted on any node to arrived on this node',
    labelNames: ['adapter'],
    buckets: delayBuckets,
    registers: [registry],
  });
  const delayOf = new Children((adapter) => delay.labels(adapter));
  const reconnects = counter(
    registry,
    'sobranie_sync_reconnects_total',
    'Connections to the sync layer that were regained',
    ['adapter'],
  );
  const errors = counter(registry, 'sobranie_sync_errors_total', 'Failures of the sync layer', ['adapter']);
  return {
    up(adapter, isUp) {
      up.labels(adapter).set(isUp ? 1 : 0);
      // The adapter's counters begin at 0 here, so that a rate sees its first error as an increase.
      reconnects.labels(adapter).inc(0);
      errors.labels(adapter).inc(0);
    },
    message: (adapter, direction, count) => messagesOf.of(adapter)[direction].inc(count),
    // The clocks of two machines differ a little; a negative delay means "at once".
    delay: (adapter, seconds) => delayOf.of(adapter).observe(Math.max(0, seconds)),
    reconnected: (adapter) => reconnects.labels(adapter).inc(),
    failed: (adapter) => errors.labels(adapter).inc(),
  };
}
