// Nodes of one cluster as their users see them, real processes over a real sync layer: who comes and goes, questions to
// all of them, and a name that two of them want.

import { afterAll, describe, expect, test } from 'bun:test';
import { SignJWT } from 'jose';
import { Refused, type Frame, type WebSocketClient } from '../support/clients.ts';
import { spawnServer, type Environment, type RunningServer } from '../support/process.ts';
import { createDatabase } from '../support/postgres.ts';
import { startRedis } from '../support/redis.ts';
import { wait } from '../support/tcp-client.ts';
import { call, post, Wire, type WireEnvironment } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

const secret = 'a secret of these tests that is long enough';
const apiKey = 'the-key-of-the-backend-0123456789';
const backend = { authorization: `Bearer ${apiKey}` };

function tokenOf(user: string, channels: Record<string, readonly string[]>): Promise<string> {
  return new SignJWT({ sub: user, channels })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h')
    .sign(new TextEncoder().encode(secret));
}

interface NodesChange {
  readonly event: 'up' | 'down';
  readonly node: string;
  readonly at: number;
  readonly nodes: readonly { readonly node: string; readonly connections: number; readonly since: number }[];
}

/** The next change of this node; those of others are passed over. */
async function changeOf(watcher: WebSocketClient, node: string, timeoutMs: number): Promise<NodesChange> {
  for (const deadline = Date.now() + timeoutMs; ;) {
    const { data } = await watcher.next('message', Math.max(1, deadline - Date.now()));
    const change = data as NodesChange;
    if (change.node === node) return change;
  }
}

/** Every change that the log holds of this node, in order. */
async function historyOf(watcher: WebSocketClient, node: string): Promise<string[]> {
  const { messages = [] } = await watcher.request({ type: 'history', channel: '$nodes', limit: 1_000 });
  return messages.flatMap(({ data }: Frame) => {
    const change = data as NodesChange;
    return change.node === node ? [change.event] : [];
  });
}

interface Counted {
  readonly channels: readonly { readonly channel: string; readonly subscribers: number }[];
  readonly incomplete?: readonly string[];
}

async function counted(server: RunningServer, headers = {}): Promise<Counted> {
  return (await call(server, '/realtime/channels', { headers })).body as Counted;
}

function subscribersOf({ channels }: Counted, channel: string): number | undefined {
  return channels.find((each) => each.channel === channel)?.subscribers;
}

const names = (change: NodesChange): string[] => change.nodes.map(({ node }) => node);

const environments: readonly WireEnvironment[] = [
  {
    name: 'postgres',
    durable: true,
    settings: async () => ({ SYNC: 'postgres', DATABASE_URL: (await createDatabase({ migrated: true })).url }),
  },
  // The same over another layer: for the long form.
  ...(process.env['LONG'] === '1' ? [redisEnvironment()] : []),
];

function redisEnvironment(): WireEnvironment {
  return {
    name: 'redis',
    durable: true,
    settings: async () => {
      const [redis, database] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
      return { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: database.url };
    },
  };
}

