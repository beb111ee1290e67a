// Opens tracing where a receiver is set; without one its packages are never loaded.

import type { Settings } from '../settings/settings.ts';
import type { Tracing } from '../tracing/tracing.ts';
import type { CloseStack } from './close-stack.ts';
import type { Logger } from './logger.ts';

export async function openTracing(
  settings: Settings,
  version: string,
  log: Logger,
  closing: CloseStack,
): Promise<Tracing | undefined> {
  const { tracesEndpoint: endpoint, tracesService: service, tracesShare: share, nodeId: node, sync: engine } = settings;
  if (endpoint === undefined) return undefined;
  const [exporter, tracing] = await Promise.all([import('../tracing/exporter.ts'), import('../tracing/tracing.ts')]);
  const failed = (error: unknown): void => log.warn({ err: error }, 'the receiver of traces does not take them');
  const spans = exporter.openExporter({ endpoint, service, version, node, failed });
  closing.add('tracing', () => spans.close());
  // The clock of the log's times, with fractions.
  const now = (): number => performance.timeOrigin + performance.now();
  return new tracing.Tracing({ spans, share, engine, now });
}
