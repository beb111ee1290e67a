// Two sync layers on one database: whoever led took every change, the others heard nothing, and both were ready. And a
// node whose schema was dropped stayed ready too.

import { afterEach, expect, test } from 'bun:test';
import postgres from 'postgres';
import type { HealthReport } from '../../src/api/operations.ts';
import { Follower, followerTransports } from '../support/followers.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { startProxy } from '../support/proxy.ts';
import { createDatabase } from '../support/postgres.ts';
import { spawnServer, type Environment, type RunningServer } from '../support/process.ts';
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

/** Resolves with the exit code and what it said, of a server that does not start. */
async function refusal(environment: Environment): Promise<{ code: number; said: string }> {
  // Whoever drains is waited for.
  const server = spawnServer({ DRAIN_WINDOW: '0', ...environment });
  const code = await server.waitForExit(60_000);
  return { code, said: server.stderr() };
}

test('a node of another layer is refused, with both named; without the schema nobody is ready', async () => {
  const [redis, { url }, own] = await Promise.all([
    startRedis(),
    createDatabase({ migrated: true }),
    createDatabase({ migrated: true }),
  ]);
  closers.push(() => redis.close());
  const [first, alone] = await Promise.all([
    startNode({ SYNC: 'postgres', DATABASE_URL: url }),
    startNode({ SYNC: 'memory', DATABASE_URL: own.url }),
  ]);
  closers.push(() => stopNodes([first, alone]));
  for (const node of [first, alone]) await until(async () => (await ready(node)).code === 200, 'it is ready', 60_000);
  const [other, second] = await Promise.all([
    refusal({ SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: url }),
    refusal({ SYNC: 'memory', DATABASE_URL: own.url }),
  ]);
  expect(other.code).toBe(78);
  expect(other.said).toMatch(/SYNC: .* to postgres, while this server's sync layer is redis sobranie/);
  expect(second.code).toBe(78);
  expect(second.said).toMatch(
    /to the memory of process \w+, while this server's sync layer is the memory of process \w+/,
  );

  // A relay of another layer took over all the same: who hears nothing from now on is told.
  const known = await Promise.all(
    [first, alone].flatMap((node) =>
      followerTransports.map(async (transport) => {
        const follower = await Follower.start({ name: transport, url: node.url, channel: 'any', transport });
        closers.push(() => follower.close());
        return follower;
      }),
    ),
  );
  const sql = clientOf(url);
  await Promise.all([sql`select realtime.lead('another')`, clientOf(own.url)`select realtime.lead('another')`]);
  for (const follower of known)
    await until(
      () => follower.gaps > 0,
      () => `${follower.story} has a gap`,
      60_000,
    );
  for (const node of [first, alone])
    await until(async () => (await ready(node)).words.includes('another sync layer'), 'it says so', 60_000);
  await sql`select realtime.lead('postgres')`;
  await until(async () => (await ready(first)).code === 200, 'it is ready again', 60_000);

  await sql`drop schema realtime cascade`;
  await until(
    async () => /schema realtime is gone|of the schema realtime/.test((await ready(first)).words),
    'gone',
    60_000,
  );
  expect((await ready(first)).code).toBe(503);
}, 120_000);

// A server in memory is a layer of its own, so each restart voids what the last one told. It listened before it had done
// that: what it had taken in between was void a moment later, and its clients got a gap that nothing had caused.
test('what a server in memory takes from its first moment on it keeps', async () => {
  const { url } = await createDatabase({ migrated: true });
  await clientOf(url)`select realtime.lead('the memory of another process')`;
  const proxy = await startProxy({ port: Number(new URL(url).port) });
  closers.push(() => proxy.close());
  proxy.delayMs = 50;
  const node = await startNode({ SYNC: 'memory', DATABASE_URL: url, DATABASE_URL_DIRECT: proxy.through(url) }, 60_000);
  closers.push(() => stopNodes([node]));
  const publish = async (): Promise<{ epoch: string; offset: number }> => {
    const body = JSON.stringify({ channel: 'any', data: 1 });
    const headers = { 'content-type': 'application/json' };
    return (await fetch(`${node.url}/realtime/publish`, { method: 'POST', headers, body })).json() as never;
  };
  const first = await publish();
  await until(async () => /relay_leader 1/.test(await (await fetch(`${node.url}/metrics`)).text()), 'it leads', 60_000);
  const sql = clientOf(url);
  const led = async () => (await sql<{ layer: string }[]>`select layer from realtime.log`)[0]?.layer ?? '';
  await until(async () => !(await led()).includes('another'), 'it leads', 60_000);
  // Each readiness looks whose database it is.
  await until(async () => (await ready(node)).code === 200, 'it is ready', 60_000);
  expect(await publish()).toMatchObject({ epoch: first.epoch, offset: 2 });
}, 180_000);

function clientOf(url: string): postgres.Sql {
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  closers.push(() => sql.end({ timeout: 1 }));
  return sql;
}