describe.each(environments)('Nodes, SYNC=$name', (environment) => {
  // The same database for the nodes of the wire and for one that shall not start.
  let given: Promise<Environment> | undefined;
  const settings = (): Promise<Environment> => (given ??= environment.settings());
  const wire = new Wire({ ...environment, settings });
  afterAll(async () => {
    await wire.cutClients();
    await wire.stopServers();
  }, 60_000);
  const first = wire.shared({ NODE_ID: 'first' });
  let watching: Promise<WebSocketClient> | undefined;
  const watch = (): Promise<WebSocketClient> =>
    (watching ??= first().then((server) => wire.subscriber(server, '$nodes')));

  test('one that comes and one that leaves is told once, with all that live', async () => {
    const watcher = await watch();
    const second = await wire.start({ NODE_ID: 'second' });
    const up = await changeOf(watcher, 'second', 15_000);
    expect(up).toMatchObject({ event: 'up', nodes: [{ node: 'first', connections: 1 }, { node: 'second' }] });
    expect(Math.abs(up.at - Date.now())).toBeLessThan(30_000);
    for (const { since } of up.nodes) expect(since).toBeLessThanOrEqual(up.at);
    await second.stop();
    const down = await changeOf(watcher, 'second', 5_000);
    expect(down).toMatchObject({ event: 'down', nodes: [{ node: 'first' }] });
    expect(names(down)).toEqual(['first']);
    expect(await historyOf(watcher, 'second')).toEqual(['up', 'down']);
  }, 60_000);

  test('of two that were killed one is gone within 15 s, told once though two have seen it, one is back at once', async () => {
    const watcher = await watch();
    const third = await wire.start({ NODE_ID: 'third' });
    const killed = [await wire.start({ NODE_ID: 'killed' }), await wire.start({ NODE_ID: 'again' })];
    await changeOf(watcher, 'again', 15_000);
    for (const server of killed) wire.forget(server);
    await Promise.all(killed.map((server) => server.kill9()));
    const killedAt = performance.now();
    // The same name, while the others still take the one that had it for alive.
    await wire.start({ NODE_ID: 'again' });
    const down = await changeOf(watcher, 'killed', 30_000);
    expect(performance.now() - killedAt).toBeLessThan(15_000);
    expect(down).toMatchObject({ event: 'down' });
    expect(names(down)).not.toContain('killed');
    expect(names(down)).toEqual(expect.arrayContaining(['again', 'first', 'third']));
    // What the third one has to say of it comes before its own farewell.
    await third.stop();
    await changeOf(watcher, 'third', 10_000);
    expect(await historyOf(watcher, 'killed')).toEqual(['up', 'down']);
    await expectSoon(async () => (await historyOf(watcher, 'again')).toSorted().join(' '), 'down up up');
  }, 60_000);

  test('a name that is taken is refused, and whoever has it goes on', async () => {
    const server = await first();
    const watcher = await watch();
    const second = spawnServer({ ...(await settings()), NODE_ID: 'first' });
    expect(await second.waitForExit(30_000)).toBe(78);
    expect(second.stderr()).toMatch(/^\s*- NODE_ID: "first" is the name of another node that is running/m);
    expect(second.stdout()).not.toContain('listening');
    expect((await watcher.request({ type: 'ping' })).type).toBe('pong');
    expect((await call(server, '/health/ready')).status).toBe(200);
    expect(await historyOf(watcher, 'first')).toEqual(['up']);
  }, 60_000);

  test('channels are counted over all nodes, however many they are', async () => {
    const [one, two] = [await first(), await wire.start()];
    const channels = Array.from({ length: 900 }, (_, index) => `count:${'x'.repeat(100)}${index}`);
    const shared = wire.channel();
    await wire.subscriber(one, shared);
    await wire.subscriber(one, shared);
    await wire.subscriber(two, shared, ...channels);
    await expectSoon(async () => subscribersOf(await counted(one), shared), 3);
    for (const server of [one, two]) {
      const answers = await Promise.all([counted(server), counted(server), counted(server)]);
      for (const answer of answers) {
        expect(answer.incomplete).toBeUndefined();
        expect(subscribersOf(answer, shared)).toBe(3);
        for (const channel of channels) expect(subscribersOf(answer, channel)).toBe(1);
      }
    }
  }, 60_000);

  test('a node that does not answer is named, and the others are counted', async () => {
    const [one, stopped] = [await first(), await wire.start({ NODE_ID: 'stopped' })];
    const channel = wire.channel();
    await wire.subscriber(one, channel);
    await wire.subscriber(stopped, channel);
    await expectSoon(async () => subscribersOf(await counted(one), channel), 2);
    process.kill(stopped.pid, 'SIGSTOP');
    const answer = await counted(one);
    process.kill(stopped.pid, 'SIGCONT');
    expect(answer.incomplete).toEqual(['stopped']);
    expect(subscribersOf(answer, channel)).toBe(1);
    await expectSoon(async () => subscribersOf(await counted(one), channel), 2);
  }, 60_000);

  if (process.env['LONG'] === '1') {
    test('one that was held up for long is told gone, and up when it is heard again', async () => {
      const watcher = await watch();
      const held = await wire.start({ NODE_ID: 'held' });
      expect((await changeOf(watcher, 'held', 15_000)).event).toBe('up');
      process.kill(held.pid, 'SIGSTOP');
      const down = await changeOf(watcher, 'held', 30_000);
      process.kill(held.pid, 'SIGCONT');
      expect(names(down)).not.toContain('held');
      const up = await changeOf(watcher, 'held', 15_000);
      expect(names(up)).toContain('held');
      expect([down.event, up.event]).toEqual(['down', 'up']);
      // It could not hear the others meanwhile, and does not take them for dead.
      expect(await historyOf(watcher, 'first')).toEqual(['up']);
      expect((await counted(held)).incomplete).toBeUndefined();
    }, 90_000);
  }

  test('a user is disconnected from every node, and nobody else', async () => {
    const keys: Environment = { JWT_SECRET: secret, API_KEY: apiKey };
    const [one, two] = [await wire.start(keys), await wire.start(keys)];
    const user = 'ann/ж & co';
    const path = `/realtime/users/${encodeURIComponent(user)}/disconnect`;
    const channels = { posts: ['subscribe'] };
    const [ann, bob] = [await tokenOf(user, channels), await tokenOf('bob', channels)];
    const sockets = [
      await wire.socket(one, { query: `token=${ann}` }),
      await wire.socket(two, { query: `token=${ann}` }),
    ];
    const stream = await wire.stream(two, { query: `channels=posts&token=${ann}` });
    const others = [
      await wire.socket(one, { query: `token=${bob}` }),
      await wire.socket(two, { query: `token=${bob}` }),
    ];
    for (const socket of [...sockets, ...others]) await socket.next('welcome');
    await stream.next('welcome');
    // Once a count holds the stream, the nodes know of each other.
    await expectSoon(async () => subscribersOf(await counted(one, backend), 'posts'), 1);

    const refused = await post(one, path, {}, { authorization: `Bearer ${ann}` });
    expect(refused.status).toBe(401);
    const answer = await post(one, path, '', backend);
    expect(answer.body).toEqual({ user, connections: 3 });
    for (const socket of sockets) {
      expect(await wait(socket.closed, 5_000, 'the close')).toEqual({ code: 1008, reason: 'disconnected' });
    }
    await wait(stream.closed, 5_000, 'the end of the stream');
    for (const socket of others) expect((await socket.request({ type: 'ping' })).type).toBe('pong');
    const again = await call(one, path, { method: 'POST', headers: backend });
    expect(again.body).toEqual({ user, connections: 0 });
  }, 60_000);
});

