// The adapter of a single process keeps the contract.
import { HandClock } from '../support/hub.ts';
import { memoryHarness } from '../support/memory-harness.ts';
import { syncContract } from './sync-contract.ts';

syncContract('memory', { traits: { shared: false, durable: false }, open: () => memoryHarness(new HandClock()) });
