// A node that starts before what it needs is there, or while that refuses for the moment. It ended at once.

import { expect, test } from 'bun:test';
import { Redis } from 'ioredis';
import { createDatabase, freePort } from '../support/postgres.ts';
import { spawnServer } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';
import { startRedis } from '../support/redis.ts';
import { patient } from '../support/patience.ts';

patient();

const quiet = { SHUTDOWN_TIMEOUT: '0', BROADCAST_INTERVAL: '0', LOG_FORMAT: 'json' };

test('it waits while Redis takes no client, and starts once it does', async () => {
  const redis = await startRedis();
  const admin = new Redis(redis.url);
  const clients = String(await admin.client('LIST'))
    .trim()
    .split('\n').length;
  await admin.config('SET', 'maxclients', String(clients));
  const { url } = await createDatabase({ migrated: true });
  const server = spawnServer({ ...quiet, SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: url });
  await server.waitForOutput(/waiting for Redis/, 20_000);
  await admin.config('SET', 'maxclients', '1000');
  await server.waitForOutput(/listening on/, 20_000);
  expect(await server.stop()).toBe(0);
  admin.disconnect();
  await redis.close();
}, 60_000);

test('it waits for a database and a Redis that come up later', async () => {
  const [redis, { url }] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
  const proxies = await Promise.all([
    startProxy({ port: redis.port }),
    startProxy({ port: Number(new URL(url).port) }),
  ]);
  for (const proxy of proxies) proxy.mode = 'refuse';
  const [redisProxy, databaseProxy] = proxies;
  const settings = { REDIS_URL: redisProxy.through(redis.url), DATABASE_URL: databaseProxy.through(url) };
  const server = spawnServer({ ...quiet, SYNC: 'redis', ...settings });
  await server.waitForOutput(/waiting for the database/, 20_000);
  databaseProxy.mode = 'forward';
  // A stack said so of Redis, and of the database a sentence.
  await server.waitForOutput(/"cause":"the connection [^"]+","msg":"waiting for Redis"/, 20_000);
  redisProxy.mode = 'forward';
  await server.waitForOutput(/listening on/, 20_000);
  expect(await server.stop()).toBe(0);
  for (const proxy of proxies) await proxy.close();
  await redis.close();
}, 60_000);

// On a busy machine Redis answered after a second, and the start ended with "Command timed out".
test('it waits for a Redis that answers too late', async () => {
  const [redis, { url }] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
  const proxy = await startProxy({ port: redis.port });
  proxy.delayMs = 700;
  const settings = { SYNC: 'redis', REDIS_URL: proxy.through(redis.url), DATABASE_URL: url, NODE_ID: 'late' };
  const server = spawnServer({ ...quiet, ...settings });
  await server.waitForOutput(/waiting for Redis/, 20_000);
  proxy.delayMs = 0;
  await server.waitForOutput(/listening on/, 30_000);
  expect(await server.stop()).toBe(0);
  await proxy.close();
  await redis.close();
}, 60_000);

test.each(['postgres', 'redis'])(
  'with %s it waits for what goes away in the midst of its start',
  async (sync) => {
    const [redis, { url }] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
    const proxies = await Promise.all([
      startProxy({ port: redis.port }),
      startProxy({ port: Number(new URL(url).port) }),
    ]);
    const [redisProxy, databaseProxy] = proxies;
    const settings = {
      SYNC: sync,
      NODE_ID: 'midst',
      LOG_LEVEL: 'debug',
      DATABASE_URL: databaseProxy.through(url),
      ...(sync === 'redis' && { REDIS_URL: redisProxy.through(redis.url) }),
    };
    const server = spawnServer({ ...quiet, ...settings });
    await server.waitForOutput(/database is up to date/, 20_000);
    const waited = server.waitForOutput(/waiting for|lost|listening on/, 20_000);
    for (const proxy of proxies) {
      proxy.mode = 'refuse';
      proxy.cut();
    }
    await waited;
    for (const proxy of proxies) proxy.mode = 'forward';
    await server.waitForOutput(/listening on/, 30_000);
    expect(await server.stop()).toBe(0);
    for (const proxy of proxies) await proxy.close();
    await redis.close();
  },
  60_000,
);

test('what does not pass ends the start at once, and what lasts ends it after a while', async () => {
  const { url } = await createDatabase({ migrated: true });
  const startedAt = performance.now();
  const nowhere = new URL(url);
  nowhere.pathname = '/there-is-no-such-database';
  expect(await spawnServer({ ...quiet, DATABASE_URL: nowhere.href }).waitForExit()).toBe(1);
  expect(performance.now() - startedAt).toBeLessThan(8_000);
  const absent = spawnServer({ ...quiet, DATABASE_URL: `postgres://a:b@127.0.0.1:${await freePort()}/c` });
  expect(await absent.waitForExit()).toBe(1);
  expect(absent.stdout()).toContain('could not start');
}, 60_000);
