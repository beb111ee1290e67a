// What this node's counters have reached, added up over their labels: what rates are made of.

import type { Registry } from 'prom-client';
import { rateNames, type RateName } from '../core/rates.ts';

/** Of `connections` how many there are, of all others how much there ever was. */
export type Totals = Readonly<Record<RateName, number>>;

const sources: Readonly<Record<Exclude<RateName, 'connections'>, { readonly metric: string; readonly part?: string }>> =
  {
    publications: { metric: 'sobranie_publications_total' },
    deliveries: { metric: 'sobranie_messages_sent_total' },
    commands: { metric: 'sobranie_messages_received_total' },
    errors: { metric: 'sobranie_errors_total' },
    delaySeconds: { metric: 'sobranie_sync_delay_seconds', part: '_sum' },
    delays: { metric: 'sobranie_sync_delay_seconds', part: '_count' },
  };

/** `active`: the metrics that count open connections. */
export async function totalsOf(registry: Registry, active: readonly string[]): Promise<Totals> {
  const sums = rateNames.map(async (name) => {
    const from = name === 'connections' ? active.map((metric) => ({ metric, part: '' })) : [sources[name]];
    const parts = await Promise.all(from.map(({ metric, part = '' }) => sumOf(registry, metric, part)));
    return [name, parts.reduce((sum, value) => sum + value, 0)] as const;
  });
  return Object.fromEntries(await Promise.all(sums)) as Record<RateName, number>;
}

async function sumOf(registry: Registry, metric: string, part: string): Promise<number> {
  const { values = [] } = (await registry.getSingleMetric(metric)?.get()) ?? {};
  // The parts of a histogram are told apart by a name that the library's types leave out.
  const isPart = (value: object): boolean =>
    part === '' || ('metricName' in value && value.metricName === metric + part);
  return values.filter(isPart).reduce((sum, { value }) => sum + value, 0);
}
