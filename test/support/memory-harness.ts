// The memory adapter as the contract's tests want it: one node at a time, on a clock that is turned by hand.

import { MemoryMembers, MemoryPresence } from '../../src/sync/memory/presence.ts';
import type { PresenceHarness } from '../contract/presence-contract.ts';
import type { SyncHarness } from '../contract/sync-contract.ts';
import { HandClock, memoryAdapter } from './hub.ts';
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

/** Nodes in one process, as tests of several nodes have them. */
export function memoryPresenceHarness(): Promise<PresenceHarness> {
  const clock = new HandClock();
  const members = new MemoryMembers(clock);
  const stores: MemoryPresence[] = [];
  const interrupted: (() => void)[] = [];
  return Promise.resolve({
    createNode: (events) => {
      const store = new MemoryPresence(members);
      store.start(events);
      stores.push(store);
      interrupted.push(() => events.interrupted());
      return Promise.resolve(store);
    },
    lose: () => {
      members.channels.clear();
      members.nodes.clear();
      for (const tell of interrupted) tell();
      return Promise.resolve();
    },
    forgetNodes: () => members.nodes.clear(),
    now: () => clock.now(),
    pass: (milliseconds) => clock.advance(milliseconds),
    close: async () => {
      await Promise.all(stores.map((store) => store.close()));
    },
  });
}
