// The NATS adapter as the contract's tests want it: a server or a cluster of three, and any number of nodes on it.

import { NatsAdapter, type NatsAdapterOptions } from '../../src/sync/nats/adapter.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { parseNatsUrl, type NatsTarget } from '../../src/nats/target.ts';
import type { SyncEvents } from '../../src/core/sync-adapter.ts';
import { systemClock } from '../../src/time/clock.ts';
import type { SyncHarness } from '../contract/sync-contract.ts';
import { silentObserver } from './doubles.ts';
import { startNats, startNatsCluster } from './nats.ts';

/** Hears nothing. */
export const deaf: SyncEvents = { publication: () => undefined, head: () => undefined, settled: () => undefined };

/** One that has not started. */
export function natsAdapter(target: NatsTarget, names: NatsNames, more: Partial<NatsAdapterOptions> = {}): NatsAdapter {
  return new NatsAdapter({
    target,
    names,
    nodeId: 'node',
    clock: systemClock,
    replicas: undefined,
    keySeconds: 3_600,
    observer: silentObserver,
    waiting: () => undefined,
    log: () => undefined,
    ...more,
  });
}

export async function natsHarness(): Promise<SyncHarness> {
  const nats = await startNats();
  return harnessOf(nats.url, () => nats.close());
}

export async function natsClusterHarness(): Promise<SyncHarness> {
  const cluster = await startNatsCluster();
  return harnessOf(cluster.url, () => cluster.close());
}

/** Publications age by the clock of their node, so a clock that is ahead is all that a test needs. */
class AheadClock {
  #aheadMs = 0;
  now = (): number => Date.now() + this.#aheadMs;
  monotonic = (): number => performance.now();
  sleep = (milliseconds: number): Promise<void> => Bun.sleep(milliseconds);
  random = (): number => Math.random();
  advance = (milliseconds: number): void => {
    this.#aheadMs += milliseconds;
  };
}

function harnessOf(url: string, close: () => Promise<void>): SyncHarness {
  const clock = new AheadClock();
  let adapters: NatsAdapter[] = [];
  let nodes = 0;
  const closeNodes = async (): Promise<void> => {
    await Promise.all(adapters.map((adapter) => adapter.close()));
    adapters = [];
  };
  return {
    createNode: async (events) => {
      const adapter = natsAdapter(parseNatsUrl(url), new NatsNames('contract'), { nodeId: `node${++nodes}`, clock });
      adapters.push(adapter);
      await adapter.start(events);
      return adapter;
    },
    restart: closeNodes,
    clock,
    close: async () => {
      await closeNodes();
      await close();
    },
  };
}
