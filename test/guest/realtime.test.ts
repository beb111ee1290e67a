// The server as a part of an own Elysia app: the same routes and the same promises, in the app's process and under its
// own `listen` and `stop`.

import { afterEach, describe, expect, test } from 'bun:test';
import { Elysia } from 'elysia';
import postgres from 'postgres';
import { Sobranie } from '@sobranie/client';
import { Backend, signToken, watch } from '@sobranie/server';
import { realtime, type RealtimeOptions } from '@sobranie/server/elysia';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { until } from '../support/tcp-client.ts';
import { secret } from '../support/tokens.ts';

patient();

const settings = {
  JWT_SECRET: secret,
  LOG_LEVEL: 'silent',
  DRAIN_WINDOW: '1',
  BROADCAST_INTERVAL: '0',
  HOST: '127.0.0.1',
};
const memory: RealtimeOptions = { database: 'none', settings };
const everything = { '*': ['subscribe', 'publish', 'history', 'presence'] } as const;
const token = (sub: string) => signToken({ sub, channels: everything }, { secret });

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

function appWith(options: RealtimeOptions) {
  const app = new Elysia()
    .onBeforeHandle(({ set }) => void (set.headers['x-app'] = 'mine'))
    .get('/orders', () => 'the app’s own')
    .use(realtime(options))
    .listen({ port: 0, hostname: '127.0.0.1' });
  closing.push(async () => {
    if (app.server !== null) await app.stop(true);
  });
  const url = app.server?.url.href.replace(/\/$/, '') ?? '';
  return { app, url };
}

function clientOf(url: string, transport: 'websocket' | 'sse'): Sobranie {
  const client = new Sobranie(url, { token: () => token(`of ${transport}`), transport, backoffMs: [20, 100] });
  closing.push(() => Promise.resolve(client.close()));
  return client;
}

async function collect(client: Sobranie, channel: string, wanted: number): Promise<unknown[]> {
  const seen: unknown[] = [];
  for await (const event of client.channel(channel).events()) {
    seen.push(event.type === 'message' ? event.data : event.type);
    if (seen.length === wanted) break;
  }
  return seen;
}

describe.each(['websocket', 'sse'] as const)('over %s', (transport) => {
  test('requests before it is up wait, and clients hear what the app publishes', async () => {
    const { app, url } = appWith(memory);
    const client = clientOf(url, transport);
    const heard = collect(client, 'news', 3);
    await until(async () => (await app.decorator.realtime.channels()).length === 1, 'the subscription');
    const { realtime: calls } = app.decorator;
    for (const text of ['one', 'two', 'three']) await calls.publish('news', text);
    expect(await heard).toEqual(['one', 'two', 'three']);
    expect(await calls.user(`of ${transport}`)).toMatchObject({ online: true });
    expect(await (await fetch(`${url}/orders`)).text()).toBe('the app’s own');
  });
});

test('the database, its tables and rules are those of the options', async () => {
  const database = await createDatabase({ migrated: true });
  closing.push(() => database.drop());
  const sql = postgres(database.url, { onnotice: () => undefined });
  closing.push(() => sql.end({ timeout: 1 }));
  const { app, url } = appWith({
    settings: { ...settings, DATABASE_URL: database.url },
    rules: [{ channels: 'orders', allow: { subscribe: 'nobody' } }, { channels: '*' }],
  });
  await app.decorator.realtime.ready();
  // For every driver, so without settings of the server's own sessions.
  expect(await app.decorator.realtime.databaseUrl()).toBe(database.url);
  await sql`create table orders (id int primary key)`;
  const { text, values } = watch('orders', { channels: ['orders', 'rows:{id}'] });
  await sql.unsafe(text, values as string[]);
  const rows = collect(clientOf(url, 'websocket'), 'rows:7', 1);
  await until(async () => (await app.decorator.realtime.channels()).length === 1, 'the subscription');
  await sql`insert into orders values (7)`;
  expect(await rows).toMatchObject([{ action: 'INSERT', data: { id: 7 } }]);
  const refused = await fetch(`${url}/realtime/events?channels=orders&token=${await token('ann')}`);
  expect(refused.status).toBe(403);
  expect(await refused.json()).toMatchObject({ error: { code: 'forbidden' } });
});

