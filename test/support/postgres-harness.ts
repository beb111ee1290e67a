// The PostgreSQL adapter as the contract's tests want it: a migrated database, and any number of nodes on it.

import { connect } from '../../src/database/connect.ts';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from './doubles.ts';
import type { PresenceEvents, PresenceStore } from '../../src/presence/store.ts';
import { PostgresAdapter } from '../../src/sync/postgres/adapter.ts';
import { PostgresPresence } from '../../src/sync/postgres/presence.ts';
import type { OwnBus } from '../../src/sync/log-bus.ts';
import type { PresenceHarness } from '../contract/presence-contract.ts';
import type { SyncHarness } from '../contract/sync-contract.ts';
import { createDatabase, startCluster } from './postgres.ts';

/** `busOf`: what carries word of the log from node to node, in place of notifications. */
export async function postgresHarness(busOf?: (nodeId: string) => OwnBus): Promise<SyncHarness> {
  const database = await createDatabase({ migrated: true });
  const admin = connect(database.url, { applicationName: 'contract', max: 1 });
  let closers: (() => Promise<void>)[] = [];
  let nodes = 0;
  const closeNodes = async (): Promise<void> => {
    await Promise.all(closers.map((close) => close()));
    closers = [];
  };
  return {
    createNode: async (events) => {
      const nodeId = `node${++nodes}`;
      const applicationName = `contract ${nodeId}`;
      const sql = connect(database.url, { applicationName, max: 3 });
      const adapter = new PostgresAdapter({
        sql,
        reads: connect(database.url, { applicationName, max: 1 }),
        connectDirect: () => connect(database.url, { applicationName, max: 1 }),
        nodeId,
        applicationName,
        clock: systemClock,
        observer: silentObserver,
        log: () => undefined,
        bus: busOf?.(nodeId),
      });
      closers.push(async () => {
        await adapter.close();
        await sql.end({ timeout: 1 });
      });
      await adapter.start(events);
      return adapter;
    },
    restart: closeNodes,
    clock: {
      now: () => Date.now(),
      // The database's clock cannot be turned, so what it has stored grows older.
      advance: async (milliseconds) => {
        await admin`UPDATE realtime.publications SET at = at - ${milliseconds}::bigint`;
      },
    },
    close: async () => {
      await closeNodes();
      await admin.end({ timeout: 1 });
      await database.drop();
    },
  };
}

/** The presence store as one node has it, started. */
export async function openPostgresPresence(
  url: string,
  nodeId: string,
  events: PresenceEvents,
): Promise<{ readonly store: PresenceStore; close(): Promise<void> }> {
  const applicationName = `contract ${nodeId}`;
  const sql = connect(url, { applicationName, max: 3 });
  const adapter = new PostgresAdapter({
    sql,
    reads: connect(url, { applicationName, max: 1 }),
    connectDirect: () => connect(url, { applicationName, max: 1 }),
    nodeId,
    applicationName,
    clock: systemClock,
    observer: silentObserver,
    log: () => undefined,
  });
  const store = new PostgresPresence({ sql, adapter });
  await adapter.start({ publication: () => undefined, head: () => undefined, settled: () => undefined });
  store.start(events);
  return {
    store,
    close: async () => {
      await store.close();
      await adapter.close();
      await sql.end({ timeout: 1 });
    },
  };
}

/** The presence store, on a PostgreSQL of its own, which crashes. */
export async function postgresPresenceHarness(): Promise<PresenceHarness> {
  const cluster = await startCluster();
  const database = await cluster.createDatabase({ migrated: true });
  const admin = connect(database.url, { applicationName: 'contract', max: 1 });
  const closers: (() => Promise<void>)[] = [];
  return {
    createNode: async (events) => {
      const { store, close } = await openPostgresPresence(database.url, `node${closers.length + 1}`, events);
      closers.push(close);
      return store;
    },
    lose: async () => {
      await cluster.kill9();
      await cluster.startServer();
    },
    forgetNodes: async () => {
      await admin`DELETE FROM realtime.presence_nodes`;
    },
    now: () => Date.now(),
    // The database's clock cannot be turned, so the nodes grow older.
    pass: async (milliseconds) => {
      await admin`UPDATE realtime.presence_nodes SET dies_at = dies_at - ${milliseconds} * interval '1 millisecond'`;
    },
    close: async () => {
      await Promise.all(closers.map((close) => close()));
      await admin.end({ timeout: 1 });
      await cluster.close();
    },
  };
}
