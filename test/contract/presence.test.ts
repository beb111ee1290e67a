// Every presence store keeps the contract: in memory, over Redis and a Redis cluster, over PostgreSQL.
import { memoryPresenceHarness } from '../support/memory-harness.ts';
import { postgresPresenceHarness } from '../support/postgres-harness.ts';
import { redisClusterPresenceHarness, redisPresenceHarness } from '../support/redis-presence-harness.ts';
import { presenceContract } from './presence-contract.ts';

presenceContract('memory', memoryPresenceHarness);
presenceContract('postgres', postgresPresenceHarness);
presenceContract('redis', redisPresenceHarness);
presenceContract('redis cluster', redisClusterPresenceHarness);
