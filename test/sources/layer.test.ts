// The sync layer is away, then the database: a source waits, and what its messages were to become arrives afterwards, each
// once and in order.

import { expect, test } from 'bun:test';
import postgres from 'postgres';
import { becomesUnready, startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { startCluster } from '../support/postgres.ts';
import { startRedis } from '../support/redis.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { metric } from './source-contract.ts';

patient();

test('Redis under the sync layer killed -9, then PostgreSQL: a source waits, and nothing is lost or doubled', async () => {
  const [broker, layer, cluster] = await Promise.all([
    startRedis({ persist: true }),
    startRedis({ persist: true }),
    startCluster(),
  ]);
  const database = await cluster.createDatabase();
  const rules = new TestRules(
    `{ channels: '*', history: { size: 10_000, seconds: 36_000 } }`,
    {},
    `sources: [{ redisStream: { key: 'orders', field: 'body', url: '${broker.url}', name: 'orders', channel: 'orders' } }]`,
  );
  const node = await startNode({
    DATABASE_URL: database.url,
    REDIS_URL: layer.url,
    CONFIG_FILE: rules.path,
  });
  const sql = postgres(database.url, { max: 1, onnotice: () => undefined });
  let sent = 0;
  const send = async (count: number): Promise<void> => {
    for (; count > 0; count--) await broker.admin.xadd('orders', '*', 'body', String(sent++));
  };
  const published = async (): Promise<number> => {
    const response = await fetch(`${node.url}/realtime/channels/orders/history?limit=1`);
    return response.ok ? ((await response.json()) as { offset: number }).offset : -1;
  };
  await send(200);
  await until(async () => (await published()) === 200, 'the first are published', 60_000, 50);

  await layer.kill9();
  await becomesUnready(node, 60_000);
  const taken = async (): Promise<readonly object[]> => [...(await sql`select messages::int from realtime.sources`)];
  const before = await taken();
  await send(120);
  await node.waitForOutput(/sources pause: the sync layer is away/, 60_000);
  const lag = (): Promise<string | undefined> => metric(node, 'sobranie_source_lag_messages{source="orders"}');
  await until(async () => (await lag()) === '120', 'they wait', 20_000, 50);
  expect(await taken()).toEqual([...before]);
  await layer.start();
  await until(async () => (await published()) === sent, 'all are published', 90_000, 50);

  await cluster.kill9();
  await send(150);
  await cluster.startServer();
  await send(50);
  await until(async () => (await published()) === sent, 'all are published again', 90_000, 50);

  const response = await fetch(`${node.url}/realtime/channels/orders/history?limit=1000`);
  const { messages } = (await response.json()) as { messages: { offset: number; data: number }[] };
  expect(messages.map(({ offset, data }) => [offset, data])).toEqual(
    Array.from({ length: sent }, (_, place) => [place + 1, place]),
  );
  await stopNodes([node]);
  await sql.end({ timeout: 1 });
  await Promise.all([broker.close(), layer.close(), cluster.close()]);
}, 300_000);
