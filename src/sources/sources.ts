// The sources of this node: opens their brokers, learns their partitions, and runs those whose leases it holds. Lifecycle:
// `start`, `close`. A broker that is away is tried again for ever, with a pause; everything else of the node goes on.

import type { Database } from '../database/connect.ts';
import type { SourceState } from '../metrics/source-metrics.ts';
import type { NamedSource } from '../rules/source-config.ts';
import { backoffCeilingMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';
import { within } from '../time/within.ts';
import { Gate } from './gate.ts';
import { Leases, type Wanted } from './leases.ts';
import { Runner, type RunnerObserver } from './runner.ts';
import type { SourceBroker } from './source.ts';
import { SourceStore } from './store.ts';

export interface SourcesOptions {
  readonly sources: readonly OpenSource[];
  /** Must reach the database directly. */
  readonly directUrl: string;
  readonly sql: Database;
  readonly messageBytesMax: number;
  /** Whether the sync layer takes publications, as seen lately. */
  readonly isLayerUp: () => boolean;
  readonly observer: RunnerObserver;
  readonly clock: Clock;
  readonly log: SourcesLog;
}

export interface OpenSource {
  readonly source: NamedSource;
  readonly broker: SourceBroker;
}

export interface SourcesLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

interface Partition {
  readonly of: Member;
  readonly name: string;
  runner: Runner | undefined;
  isReading: boolean;
  failures: number;
  restsUntil: number;
  fault: unknown;
}

interface Member extends OpenSource {
  readonly partitions: Map<string, Partition>;
  /** Why its partitions cannot be learned. */
  fault: unknown;
  isLearning: boolean;
  wasRead: boolean;
}

const learnEveryMs = 5_000;
const measureEveryMs = 1_000;
const learnMsMax = 10_000;
const pauses = { firstMs: 250, maxMs: 10_000 };

export class Sources {
  readonly #options: SourcesOptions;
  readonly #members: readonly Member[];
  readonly #store: SourceStore;
  readonly #gate: Gate;
  readonly #leases: Leases;
  #timers: ReturnType<typeof setInterval>[] = [];

  constructor(options: SourcesOptions) {
    this.#options = options;
    const { sql, clock, isLayerUp, directUrl, log } = options;
    this.#members = options.sources.map((each) => ({
      ...each,
      partitions: new Map<string, Partition>(),
      fault: undefined,
      isLearning: false,
      wasRead: false,
    }));
    this.#store = new SourceStore(sql);
    this.#gate = new Gate({ isLayerUp, waiting: () => this.#store.waiting(), clock, log });
    this.#leases = new Leases({
      url: directUrl,
      clock,
      wanted: () => this.#wanted(),
      use: (name, ended) => this.#use(name, ended),
      elsewhere: (name) => {
        const partition = this.#find(name);
        if (partition !== undefined) partition.fault = undefined;
      },
      failed: (error) => log.warn({ err: error }, 'the database gives no leases of sources now; trying again'),
    });
  }

  start(): void {
    this.#leases.start();
    this.#timers = [
      setInterval(() => this.#learnAll(), learnEveryMs),
      setInterval(() => this.#measureAll(), measureEveryMs),
    ];
    this.#learnAll();
  }

  /** Never rejects. */
  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.#leases.close();
    await Promise.all(this.#members.map(({ broker }) => broker.close()));
  }

  get states(): readonly SourceState[] {
    return this.#members.map(({ source, partitions, fault, wasRead }) => {
      const all = [...partitions.values()];
      const reading = all.filter(({ isReading }) => isReading);
      const lags = reading.flatMap(({ runner }) => runner?.lag ?? []);
      return {
        name: source.name,
        partitions: reading.length,
        lag: lags.length === 0 ? undefined : lags.reduce((sum, lag) => sum + lag, 0),
        fault: fault ?? all.find((each) => each.fault !== undefined)?.fault,
        wasRead,
      };
    });
  }

  #measureAll(): void {
    for (const { partitions } of this.#members) {
      for (const { runner } of partitions.values()) void runner?.measure();
    }
  }

  #learnAll(): void {
    for (const member of this.#members) void this.#learn(member);
  }

  async #learn(member: Member): Promise<void> {
    if (member.isLearning) return;
    member.isLearning = true;
    const { source, broker, partitions } = member;
    try {
      for (const name of await within(broker.partitions(), learnMsMax, 'learning the partitions')) {
        if (partitions.has(name)) continue;
        const fresh = { runner: undefined, isReading: false, failures: 0, restsUntil: 0, fault: undefined };
        partitions.set(name, { of: member, name, ...fresh });
        this.#leases.hurry();
      }
      member.fault = undefined;
    } catch (error) {
      if (member.fault === undefined) this.#warn(source, error);
      member.fault = error;
    } finally {
      member.isLearning = false;
    }
  }

  #wanted(): readonly Wanted[] {
    const now = this.#options.clock.monotonic();
    return this.#members.flatMap(({ source, partitions }) =>
      Array.from(partitions.values(), ({ name, restsUntil }) => ({
        name: leaseName(source, name),
        isResting: restsUntil > now,
      })),
    );
  }

  /** Never rejects. */
  async #use(lease: string, ended: AbortSignal): Promise<void> {
    const partition = this.#find(lease);
    if (partition === undefined) return;
    const { of, name } = partition;
    const { source, broker } = of;
    const { messageBytesMax, observer, clock, log } = this.#options;
    const runner = new Runner({
      source,
      partition: name,
      broker,
      store: this.#store,
      messageBytesMax,
      observer,
      gate: (signal) => this.#gate.open(signal),
      reads: () => {
        log.info({ source: source.name, partition: name }, 'reading a source');
        partition.isReading = true;
        of.wasRead = true;
        partition.failures = 0;
        partition.fault = undefined;
      },
    });
    partition.runner = runner;
    try {
      await runner.run(ended);
    } catch (error) {
      if (partition.fault === undefined) this.#warn(source, error);
      partition.fault = error;
      partition.restsUntil = clock.monotonic() + backoffCeilingMs(partition.failures++, pauses);
    }
    partition.runner = undefined;
    partition.isReading = false;
  }

  #find(lease: string): Partition | undefined {
    for (const { source, partitions } of this.#members) {
      for (const partition of partitions.values()) if (leaseName(source, partition.name) === lease) return partition;
    }
    return undefined;
  }

  #warn(source: NamedSource, error: unknown): void {
    this.#options.log.warn({ source: source.name, err: error }, 'a source cannot be read now; trying again');
  }
}

function leaseName(source: NamedSource, partition: string): string {
  return `${source.name} ${partition}`;
}
