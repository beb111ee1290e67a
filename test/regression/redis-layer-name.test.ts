// Redis keeps the name of the layer, and lost it with its data. A node that started just then gave it another one, and ended
// for good after 15 seconds: "another cluster relays the changes". The nodes of the old name were not ready any more.

import { afterEach, expect, test } from 'bun:test';
import postgres from 'postgres';
import { RedisLayerName } from '../../src/sync/redis/layer-name.ts';
import { systemClock } from '../../src/time/clock.ts';
import { becomesReady, startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { startRedis } from '../support/redis.ts';

patient();

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

test('a node that starts right after Redis lost its data joins the nodes that run', async () => {
  const [redis, { url }] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
  closers.push(() => redis.close());
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  closers.push(() => sql.end({ timeout: 1 }));
  const led = async () => (await sql<{ layer: string }[]>`select layer from realtime.log`)[0]?.layer;

  const settings = { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: url };
  const first = await startNode(settings, 60_000);
  closers.push(() => stopNodes([first]));
  await becomesReady(first, 60_000);
  const before = await led();
  // As the newcomer did before the others had noticed.
  await redis.admin.flushall();
  await redis.admin.set('sobranie:layer', 'newcomer');
  const second = await startNode(settings, 60_000);
  closers.push(() => stopNodes([second]));
  await Promise.all([first, second].map((node) => becomesReady(node, 60_000)));
  expect(await led()).toBe(before);
  expect(`redis sobranie ${await redis.admin.get('sobranie:layer')}`).toBe(before ?? '');
}, 180_000);

test('between two names that one Redis was given, the log of the database decides', async () => {
  const [redis, other] = await Promise.all([startRedis(), startRedis()]);
  closers.push(() => redis.close());
  closers.push(() => other.close());
  const [old, fresh] = [0, 1].map(() => new RedisLayerName(redis.admin, 'sobranie', systemClock)) as [
    RedisLayerName,
    RedisLayerName,
  ];
  const told = await old.confirm(undefined);
  await redis.admin.flushall();
  expect(await fresh.confirm(told)).not.toBe(told);
  // The newcomer took the lead, as no relay of the old name did: then that name is the true one.
  expect(await old.confirm(fresh.current)).toBe(fresh.current);
  await redis.admin.flushall();
  const third = new RedisLayerName(redis.admin, 'sobranie', systemClock);
  expect(await third.confirm(fresh.current)).not.toBe(fresh.current);
  // Nobody took the lead: the name of those that run comes back, and the newcomer takes it.
  expect(await old.confirm(old.current)).toBe(fresh.current);
  expect(await third.confirm(old.current)).toBe(fresh.current);
  // Another Redis is another layer, whatever the log says.
  const stranger = new RedisLayerName(other.admin, 'sobranie', systemClock);
  expect(await stranger.confirm(old.current)).not.toBe(old.current);
  expect(await stranger.confirm(old.current)).not.toBe(old.current);
}, 60_000);