describe('A node of its own, SYNC=memory', () => {
  const wire = new Wire({ name: 'memory', durable: false, settings: () => Promise.resolve({ SYNC: 'memory' }) });
  afterAll(async () => {
    await wire.cutClients();
    await wire.stopServers();
  }, 60_000);

  test('is all of its cluster', async () => {
    const server = await wire.start({ NODE_ID: 'alone', JWT_SECRET: secret, API_KEY: apiKey });
    const token = await tokenOf('ann', { posts: ['subscribe'], $nodes: ['subscribe', 'history'] });
    const socket = await wire.socket(server, { query: `token=${token}&channels=posts,$nodes` });
    await socket.next('welcome');
    const { messages = [] } = await socket.request({ type: 'history', channel: '$nodes' });
    expect(messages).toMatchObject([{ data: { event: 'up', node: 'alone', nodes: [{ node: 'alone' }] } }]);
    const { channels, incomplete } = await counted(server, backend);
    expect(channels).toContainEqual({ channel: 'posts', subscribers: 1 });
    expect(incomplete).toBeUndefined();
    const answer = await post(server, '/realtime/users/ann/disconnect', {}, backend);
    expect(answer.body).toEqual({ user: 'ann', connections: 1 });
    expect(await wait(socket.closed, 5_000, 'the close')).toEqual({ code: 1008, reason: 'disconnected' });
  }, 60_000);
});

describe.each([{ SYNC: 'memory' }, 'postgres'] as const)('The channel between nodes (%j)', (given) => {
  const settings = (): Promise<Environment> =>
    given === 'postgres' ? environments[0]!.settings() : Promise.resolve(given);
  const wire = new Wire({ name: 'any', durable: false, settings });
  afterAll(async () => {
    await wire.cutClients();
    await wire.stopServers();
  }, 60_000);

  test('is closed to clients and to backends', async () => {
    const server = await wire.start({ API_KEY: apiKey });
    const socket = await wire.socket(server);
    await socket.next('welcome');
    for (const command of [{ type: 'subscribe' }, { type: 'publish', data: 1 }, { type: 'history' }]) {
      const reply = await socket.request({ ...command, channel: '$control' });
      expect(reply).toMatchObject({ type: 'error', code: 'forbidden', channel: '$control' });
    }
    const stream = await wire.stream(server, { query: 'channels=posts,$control' }).catch((error: unknown) => error);
    expect(stream).toBeInstanceOf(Refused);
    expect((stream as Refused).status).toBe(403);
    const published = await post(server, '/realtime/publish', { channel: '$control', data: {} }, backend);
    expect(published.status).toBe(403);
    const history = await call(server, '/realtime/channels/$control/history', { headers: backend });
    expect(history.status).toBe(403);
    expect(subscribersOf(await counted(server, backend), '$control')).toBeUndefined();
  }, 60_000);
});

/** Asks again until the answer is this one. */
async function expectSoon(ask: () => Promise<unknown>, wanted: unknown): Promise<void> {
  const deadline = Date.now() + 15_000;
  for (;;) {
    const answer = await ask();
    if (answer === wanted) return;
    if (Date.now() > deadline) expect(answer).toBe(wanted);
    await Bun.sleep(50);
  }
}
