// The Redis adapter keeps the contract, between nodes and over restarts.
import { redisHarness } from '../support/redis-harness.ts';
import { syncContract } from './sync-contract.ts';

syncContract('redis', { traits: { shared: true, durable: true }, open: redisHarness });
