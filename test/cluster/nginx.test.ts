// A real nginx before two nodes, configured as deploy/nginx/ ships it: both transports pass, nothing is held back,
// clients may come back at any node, and a node that drains or dies is noticed by nobody.

import { afterAll, afterEach, describe, expect, test } from 'bun:test';
import { EventClient, WebSocketClient } from '../support/clients.ts';
import { Load } from '../support/load.ts';
import { startNginx, type Nginx, type NginxOptions } from '../support/nginx.ts';
import { createDatabase, freePort } from '../support/postgres.ts';
import { startServer, type Environment, type RunningServer } from '../support/process.ts';
import { seed } from '../support/random.ts';
import { until } from '../support/tcp-client.ts';
import { sample } from '../wire/wire.ts';

const clients = new Set<{ cut(): unknown }>();
const proxies = new Set<Nginx>();
const nodes = new Map<string, RunningServer>();
let database: Promise<{ url: string }> | undefined;
let load: Load | undefined;

afterEach(async () => {
  await load?.end();
  load = undefined;
  for (const client of clients) client.cut();
  clients.clear();
  for (const proxy of proxies) await proxy.close();
  proxies.clear();
}, 60_000);

afterAll(async () => {
  for (const node of nodes.values()) await node.stop();
}, 60_000);

/** A node by its name, which keeps its port over restarts. */
async function startNode(name: string, given: Environment = {}): Promise<RunningServer> {
  const { url } = await (database ??= createDatabase({ migrated: true }));
  const node = await startServer({
    RATE_LIMIT_PER_MINUTE: '0',
    BROADCAST_INTERVAL: '0',
    LOG_FORMAT: 'json',
    NODE_ID: name,
    DATABASE_URL: url,
    SHUTDOWN_TIMEOUT: '3',
    PORT: String(nodes.get(name)?.port ?? (await freePort())),
    ...given,
  });
  nodes.set(name, node);
  return node;
}

async function node(name: string): Promise<RunningServer> {
  return nodes.get(name) ?? startNode(name);
}

async function startProxy(options: Partial<NginxOptions> = {}): Promise<Nginx> {
  const running = [await node('a'), await node('b')];
  const nginx = await startNginx({ ports: running.map(({ port }) => port), ...options });
  proxies.add(nginx);
  return nginx;
}

async function openSocket({ url }: { url: string }): Promise<{ socket: WebSocketClient; node: string }> {
  const socket = await WebSocketClient.open(url);
  clients.add(socket);
  return { socket, node: (await socket.next('welcome')).node ?? '' };
}

async function openStream({ url }: { url: string }, channels: string): Promise<{ stream: EventClient; node: string }> {
  const stream = await EventClient.open(url, { query: `channels=${channels}` });
  clients.add(stream);
  return { stream, node: (await stream.next('welcome')).frame.node ?? '' };
}

function publish({ url }: { url: string }, channel: string, data: unknown, key?: string): Promise<Response> {
  return fetch(`${url}/realtime/publish`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key === undefined ? {} : { 'idempotency-key': key }) },
    body: JSON.stringify({ channel, data }),
    signal: AbortSignal.timeout(10_000),
  });
}

