// The PostgreSQL adapter keeps the contract, between nodes and over restarts.
import { postgresHarness } from '../support/postgres-harness.ts';
import { syncContract } from './sync-contract.ts';

syncContract('postgres', { traits: { shared: true, durable: true }, open: () => postgresHarness() });
