// Faults of who may what that were mended once and must not come back: each test tells its story, against a running
// server.

import { afterAll, afterEach, expect, test } from 'bun:test';
import { readFileSync, writeFileSync } from 'node:fs';
import { WebSocketClient } from '../support/clients.ts';
import { spawnServer, startServer, type Environment, type RunningServer } from '../support/process.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { patient } from '../support/patience.ts';

patient();

const servers: RunningServer[] = [];
const sockets: WebSocketClient[] = [];

afterEach(async () => {
  await Promise.all(sockets.splice(0).map((socket) => socket.cut()));
});

afterAll(async () => {
  await Promise.all(servers.map((server) => server.stop()));
}, 60_000);

async function start(given: Environment): Promise<RunningServer> {
  const quiet = { SYNC: 'memory', BROADCAST_INTERVAL: '0', SHUTDOWN_TIMEOUT: '0', LOG_FORMAT: 'json' };
  const server = await startServer({ ...quiet, ...given });
  servers.push(server);
  return server;
}

async function open(server: RunningServer): Promise<WebSocketClient> {
  const socket = await WebSocketClient.open(server.url);
  sockets.push(socket);
  await socket.next('welcome');
  return socket;
}

// The operator reloads; the file takes long to load, since it asks somebody else first. Meanwhile the operator takes a
// right away and reloads again, which is done at once. When the first reading ended it put its older rules in force
// again, and nobody was told: the right was back until the next reload.
test('rules that took long to read do not undo those that were read later', async () => {
  const rules = new TestRules(`{ channels: 'a:*', allow: { subscribe: 'everyone' } }`);
  const [reads, gate] = [`${rules.path}.reads`, `${rules.path}.gate`];
  const server = await start({ JWT_SECRET: secret, ALLOW_ANONYMOUS: 'true', CONFIG_FILE: rules.path });
  const reload = (): Promise<Response> => fetch(`${server.url}/realtime/reload`, { method: 'POST' });

  // A reload tries the file first, and then reads it: the second time is the one that counts.
  writeFileSync(reads, '');
  rules.writeText(`import { appendFileSync, existsSync, readFileSync } from 'node:fs';
appendFileSync(${JSON.stringify(reads)}, 'x');
const waits = readFileSync(${JSON.stringify(reads)}, 'utf8').length > 1;
while (waits && !existsSync(${JSON.stringify(gate)})) await new Promise((resolve) => setTimeout(resolve, 5));
export default { rules: [{ channels: 'a:*', allow: { subscribe: 'everyone' } }] };
`);
  const earlier = reload();
  await until(() => readFileSync(reads, 'utf8') === 'xx', 'the second reading');
  rules.write(`{ channels: 'a:*', allow: { subscribe: 'nobody' } }`);
  expect((await reload()).status).toBe(200);
  writeFileSync(gate, '');
  expect((await earlier).status).toBe(200);

  const socket = await open(server);
  expect(await socket.request({ type: 'subscribe', channel: 'a:1' })).toMatchObject({ code: 'forbidden' });
});

// The shipped nginx keeps `/metrics` to the inside and counts connects to `/realtime/ws`, each by its name. With a slash
// at the end the names were others to it, and the same to the server: metrics were open, and nobody counted.
test('a path with a slash at its end is nothing that a proxy does not know of', async () => {
  const server = await start({});
  for (const path of ['/metrics', '/health/live', '/swagger/json', '/realtime/channels', '/demo/info']) {
    expect([path, (await fetch(server.url + path)).status]).toEqual([path, 200]);
    expect([path, (await fetch(`${server.url}${path}/`)).status]).toEqual([path, 404]);
  }
  expect((await fetch(`${server.url}/realtime/ws/`)).status).toBe(404);
  expect((await fetch(`${server.url}/realtime/events/?channels=a`)).status).toBe(404);
});

// Settings were read first and the rules after them, so whoever mended a list of faults was given another one.
test('faults of the settings and of the rules are told in one list', async () => {
  const rules = new TestRules(`{ channels: 'a:*', allow: { subscribe: 'evryone' } }`);
  const server = spawnServer({ PORT: 'abc', CONFIG_FILE: rules.path });
  expect(await server.waitForExit()).toBe(78);
  expect(server.stderr()).toContain('2 settings are wrong');
  expect(server.stderr()).toContain('PORT: "abc"');
  expect(server.stderr()).toContain('rules[0].allow.subscribe: "evryone"');
});

// Keys were those of the channel, whoever used them: a user who guessed the key of a publication to come published
// something with it first, and what the backend then sent, or committed in the database, was taken for a repetition.
test('a key that a user has used is still free to others, and to the backend', async () => {
  const rules = new TestRules(`{ channels: 'orders:*', allow: { publish: 'everyone' } }`);
  const server = await start({
    JWT_SECRET: secret,
    API_KEY: 'backend',
    ALLOW_ANONYMOUS: 'true',
    CONFIG_FILE: rules.path,
  });
  const publish = (key: string, token: string): Promise<Response> =>
    fetch(`${server.url}/realtime/publish`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({ channel: 'orders:1', data: 1, key }),
    });
  const [ann, bob] = [await tokenOf({ sub: 'ann' }), await tokenOf({ sub: 'bob' })];
  const nobody = await open(server);
  const offsets = [];
  for (const token of [ann, bob, 'backend', ann, bob, 'backend']) {
    offsets.push(((await (await publish('paid', token)).json()) as { offset: number }).offset);
  }
  const sent = await nobody.request({ type: 'publish', channel: 'orders:1', data: 1, key: 'paid' });
  expect([...offsets, sent.offset]).toEqual([1, 2, 3, 1, 2, 3, 4]);
});

// The rule's function took its time over a publication; the operator disconnected its user meanwhile. The function then
// said yes, and what nobody should have heard any more was published.
test('what is still being decided about is not published by whoever was disconnected meanwhile', async () => {
  const rules = new TestRules(
    `{ channels: 'r:*', allow: { subscribe: 'users', history: 'users' },
       authorize: () => new Promise((resolve) => setTimeout(resolve, 500, true)) }`,
  );
  const server = await start({ JWT_SECRET: secret, API_KEY: 'backend', CONFIG_FILE: rules.path });
  const socket = await WebSocketClient.open(server.url, { query: `token=${await tokenOf({ sub: 'mal' })}` });
  sockets.push(socket);
  await socket.next('welcome');
  socket.send({ type: 'publish', id: 1, channel: 'r:1', data: 'late' });
  await until(
    async () => (await (await fetch(`${server.url}/metrics`)).text()).includes('{type="publish"} 1'),
    'the command',
  );
  const backend = { headers: { authorization: 'Bearer backend' } };
  await fetch(`${server.url}/realtime/users/mal/disconnect`, { method: 'POST', ...backend });
  await until(
    async () => (await (await fetch(`${server.url}/metrics`)).text()).includes('{source="rules",outcome="allowed"} 1'),
    'the answer',
  );
  const history = await fetch(`${server.url}/realtime/channels/r:1/history`, backend);
  expect(await history.json()).toMatchObject({ messages: [] });
});
