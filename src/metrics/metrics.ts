// Every metric of this server, in a registry of its own, and the observer through which the hub and the sync layer
// report. Labels are few and bounded: never a user, a connection or a channel's full name.
// State, such as the number of subscriptions, is read from its source at each scrape.
//
// Lifecycle: createMetrics, readFrom once the parts exist, render at will, close.

import { Counter, Gauge, Registry } from 'prom-client';
import type { HubObserver, SyncObserver } from '../core/observer.ts';
import { accessMetrics, type AccessMetrics } from './access-metrics.ts';
import { hubMetrics } from './hub-metrics.ts';
import { addProcessMetrics } from './process-metrics.ts';
import { syncMetrics } from './sync-metrics.ts';

/**
 * State that is read at each scrape. A source answers at once from memory, so that no scrape waits for a database. The
 * metric of a source that is not given is left out: a 0 would be made up.
 */
export interface MetricSources {
  readonly subscriptions?: () => number;
  readonly channels?: () => number;
  /** Of this node, once per channel. */
  readonly presenceMembers?: () => number;
  /** Bytes of what this node has seen of its channels' logs and keeps. */
  readonly keptBytes?: () => number;
  /** Rows that wait in the outbox. */
  readonly outboxPending?: () => number;
  /** Age in seconds of the oldest row that waits. */
  readonly outboxLagSeconds?: () => number;
  readonly relayLeader?: () => boolean;
  /** Of each watched table that had any; on the node that relays. */
  readonly captureFaults?: () => readonly CaptureFaults[];
  /** Seconds since the shutdown began; 0 before. */
  readonly shutdownSeconds?: () => number;
}

/** Faults of a watch since it began, as the database counts them. */
export interface CaptureFaults {
  readonly table: string;
  readonly count: number;
}

export interface MetricDescription {
  readonly name: string;
  readonly labels: readonly string[];
  /** For operators, in the scrape and in docs/metrics.md. */
  readonly help: string;
}

export interface Metrics extends HubObserver, SyncObserver, AccessMetrics {
  /** Adds the metrics of these sources; each source once. */
  readFrom(sources: MetricSources): void;
  render(): Promise<{ readonly contentType: string; readonly body: string }>;
  /** All metrics, sorted by name. */
  describe(): readonly MetricDescription[];
  close(): void;
}

export function createMetrics(options: { readonly node: string }): Metrics {
  const registry = new Registry();
  const closeProcessMetrics = addProcessMetrics(registry);
  return {
    ...hubMetrics(registry, options.node),
    ...syncMetrics(registry),
    ...accessMetrics(registry),
    readFrom: (sources) => addSources(registry, sources),
    render: async () => ({ contentType: registry.contentType, body: await registry.metrics() }),
    describe: () => described(registry),
    close: closeProcessMetrics,
  };
}

/** Name and help of each source's metric. */
const gauges: {
  readonly [Source in keyof Omit<MetricSources, 'captureFaults'>]-?: readonly [name: string, help: string];
} = {
  subscriptions: ['sobranie_subscriptions_active', 'Subscriptions of all connections'],
  channels: ['sobranie_channels_active', 'Channels with a subscriber on this node'],
  presenceMembers: [
    'sobranie_presence_members',
    'Members of channels whose connections are on this node: a connection counts once per channel',
  ],
  keptBytes: ['sobranie_kept_bytes', 'Bytes of publications that this node keeps for those who come back'],
  outboxPending: ['sobranie_outbox_pending', 'Changes that wait in the outbox, on the node that relays'],
  outboxLagSeconds: [
    'sobranie_outbox_lag_seconds',
    'Age in seconds of the oldest change in the outbox, on the node that relays',
  ],
  relayLeader: ['sobranie_relay_leader', '1 on the node that relays'],
  shutdownSeconds: ['sobranie_shutdown_duration_seconds', 'Seconds since the shutdown began; 0 before'],
};

const gaugeSources = Object.keys(gauges) as (keyof typeof gauges)[];
export const metricSources: readonly (keyof MetricSources)[] = [...gaugeSources, 'captureFaults'];

function addSources(registry: Registry, sources: MetricSources): void {
  if (sources.captureFaults !== undefined) addCaptureFaults(registry, sources.captureFaults);
  for (const source of gaugeSources) {
    const read = sources[source];
    if (read === undefined) continue;
    const [name, help] = gauges[source];
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(Number(read()));
      },
    });
  }
}

function addCaptureFaults(registry: Registry, read: () => readonly CaptureFaults[]): void {
  new Counter({
    name: 'sobranie_capture_faults_total',
    help: 'Changes of a watched table that could not be captured, on the node that relays',
    labelNames: ['table'],
    registers: [registry],
    collect() {
      // Counted by the database, and so kept over restarts.
      this.reset();
      for (const { table, count } of read()) this.inc({ table }, count);
    },
  });
}

function described(registry: Registry): readonly MetricDescription[] {
  const descriptions = registry.getMetricsAsArray().map((metric) => {
    // The library's types leave the names of labels out.
    const { labelNames = [] } = metric as { readonly labelNames?: readonly string[] };
    return { name: metric.name, labels: labelNames, help: metric.help };
  });
  return descriptions.toSorted((one, other) => one.name.localeCompare(other.name, 'en'));
}