describe('through nginx', () => {
  test.each(['upstream.conf', 'upstream-ip-hash.conf', 'upstream-random.conf'])(
    '%s: both transports pass, and what one node takes comes out of the other at once',
    async (upstream) => {
      const nginx = await startProxy({ upstream });
      const channel = `pass:${upstream}`;
      const { socket } = await openSocket(nginx);
      expect(await socket.request({ type: 'subscribe', channel })).toMatchObject({ type: 'subscribed' });
      const { stream } = await openStream(nginx, channel);
      expect(stream.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
      expect(stream.headers.get('cache-control')).toBe('no-cache, no-transform');
      for (let number = 1; number <= 5; number++) {
        // One at a time: what is held back would never come.
        expect((await publish(nginx, channel, number)).status).toBe(200);
        expect(await socket.next('message')).toMatchObject({ offset: number, data: number });
        expect((await stream.next('message')).frame).toMatchObject({ offset: number, data: number });
      }
      const large = 'é'.repeat(30_000);
      await socket.request({ type: 'publish', channel, data: large });
      expect((await stream.next('message')).frame).toMatchObject({ offset: 6, data: large });
      expect((await fetch(`${nginx.url}/health/ready`)).status).toBe(200);
      expect((await fetch(`${nginx.url}/metrics`)).status).toBe(404);
      socket.sendText('x'.repeat(65_537));
      expect((await socket.closed).code).toBe(1009);
      // Tokens stand in queries.
      expect(nginx.accesses()).not.toContain('channels=');
    },
  );

  test(`each connection at random at another node: every message once, in order (SEED=${seed})`, async () => {
    const nginx = await startProxy({ upstream: 'upstream-random.conf' });
    const before = await acceptedPerNode();
    load = new Load({
      seed,
      nodes: () => [nginx],
      channels: ['random:a', 'random:b'],
      databaseUrl: await databaseUrl(),
    });
    await load.start();
    for (let moves = 0; moves < 25; moves++) {
      load.moveSome();
      await load.arrives(5);
    }
    await load.finish();
    const counts = (await acceptedPerNode()).map((count, index) => count - (before[index] ?? 0));
    expect(Math.min(...counts)).toBeGreaterThan(5);
  }, 90_000);
});

async function databaseUrl(): Promise<string> {
  return (await (database ??= createDatabase({ migrated: true }))).url;
}

async function acceptedPerNode(): Promise<number[]> {
  const name = 'sobranie_connections_total';
  return Promise.all(['a', 'b'].map(async (each) => sample(await node(each), name)));
}

test(`a node that drains: new clients come to the other, and nobody misses anything (SEED=${seed})`, async () => {
  const nginx = await startProxy();
  const leaving = await node('a');
  load = new Load({ seed, nodes: () => [nginx], channels: ['drain:a'], databaseUrl: await databaseUrl(), readers: 4 });
  await load.start();
  await load.arrives(20);
  // One that stays: while it does, the node is there to be asked.
  const { socket: last } = await openSocket(leaving);
  process.kill(leaving.pid, 'SIGTERM');
  await last.next('drain', 10_000);
  for (let attempt = 0; attempt < 20; attempt++) {
    expect((await openSocket(nginx)).node).toBe('b');
    expect((await openStream(nginx, 'drain:b')).node).toBe('b');
    expect((await publish(nginx, 'drain:b', attempt, `key ${attempt}`)).status).toBe(200);
  }
  expect(await leaving.waitForExit(20_000)).toBe(0);
  await load.arrives(20);
  await startNode('a');
  await until(async () => (await openSocket(nginx)).node === 'a', 'the node is used again', 20_000);
  await load.arrives(20);
  await load.finish();
  expect(nginx.errors()).not.toContain('no live upstreams');
}, 90_000);

test(`a node that is killed -9: the other goes on, and nobody misses anything (SEED=${seed})`, async () => {
  const nginx = await startProxy();
  const doomed = await node('a');
  load = new Load({ seed, nodes: () => [nginx], channels: ['kill:a'], databaseUrl: await databaseUrl(), readers: 4 });
  await load.start();
  await load.arrives(20);
  await doomed.kill9();
  for (let attempt = 0; attempt < 10; attempt++) {
    expect((await openSocket(nginx)).node).toBe('b');
    expect((await openStream(nginx, 'kill:b')).node).toBe('b');
  }
  await load.arrives(20);
  await startNode('a');
  await until(async () => (await openSocket(nginx)).node === 'a', 'the node is used again', 20_000);
  await load.arrives(20);
  await load.finish();
}, 90_000);

if (process.env['LONG'] === '1') {
  test('connections on which nothing happens outlive the proxy and still work', async () => {
    const nginx = await startProxy();
    const { socket } = await openSocket(nginx);
    await socket.request({ type: 'subscribe', channel: 'quiet:a' });
    const { stream } = await openStream(nginx, 'quiet:a');
    const startedAt = performance.now();
    const past = (): boolean => performance.now() - startedAt > 100_000;
    await until(() => past() && stream.comments.length >= 5, 'five comments', 150_000, 200);
    expect(socket.pings.length).toBeGreaterThanOrEqual(3);
    await publish(nginx, 'quiet:a', 'still here');
    expect(await socket.next('message')).toMatchObject({ data: 'still here' });
    expect((await stream.next('message')).frame).toMatchObject({ data: 'still here' });
  }, 200_000);
}