test('calls over HTTP need a key that the settings name; without one only the app itself has one', async () => {
  const { app, url } = appWith(memory);
  const outside = await new Backend(url, { retries: 0 }).publish('news', 1).catch((error: unknown) => error);
  expect(outside).toMatchObject({ code: 'unauthorized', status: 401 });
  expect((await app.decorator.realtime.publish('news', 1)).offset).toBe(1);
  const open = appWith({ ...memory, settings: { ...settings, API_KEY: 'a-key-of-the-backend-of-some-length' } });
  const inside = new Backend(open.url, { apiKey: 'a-key-of-the-backend-of-some-length' });
  expect((await inside.publish('news', 1)).offset).toBe(1);
});

test('the console is there with an admin key, or outside production; the documentation where it is asked for', async () => {
  const adminKey = 'a-key-of-the-operator-of-some-length';
  const keyed = appWith({
    ...memory,
    settings: { ...settings, ADMIN_KEY: adminKey },
    operations: false,
    swagger: true,
  });
  const get = (url: string, path: string, key?: string) =>
    fetch(url + path, { headers: key === undefined ? {} : { authorization: `Bearer ${key}` } });
  expect(await (await get(keyed.url, '/console')).text()).toContain('<title>Sobranie: console</title>');
  expect(await (await get(keyed.url, '/console/sobranie.js')).text()).toContain('Sobranie');
  expect((await get(keyed.url, '/console/state')).status).toBe(401);
  expect(await (await get(keyed.url, '/console/state', adminKey)).json()).toMatchObject({
    sync: 'memory',
    watches: null,
  });
  expect(await (await get(keyed.url, '/console/rates', adminKey)).json()).toMatchObject({
    stepMs: 5_000,
    incomplete: [],
  });
  // Also where the app keeps the scrape for itself.
  expect((await get(keyed.url, '/metrics')).status).toBe(404);
  expect(await (await get(keyed.url, '/console/metrics', adminKey)).text()).toContain('sobranie_sync_up');
  expect(await (await get(keyed.url, '/swagger/json')).json()).toMatchObject({ paths: { '/realtime/publish': {} } });
  expect(await (await get(keyed.url, '/swagger')).text()).toContain('swagger-ui');
  expect((await get(keyed.url, '/swagger/assets/swagger-ui.css')).status).toBe(200);

  const plain = appWith(memory);
  expect((await get(plain.url, '/console')).status).toBe(200);
  const refused = await get(plain.url, '/console/state');
  expect([refused.status, await refused.text()]).toEqual([401, expect.stringContaining('ADMIN_KEY, which is not set')]);
  expect((await get(plain.url, '/swagger')).status).toBe(404);

  const production = { ...settings, NODE_ENV: 'production' };
  const bare = appWith({ ...memory, settings: production });
  expect((await get(bare.url, '/console')).status).toBe(404);
  const guarded = appWith({ ...memory, settings: { ...production, ADMIN_KEY: adminKey } });
  expect((await get(guarded.url, '/console/state', adminKey)).status).toBe(200);
  const off = appWith({ ...memory, settings: { ...settings, ADMIN_KEY: adminKey }, console: false });
  expect((await get(off.url, '/console')).status).toBe(404);
});

test('without a database there is no URL of it', async () => {
  const { app } = appWith(memory);
  await expect(app.decorator.realtime.databaseUrl()).rejects.toThrow("database: 'none'");
});

