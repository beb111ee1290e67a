// Two sync layers on one database: whoever led took every change, the others heard nothing, and both were ready. And a
// node whose schema was dropped stayed ready too.

import { afterEach, expect, test } from 'bun:test';
import postgres from 'postgres';
import type { HealthReport } from '../../src/api/operations.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

async function ready(node: RunningServer): Promise<{ code: number; words: string }> {
  const response = await fetch(`${node.url}/health/ready`);
  const { checks } = (await response.json()) as HealthReport;
  const words = Object.values(checks).map(({ ok, lastError }) => (ok ? '' : lastError?.message));
  return { code: response.status, words: words.join(' ') };
}

test('a node of another layer is refused, with both named; without the schema nobody is ready', async () => {
  const [redis, { url }] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
  closers.push(() => redis.close());
  const first = await startNode({ SYNC: 'postgres', DATABASE_URL: url });
  closers.push(() => stopNodes([first]));
  await until(async () => (await ready(first)).code === 200, 'it is ready', 20_000);
  const refused = await startNode({ SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: url }).then(
    (node) => closers.push(() => stopNodes([node])),
    (error: unknown) => String(error),
  );
  expect(refused).toMatch(/to postgres, while this server's sync layer is redis sobranie/);

  // A relay of another layer took over all the same.
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  closers.push(() => sql.end({ timeout: 1 }));
  await sql`select realtime.lead('another')`;
  await until(async () => (await ready(first)).words.includes('another sync layer'), 'it says so', 20_000);
  await sql`select realtime.lead('postgres')`;
  await until(async () => (await ready(first)).code === 200, 'it is ready again', 20_000);

  await sql`drop schema realtime cascade`;
  await until(
    async () => /schema realtime is gone|of the schema realtime/.test((await ready(first)).words),
    'gone',
    20_000,
  );
  expect((await ready(first)).code).toBe(503);
}, 90_000);
