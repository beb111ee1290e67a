// The NATS adapter keeps the contract, between nodes and over restarts, on one server and on a cluster of three.
import { natsClusterHarness, natsHarness } from '../support/nats-harness.ts';
import { syncContract } from './sync-contract.ts';

syncContract('nats', { traits: { shared: true, durable: true }, open: natsHarness });
syncContract('nats cluster', { traits: { shared: true, durable: true }, open: natsClusterHarness });
