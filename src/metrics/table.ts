// The table in docs/metrics.md, made from the metrics themselves.

import { createMetrics, type MetricSources } from './metrics.ts';

/** Every source, so that every metric is there. */
const sources: Required<MetricSources> = {
  subscriptions: () => 0,
  channels: () => 0,
  outboxPending: () => 0,
  outboxLagSeconds: () => 0,
  relayLeader: () => false,
  shutdownSeconds: () => 0,
};

/** In Markdown: name with labels, and help. */
export function metricsTable(): string {
  const metrics = createMetrics({ serverId: 'node' });
  metrics.readFrom(sources);
  const rows = metrics.describe().map(({ name, labels, help }) => {
    const shown = labels.length === 0 ? name : `${name}{${labels.join(',')}}`;
    return `| \`${shown}\` | ${help} |`;
  });
  metrics.close();
  return ['| metric | meaning |', '| --- | --- |', ...rows].join('\n');
}
