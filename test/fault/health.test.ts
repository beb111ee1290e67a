// `/health/ready` of a real node tells the cause of an outage, not just that there is one.

import { expect, test } from 'bun:test';
import type { HealthReport } from '../../src/api/operations.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { startProxy } from '../support/proxy.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

test('an outage of Redis and one of the database are told apart, with cause and begin', async () => {
  const [redis, { url }] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
  const proxy = await startProxy({ port: Number(new URL(url).port) });
  const node = await startNode({ SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: proxy.through(url) });
  const ready = async () => {
    const response = await fetch(`${node.url}/health/ready`);
    return { code: response.status, ...((await response.json()) as HealthReport) };
  };
  expect(await ready()).toMatchObject({ code: 200, status: 'ok' });
  expect((await fetch(`${node.url}/health/started`)).status).toBe(200);

  const cutAt = Date.now();
  await redis.kill9();
  await until(async () => (await ready()).code === 503, 'it is unready');
  await until(
    async () => (await ready()).checks['sync']?.lastError?.message.startsWith('the connection is refused') === true,
    'the cause is known',
  );
  const { checks } = await ready();
  expect(checks['database']).toMatchObject({ ok: true });
  expect(Date.parse(checks['sync']?.since ?? '')).toBeWithin(cutAt - 1, Date.now() + 1);
  expect(JSON.stringify(checks)).not.toMatch(/127\.0\.0\.1|localhost/);
  await redis.start();
  await until(async () => (await ready()).code === 200, 'it is ready again', 20_000);

  proxy.mode = 'refuse';
  proxy.cut();
  await until(
    async () => {
      const { code, checks: seen } = await ready();
      return (
        code === 503 && seen['sync']?.ok === true && /lost|no answer/.test(seen['database']?.lastError?.message ?? '')
      );
    },
    'the database is missed',
    20_000,
  );
  expect((await fetch(`${node.url}/health/started`)).status).toBe(200);
  expect((await fetch(`${node.url}/health/live`)).status).toBe(200);
  proxy.mode = 'forward';
  await until(async () => (await ready()).code === 200, 'it is ready again', 20_000);
  await stopNodes([node]);
  await proxy.close();
  await redis.close();
});
