// The table in docs/metrics.md, made from the metrics themselves.

import type { TransportKind } from '../core/outlet.ts';
import { createMetrics, metricSources } from './metrics.ts';

/** In Markdown: name with labels, and help. */
export function metricsTable(transports: readonly TransportKind[]): string {
  const metrics = createMetrics({ node: 'node', version: '0', transports });
  metrics.readFrom({
    ...Object.fromEntries(metricSources.map((source) => [source, () => 0])),
    captureFaults: () => [],
    sourceStates: () => [],
  });
  const rows = metrics.describe().map(({ name, labels, help }) => {
    const shown = labels.length === 0 ? name : `${name}{${labels.join(',')}}`;
    return `| \`${shown}\` | ${help} |`;
  });
  metrics.close();
  return ['| metric | meaning |', '| --- | --- |', ...rows].join('\n');
}
