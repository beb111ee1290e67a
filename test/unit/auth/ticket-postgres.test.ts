// The table of tickets on a real PostgreSQL: taken once, never late, cleaned up, and not written to the log.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { PostgresTickets } from '../../../src/sync/postgres/tickets.ts';
import { connect, type Database } from '../../../src/database/connect.ts';
import { createDatabase } from '../../support/postgres.ts';
import { until } from '../../support/tcp-client.ts';

let sql: Database;
const failures: unknown[] = [];
const open: PostgresTickets[] = [];

beforeAll(async () => {
  const { url } = await createDatabase({ migrated: true });
  sql = connect(url, { applicationName: 'test tickets' });
}, 60_000);

afterAll(async () => {
  for (const store of open) store.close();
  await sql.end({ timeout: 5 });
});

function storeOf(forgetAfterMs?: number): PostgresTickets {
  const failed = (error: unknown) => failures.push(error);
  const store = new PostgresTickets({ sql, failed, ...(forgetAfterMs === undefined ? {} : { forgetAfterMs }) });
  open.push(store);
  return store;
}

test('of many who take it at once one gets it, whatever it says', async () => {
  const store = storeOf();
  const text = `{"sub":"ann","more":"'; DROP TABLE realtime.tickets; -- \\u0000 ${'ü'.repeat(4_000)}"}`;
  await store.put('a', text, 30);
  const taken = await Promise.all(Array.from({ length: 40 }, () => store.take('a')));
  expect(taken.filter((each) => each !== undefined)).toEqual([text]);
  expect(await store.take("a' OR true --")).toBeUndefined();
});

test('one that has ended is not given, and is gone', async () => {
  const store = storeOf();
  await store.put('late', '{}', 30);
  await sql`UPDATE realtime.tickets SET ends_at = statement_timestamp() WHERE digest = 'late'`;
  expect(await store.take('late')).toBeUndefined();
  expect(await sql`SELECT 1 FROM realtime.tickets WHERE digest = 'late'`).toHaveLength(0);
});

test('those that nobody used are deleted once they have ended, and only those', async () => {
  await sql`INSERT INTO realtime.tickets VALUES ('of a node that died', '{}', statement_timestamp())`;
  const store = storeOf(20);
  await store.put('soon', '{}', 0);
  await store.put('later', '{}', 30);
  const left = async () => (await sql`SELECT digest FROM realtime.tickets`).map(({ digest }) => digest as string);
  await until(async () => (await left()).join() === 'later', 'the ended ones are gone', 10_000, 20);
  expect(failures).toEqual([]);
});

test('the table is unlogged', async () => {
  const [table] = await sql`SELECT relpersistence FROM pg_class WHERE oid = 'realtime.tickets'::regclass`;
  expect(table?.['relpersistence']).toBe('u');
});
