// Every metric of this server, in a registry of its own, and the observer through which the hub and the sync layer
// report. Labels are few and bounded: never a user, a connection or a channel's full name.
// State, such as the number of subscriptions, is read from its source at each scrape.
//
// Lifecycle: createMetrics, readFrom once the parts exist, render at will, close.

import { Counter, Gauge, Registry, type Aggregator } from 'prom-client';
import type { HubObserver, SyncObserver } from '../core/observer.ts';
import type { TransportKind } from '../core/outlet.ts';
import { accessMetrics, type AccessMetrics } from './access-metrics.ts';
import { hookMetrics, type HookMetrics } from './hook-metrics.ts';
import { hubMetrics } from './hub-metrics.ts';
import { addProcessMetrics } from './process-metrics.ts';
import { relayMetrics, type RelayMetrics } from './relay-metrics.ts';
import { addSourceGauges, sourceMetrics, type SourceMetrics, type SourceState } from './source-metrics.ts';
import { snapshotMetrics, type SnapshotMetrics } from './snapshot-metrics.ts';
import { syncMetrics } from './sync-metrics.ts';
import { snapshotOf, type MetricsSnapshot } from './together.ts';
import { totalsOf, type Totals } from './totals.ts';

/**
 * State that is read at each scrape. A source answers at once from memory, so that no scrape waits for a database. The
 * metric of a source that is not given, or answers undefined, has no sample: a 0 would be made up.
 */
