// The PostgreSQL adapter as the contract's tests want it: a migrated database, and any number of nodes on it.

import { connect } from '../../src/database/connect.ts';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from './doubles.ts';
import { PostgresAdapter } from '../../src/sync/postgres/adapter.ts';
import type { SyncHarness } from '../contract/sync-contract.ts';
import { createDatabase } from './postgres.ts';

export async function postgresHarness(): Promise<SyncHarness> {
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
        connectDirect: () => connect(database.url, { applicationName, max: 1 }),
        nodeId,
        applicationName,
        clock: systemClock,
        observer: silentObserver,
        log: (m, e) => console.log(m, e),
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