test('errors of both keep their own forms', async () => {
  const app = new Elysia()
    .onError(({ code }) => (code === 'NOT_FOUND' ? new Response('not here', { status: 404 }) : undefined))
    .use(realtime({ ...memory, operations: false }))
    .listen({ port: 0, hostname: '127.0.0.1' });
  closing.push(() => app.stop(true));
  const url = app.server?.url.href ?? '';
  expect(await (await fetch(`${url}nothing`)).text()).toBe('not here');
  expect(await (await fetch(`${url}health/live`)).text()).toBe('not here');
  const lost = await fetch(`${url}realtime/nothing`);
  expect([lost.status, await lost.json()]).toMatchObject([404, { error: { code: 'bad_request' } }]);
  const bad = await fetch(`${url}realtime/publish`, { method: 'POST', body: '{' });
  expect([bad.status, await bad.json()]).toMatchObject([400, { error: { code: 'bad_request' } }]);
  const large = 'x'.repeat(80_000);
  await expect(app.decorator.realtime.publish('news', large)).rejects.toMatchObject({ code: 'too_large' });
});

test('a frame over the limit closes its connection, as on a server of its own', async () => {
  const { url } = appWith(memory);
  const socket = new WebSocket(`${url.replace('http', 'ws')}/realtime/ws?token=${await token('ann')}`);
  const closed = Promise.withResolvers<number>();
  socket.onmessage = () => socket.send('x'.repeat(80_000));
  socket.onclose = ({ code }) => closed.resolve(code);
  // The runtime answers a frame that is too large by its own close, of one of these two codes.
  expect([1006, 1009]).toContain(await closed.promise);
});

test('stop tells clients when to leave, ends them, and lets the process end', async () => {
  const { app, url } = appWith(memory);
  const client = clientOf(url, 'websocket');
  const states: string[] = [];
  client.on('status', ({ state }) => states.push(state));
  client.connect();
  await until(() => states.includes('connected'), 'the connection');
  const health = () =>
    fetch(`${url}/health/ready`).then(
      (answer) => answer.status,
      () => 0,
    );
  expect(await health()).toBe(200);
  const stopped = app.stop();
  await until(() => states.at(-1) !== 'connected', 'the client leaves');
  await stopped;
  expect(await health()).toBe(0);
  await expect(app.decorator.realtime.publish('news', 1)).rejects.toMatchObject({ code: 'unavailable' });
  // Again it does nothing.
  await app.decorator.realtime.stop();
});

test('what is wrong with the options is thrown where they are named, all of it', () => {
  const faulty = () =>
    realtime({
      database: 'none',
      rules: [{ channels: 'a b' }],
      settings: { JWT_SECRET: 'short', MAX_MESSAGE_BYTES: 'much', JTW_SECRET: secret },
    });
  for (const part of ['rules[0].channels', 'JWT_SECRET', 'MAX_MESSAGE_BYTES', 'JTW_SECRET']) {
    expect(faulty).toThrow(part);
  }
  expect(() => realtime({ rules: [] })).toThrow('at least one rule');
  const plugin = realtime(memory);
  new Elysia().use(plugin);
  expect(() => new Elysia().use(plugin)).toThrow('twice');
  const nested = new Elysia().use(new Elysia().use(realtime(memory)));
  expect(() => nested.listen(0)).toThrow('the app that listens');
  void nested.server?.stop(true);
});

test('a database that cannot be reached: answers say so, and it is asked again', async () => {
  const { app, url } = appWith({ settings: { ...settings, DATABASE_URL: 'postgres://nobody:wrong@127.0.0.1:1/none' } });
  const waiting = fetch(`${url}/realtime/channels`).then(
    (answer) => answer.status,
    () => 0,
  );
  expect(await (await fetch(`${url}/orders`)).text()).toBe('the app’s own');
  const first = await Promise.race([waiting, Bun.sleep(200).then(() => 'waits')]);
  expect(['waits', 503]).toContain(first);
  await app.server?.stop(true);
});
