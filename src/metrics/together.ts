// The metrics of several processes as one answer: counters and histograms are summed, gauges as each of them declares.
// Series that carry `server_id` stay apart.

import { AggregatorRegistry } from 'prom-client';

/** All metrics of one process with their values, as JSON carries them. */
export type MetricsSnapshot = readonly {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly aggregator: string;
  readonly values: readonly unknown[];
}[];

/** In the Prometheus text format. */
export function renderTogether(snapshots: readonly MetricsSnapshot[]): Promise<string> {
  return AggregatorRegistry.aggregate([...snapshots]).metrics();
}

/** What processes that have ended had counted. A sum that went down by it would read as a burst of events. */
export async function countedBy(ended: readonly MetricsSnapshot[]): Promise<MetricsSnapshot> {
  const all = snapshotOf(await AggregatorRegistry.aggregate([...ended]).getMetricsAsJSON());
  return all.filter(({ type, aggregator }) => ['counter', 'histogram'].includes(type) && aggregator === 'sum');
}

/** The library's types call a metric's type a number and do not know the names of a histogram's values. */
export function snapshotOf(metrics: readonly object[]): MetricsSnapshot {
  return metrics as unknown as MetricsSnapshot;
}
