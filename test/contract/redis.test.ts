// The Redis adapter keeps the contract, between nodes and over restarts, on one server and on a cluster.
import { redisClusterHarness, redisCompressedHarness, redisHarness } from '../support/redis-harness.ts';
import { syncContract } from './sync-contract.ts';

syncContract('redis', { traits: { shared: true, durable: true }, open: redisHarness });
syncContract('redis cluster', { traits: { shared: true, durable: true }, open: redisClusterHarness });
syncContract('redis, compressed', { traits: { shared: true, durable: true }, open: redisCompressedHarness });