export interface MetricSources {
  readonly connectionsMax?: () => number;
  readonly subscriptions?: () => number;
  readonly channels?: () => number;
  /** Of this node, once per channel. */
  readonly presenceMembers?: () => number;
  /** Bytes of what this node has seen of its channels' logs and keeps. */
  readonly keptBytes?: () => number;
  /** Rows that wait in the outbox. */
  readonly outboxPending?: () => number | undefined;
  /** Age in seconds of the oldest row that waits. */
  readonly outboxLagSeconds?: () => number | undefined;
  /** For how long what is past its end has waited to be trimmed from the log of this database. */
  readonly logTrimLagSeconds?: () => number | undefined;
  readonly logPublications?: () => number | undefined;
  readonly relayLeader?: () => boolean;
  /** Hook events that wait; on the node that sends them. */
  readonly hooksPending?: () => number | undefined;
  readonly databaseUp?: () => boolean | undefined;
  /** Whether all that readiness rests on works. */
  readonly ready?: () => boolean | undefined;
  /** Of each watched table that had any; on the node that relays. */
  readonly captureFaults?: () => readonly CaptureFaults[];
  /** Of each source of messages; where there are any. */
  readonly sourceStates?: () => readonly SourceState[];
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

export const metricsContentType = Registry.PROMETHEUS_CONTENT_TYPE;

/** The answer to a scrape. */
export interface RenderedMetrics {
  readonly contentType: string;
  readonly body: string;
}

export interface Metrics
  extends HubObserver, SyncObserver, AccessMetrics, SnapshotMetrics, HookMetrics, RelayMetrics, SourceMetrics {
  /** Adds the metrics of these sources; each source once. */
  readFrom(sources: MetricSources): void;
  render(): Promise<RenderedMetrics>;
  /** What the counters that rates are made of have reached. */
  totals(): Promise<Totals>;
  /** For another process, which answers for several. */
  snapshot(): Promise<MetricsSnapshot>;
  /** All metrics, sorted by name. */
  describe(): readonly MetricDescription[];
  close(): void;
}

export interface MetricsOptions {
  /** This node's name. */
  readonly node: string;
  readonly version: string;
  readonly transports: readonly TransportKind[];
}

export function createMetrics(options: MetricsOptions): Metrics {
  const registry = new Registry();
  const closeProcessMetrics = addProcessMetrics(registry, options.node);
  addBuildInfo(registry, options.version);
  const active = options.transports.map(({ active: { name } }) => name);
  return {
    ...hubMetrics(registry, options.node, options.transports),
    ...syncMetrics(registry),
    ...accessMetrics(registry),
    ...snapshotMetrics(registry),
    ...hookMetrics(registry),
    ...relayMetrics(registry),
    ...sourceMetrics(registry),
    readFrom: (sources) => addSources(registry, sources),
    render: async () => ({ contentType: registry.contentType, body: await registry.metrics() }),
    totals: () => totalsOf(registry, active),
    snapshot: async () => snapshotOf(await registry.getMetricsAsJSON()),
    describe: () => described(registry),
    close: closeProcessMetrics,
  };
}

interface GaugeRow {
  readonly name: string;
  readonly help: string;
  /** What several processes have together, where it is not the sum. */
  readonly aggregator?: Aggregator;
}

const gauges: { readonly [Source in keyof Omit<MetricSources, 'captureFaults' | 'sourceStates'>]-?: GaugeRow } = {
  connectionsMax: {
    name: 'sobranie_connections_max',
    help: 'How many connections this node accepts at most, of all transports together',
  },
  subscriptions: { name: 'sobranie_subscriptions_active', help: 'Subscriptions of all connections' },
  channels: { name: 'sobranie_channels_active', help: 'Channels with a subscriber; each worker counts its own' },
  presenceMembers: {
    name: 'sobranie_presence_members',
    help: 'Members of channels whose connections are on this node: a connection counts once per channel',
  },
  keptBytes: {
    name: 'sobranie_kept_bytes',
    help: 'Bytes of publications that this node keeps for those who come back',
  },
  outboxPending: {
    name: 'sobranie_outbox_pending',
    help: 'Changes that wait in the outbox; only the node that relays has it',
    aggregator: 'max',
  },
  outboxLagSeconds: {
    name: 'sobranie_outbox_lag_seconds',
    help: 'Age in seconds of the oldest change in the outbox; only the node that relays has it',
    aggregator: 'max',
  },
  logTrimLagSeconds: {
    name: 'sobranie_log_trim_lag_seconds',
    help: 'How far the trimming of the log in the database is behind; only the node that relays has it',
    aggregator: 'max',
  },
  logPublications: {
    name: 'sobranie_log_publications',
    help: 'Publications in the log in the database, as the database estimates them; only the node that relays has it',
    aggregator: 'max',
  },
  relayLeader: { name: 'sobranie_relay_leader', help: '1 on the node that relays' },
  hooksPending: {
    name: 'sobranie_hooks_pending',
    help: 'Hook events that wait for the receiver; only the node that sends them has it',
    aggregator: 'max',
  },
  databaseUp: {
    name: 'sobranie_database_up',
    help: '1 while the database answers, as seen every few seconds',
    aggregator: 'min',
  },
  ready: {
    name: 'sobranie_ready',
    help: '1 while all checks of `/health/ready` pass, as seen every few seconds; a node that drains may pass them',
    aggregator: 'min',
  },
  shutdownSeconds: {
    name: 'sobranie_shutdown_duration_seconds',
    help: 'Seconds since the shutdown began; 0 before',
    aggregator: 'max',
  },
};

const gaugeSources = Object.keys(gauges) as (keyof typeof gauges)[];
export const metricSources: readonly (keyof MetricSources)[] = [...gaugeSources, 'captureFaults', 'sourceStates'];

function addSources(registry: Registry, sources: MetricSources): void {
  if (sources.captureFaults !== undefined) addCaptureFaults(registry, sources.captureFaults);
  if (sources.sourceStates !== undefined) addSourceGauges(registry, sources.sourceStates);
  for (const source of gaugeSources) {
    const read = sources[source];
    if (read === undefined) continue;
    new Gauge({
      aggregator: 'sum',
      ...gauges[source],
      registers: [registry],
      collect() {
        const value = read();
        if (value === undefined) this.remove();
        else this.set(Number(value));
      },
    });
  }
}

function addBuildInfo(registry: Registry, version: string): void {
  new Gauge({
    name: 'sobranie_build_info',
    help: 'Always 1: the version of the server and of Bun under it',
    labelNames: ['version', 'bun'],
    aggregator: 'max',
    registers: [registry],
  }).set({ version, bun: Bun.version }, 1);
}

function addCaptureFaults(registry: Registry, read: () => readonly CaptureFaults[]): void {
  new Counter({
    name: 'sobranie_capture_faults_total',
    help: 'Changes of a watched table that could not be captured; only the node that relays has it',
    labelNames: ['table'],
    aggregator: 'max',
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
