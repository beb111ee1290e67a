// The address of the database led to a standby for a while, as in a fail-over. The sessions that were opened meanwhile
// stayed with the standby when the address led to the primary again: publishing answered 503 until a restart, though
// rows flowed. Now no session is opened to a standby, and one that may not write is closed.

import { afterEach, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import type { HealthReport } from '../../src/api/operations.ts';
import { WebSocketClient } from '../support/clients.ts';
import { becomesReady, startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { startCluster, startStandby, type TestDatabase } from '../support/postgres.ts';
import { listening, spawnServer, type RunningServer } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

const closers: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

/** Nothing here is about speed: only a node that never follows fails. */
const patienceMs = 60_000;

const takesNoWrites = 'it takes no writes: it is a standby, or set to read only';

async function publishes(node: RunningServer): Promise<boolean> {
  const response = await fetch(`${node.url}/realtime/publish`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ channel: 'room:1', data: 'hello' }),
    signal: AbortSignal.timeout(patienceMs),
  });
  await response.text();
  if (response.status !== 200) expect(response.status).toBe(503);
  return response.status === 200;
}

/** Every place of the pool: one of them would hide that the others failed. */
async function allPublish(node: RunningServer): Promise<boolean> {
  return (await Promise.all(Array.from({ length: 12 }, () => publishes(node)))).every(Boolean);
}

async function says(node: RunningServer, check: string, words: string): Promise<boolean> {
  const response = await fetch(`${node.url}/health/ready`);
  const { checks } = (await response.json()) as HealthReport;
  return response.status === 503 && checks[check]?.ok === false && checks[check]?.lastError?.message === words;
}

async function execute(url: string, text: string): Promise<void> {
  const connection = { options: '-c default_transaction_read_only=off' };
  const sql = postgres(url, { max: 1, onnotice: () => undefined, connection });
  await sql.unsafe(text).simple();
  await sql.end({ timeout: 1 });
}

/** Rows of the table `item` arrive at it. */
async function rowsOf(node: RunningServer): Promise<readonly number[]> {
  const client = await WebSocketClient.open(node.url);
  closers.push(() => client.cut());
  await client.request({ type: 'subscribe', channel: 'item' }, patienceMs);
  const rows: number[] = [];
  void (async () => {
    for (;;) {
      const { type, data } = await client.nextAny(240_000);
      if (type === 'message') rows.push((data as { data: { id: number } }).data.id);
    }
  })().catch(() => undefined);
  return rows;
}

async function start(settings: Readonly<Record<string, string>>): Promise<RunningServer> {
  const node = await startNode(settings, patienceMs);
  closers.push(() => stopNodes([node]));
  return node;
}

describe.each(['postgres', 'redis'] as const)('over %s', (layer) => {
  test('the address leads to a standby, back, and to the standby when it is promoted', async () => {
    const cluster = await startCluster();
    closers.push(() => cluster.close());
    const database = await cluster.createDatabase({ migrated: true });
    await execute(database.url, `create table item (id int primary key); select realtime.watch('item')`);
    const standby = await startStandby(cluster);
    closers.push(() => standby.close());
    const proxy = await startProxy({ port: cluster.port });
    closers.push(() => proxy.close());
    const redis = layer === 'redis' ? await startRedis() : undefined;
    closers.push(() => redis?.close());
    const sync = { SYNC: layer, ...(redis === undefined ? {} : { REDIS_URL: redis.url }) };
    const primaryAndStandby = `127.0.0.1:${standby.port},127.0.0.1:${cluster.port}`;
    const several = database.url.replace(/127\.0\.0\.1:\d+/, primaryAndStandby);
    const [node, other] = await Promise.all([
      start({ ...sync, NODE_ID: 'proxied', DATABASE_URL: proxy.through(database.url) }),
      layer === 'postgres' ? start({ ...sync, NODE_ID: 'several', DATABASE_URL: several }) : undefined,
    ]);
    const rows = await rowsOf(node);
    await execute(database.url, 'insert into item values (1)');
    await until(() => rows.includes(1), 'a row', patienceMs);
    expect(await allPublish(node)).toBe(true);

    await standby.caughtUp();
    proxy.retarget({ port: standby.port });
    proxy.cut();
    await until(() => says(node, 'database', takesNoWrites), 'it says what the database is', patienceMs);
    if (other !== undefined) {
      expect(await publishes(node)).toBe(false);
      expect(await allPublish(other)).toBe(true);
    }

    // What is open now stays open.
    proxy.retarget({ port: cluster.port });
    await becomesReady(node, patienceMs);
    await until(() => allPublish(node), 'it publishes again', patienceMs);
    await execute(database.url, 'insert into item values (2)');
    await until(() => rows.includes(2), 'rows come again', patienceMs);

    // One that starts meanwhile waits for a primary.
    const atStandby = database.url.replace(/127\.0\.0\.1:\d+/, `127.0.0.1:${standby.port}`);
    const settings = { ...sync, LOG_FORMAT: 'json', NODE_ID: 'early', DATABASE_URL: atStandby };
    const early = spawnServer(settings);
    await early.waitForOutput(new RegExp(`"cause":"${takesNoWrites}".*waiting for the database`), patienceMs);
    await standby.caughtUp();
    await cluster.kill9();
    await standby.promote();
    proxy.retarget({ port: standby.port });
    // Its patience has an end, and whoever watches over it starts it anew.
    const late = await listening(early, patienceMs).catch(() => startNode(settings, patienceMs));
    closers.push(() => stopNodes([late]));
    const nodes = [node, late, ...(other === undefined ? [] : [other])];
    await Promise.all(nodes.map((each) => becomesReady(each, patienceMs)));
    for (const each of nodes) await until(() => allPublish(each), 'it publishes again', patienceMs);
    await execute(proxy.through(database.url), 'insert into item values (3)');
    await until(() => rows.includes(3), 'rows come again', patienceMs);
  }, 240_000);
});

test('a database that is set to read only is followed when it takes writes again', async () => {
  const cluster = await startCluster();
  closers.push(() => cluster.close());
  const database: TestDatabase = await cluster.createDatabase({ migrated: true });
  const node = await start({ SYNC: 'postgres', DATABASE_URL: database.url });
  expect(await allPublish(node)).toBe(true);
  await execute(
    database.superUrl,
    `alter database ${database.name} set default_transaction_read_only = on;
     select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'`,
  );
  await until(async () => !(await publishes(node)), 'it refuses', patienceMs);
  await until(() => says(node, 'database', takesNoWrites), 'it says what the database is', patienceMs);
  await execute(database.superUrl, `alter database ${database.name} reset default_transaction_read_only`);
  await until(() => allPublish(node), 'it publishes again', patienceMs);
  await becomesReady(node, patienceMs);
}, 240_000);
