// What the sources of this node do. What they hold is read at each scrape.

import { Gauge, type Registry } from 'prom-client';
import { counter } from './counter.ts';

/** How a source stands on this node. */
export interface SourceState {
  readonly name: string;
  /** Partitions that this node reads. */
  readonly partitions: number;
  /** Messages that wait in those; undefined where it reads none, or the broker does not say. */
  readonly lag: number | undefined;
  /** What it fails with, here; undefined while it works, or another node does the work. */
  readonly fault: unknown;
  /** This node has read it, since its start. */
  readonly wasRead: boolean;
}

export interface SourceMetrics {
  sourceMessages(source: string, outcome: string, count: number): void;
}

export function sourceMetrics(registry: Registry): SourceMetrics {
  const messages = counter(
    registry,
    'sobranie_source_messages_total',
    'Messages of a source: `published`, `skipped` as it has no channel for them, `parked`, or `repeated` and left out',
    ['source', 'outcome'],
  );
  return {
    sourceMessages: (source, outcome, count) => {
      messages.labels(source, outcome).inc(count);
    },
  };
}

export function addSourceGauges(registry: Registry, read: () => readonly SourceState[]): void {
  new Gauge({
    name: 'sobranie_source_partitions',
    help: 'Partitions of a source that this node reads',
    labelNames: ['source'],
    aggregator: 'sum',
    registers: [registry],
    collect() {
      this.reset();
      for (const { name, partitions } of read()) this.set({ source: name }, partitions);
    },
  });
  new Gauge({
    name: 'sobranie_source_lag_messages',
    help: 'Messages of a source that wait to be read; only the nodes that read it have it',
    labelNames: ['source'],
    aggregator: 'sum',
    registers: [registry],
    collect() {
      this.reset();
      for (const { name, lag } of read()) if (lag !== undefined) this.set({ source: name }, lag);
    },
  });
}
