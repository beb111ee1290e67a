// The memory adapter as the contract's tests want it: one node at a time, on a clock that is turned by hand.

import type { SyncHarness } from '../contract/sync-contract.ts';
import { memoryAdapter, type HandClock } from './hub.ts';
import type { MemoryAdapter } from '../../src/sync/memory/adapter.ts';

export function memoryHarness(clock: HandClock): Promise<SyncHarness> {
  let adapter: MemoryAdapter | undefined;
  return Promise.resolve({
    clock,
    createNode: async (events) => {
      adapter = memoryAdapter(clock);
      await adapter.start(events);
      return adapter;
    },
    restart: async () => adapter?.close(),
    close: async () => adapter?.close(),
  });
}
