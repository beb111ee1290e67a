// A relay that failed at each row, or parked all of them, left its node ready: nothing arrived, and nobody was told. And
// a row that cannot be carried delays those beside it by no more than it costs to find it.

import { afterEach, expect, test } from 'bun:test';
import postgres from 'postgres';
import type { HealthReport } from '../../src/api/operations.ts';
import { WebSocketClient } from '../support/clients.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';

patient();

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

interface Stage {
  readonly node: RunningServer;
  readonly sql: postgres.Sql;
  readonly client: WebSocketClient;
}

async function stageOf(settings: Record<string, string> = {}): Promise<Stage> {
  const { url, superUrl } = await createDatabase({ migrated: true });
  const sql = postgres(superUrl, { max: 1, onnotice: () => undefined });
  closers.push(() => sql.end({ timeout: 1 }));
  await sql`create table item (id int primary key, body text)`;
  await sql`select realtime.watch('item')`;
  const node = await startNode({ SYNC: 'postgres', DATABASE_URL: url, ...settings });
  closers.push(() => stopNodes([node]));
  const client = await WebSocketClient.open(node.url);
  closers.push(() => client.cut());
  client.send({ type: 'subscribe', channel: 'item' });
  await client.next('subscribed');
  return { node, sql, client };
}

async function relayOf(node: RunningServer): Promise<{ code: number; cause: string | undefined }> {
  const response = await fetch(`${node.url}/health/ready`);
  const { checks } = (await response.json()) as HealthReport;
  return {
    code: response.status,
    cause: checks['relay']?.ok === false ? checks['relay'].lastError?.message : undefined,
  };
}

async function parkedBy(node: RunningServer): Promise<number> {
  const text = await (await fetch(`${node.url}/metrics`)).text();
  return Number(/^sobranie_rows_parked_total(?:\{[^}]*\})? (\d+)/m.exec(text)?.[1]);
}

test('a relay that fails makes its node not ready, with the cause, and carries what waited once it works', async () => {
  const { node, sql, client } = await stageOf();
  await until(async () => (await relayOf(node)).code === 200, 'it is ready', 20_000);
  await sql`alter table realtime.publications rename to publications_away`;
  await sql`insert into item values (1, 'waits')`;
  await until(
    async () => (await relayOf(node)).cause === 'a table of the schema realtime is gone',
    'it says that the relay fails',
    30_000,
  );
  expect((await relayOf(node)).code).toBe(503);
  await sql`alter table realtime.publications_away rename to publications`;
  expect((await client.next('message', 30_000)).data).toMatchObject({ data: { id: 1 } });
  await until(async () => (await relayOf(node)).code === 200, 'it is ready again', 30_000);
}, 90_000);

test('a relay that parks everything makes its node not ready, until something is carried', async () => {
  const { node, sql, client } = await stageOf({ MAX_ROW_BYTES: '1024' });
  await sql`insert into item select g, repeat('x', 4096) from generate_series(1, 12) g`;
  await until(
    async () => (await relayOf(node)).cause === 'no table change can be carried: all are parked',
    'it says that all are parked',
    30_000,
  );
  expect((await relayOf(node)).code).toBe(503);
  expect(await parkedBy(node)).toBe(12);
  expect(await sql`select from realtime.parked`).toHaveLength(12);
  expect((await client.next('gap')).channel).toBe('item');
  await sql`insert into item values (100, 'small')`;
  expect((await client.next('message', 20_000)).data).toMatchObject({ data: { id: 100 } });
  await until(async () => (await relayOf(node)).code === 200, 'it is ready again', 20_000);
}, 90_000);

test('one row that cannot be carried, beside 10,000 others: they arrive, it is one gap, and the node is ready', async () => {
  const { node, sql, client } = await stageOf({ MAX_ROW_BYTES: '1024' });
  const insert = (from: number, to: number) =>
    sql`insert into item select g, 'well' from generate_series(${from}::int, ${to}::int) g`;
  await insert(1, 5_000);
  await sql`insert into item values (5001, repeat('x', 4096))`;
  const poisonedAt = performance.now();
  await insert(5_002, 10_001);
  const ids: number[] = [];
  let gaps = 0;
  while (ids.length < 10_000) {
    const { type, data } = await client.nextAny(30_000);
    if (type === 'gap') gaps++;
    if (type === 'message') ids.push((data as { data: { id: number } }).data.id);
  }
  // Half a second where nothing else runs; a busy machine takes longer.
  expect(performance.now() - poisonedAt).toBeLessThan(10_000);
  expect(ids).toEqual(Array.from({ length: 10_001 }, (_, index) => index + 1).filter((id) => id !== 5_001));
  expect(gaps).toBe(1);
  expect(await parkedBy(node)).toBe(1);
  expect(await sql`select from realtime.parked`).toHaveLength(1);
  expect((await relayOf(node)).code).toBe(200);
}, 90_000);
