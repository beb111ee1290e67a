// A real nginx before two nodes, configured as deploy/nginx/ ships it: both transports pass, nothing is held back,
// clients may come back at any node, and a node that drains or dies is noticed by nobody.

import { afterAll, afterEach, describe, expect, test } from 'bun:test';
import { EventClient, Refused, WebSocketClient, type Frame } from '../support/clients.ts';
import { Load, type LoadOptions } from '../support/load.ts';
import { startNginx, type Nginx, type NginxOptions } from '../support/nginx.ts';
import { createDatabase, freePort } from '../support/postgres.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { seed } from '../support/random.ts';
import { startRedis } from '../support/redis.ts';
import { TcpClient, until } from '../support/tcp-client.ts';
import { sample } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

const clients = new Set<{ cut(): unknown }>();
const proxies = new Set<Nginx>();
let load: Load | undefined;

afterEach(async () => {
  await load?.end();
  load = undefined;
  for (const client of clients) client.cut();
  clients.clear();
  for (const proxy of proxies) await proxy.close();
  proxies.clear();
}, 60_000);

/** Two nodes over one sync layer, each started when it is first asked for. */
class Pair {
  readonly #sync: string;
  readonly #nodes = new Map<string, RunningServer>();
  #settings: Promise<{ DATABASE_URL: string; REDIS_URL?: string }> | undefined;

  constructor(sync: string) {
    this.#sync = sync;
  }

  settings(): Promise<{ DATABASE_URL: string; REDIS_URL?: string }> {
    return (this.#settings ??= this.#prepare());
  }

  async node(name: string): Promise<RunningServer> {
    return this.#nodes.get(name) ?? this.start(name);
  }

  /** Keeps its port over restarts. */
  async start(name: string): Promise<RunningServer> {
    const port = this.#nodes.get(name)?.port ?? (await freePort());
    const quiet = {
      RATE_LIMIT_PER_MINUTE: '0',
      SUBSCRIBES_PER_MINUTE: '0',
      BROADCAST_INTERVAL: '0',
      LOG_FORMAT: 'json',
      SHUTDOWN_TIMEOUT: '3',
    };
    const own = { NODE_ID: name, PORT: String(port), SYNC: this.#sync };
    const node = await startServer({ ...quiet, ...own, ...(await this.settings()) }, 40_000);
    this.#nodes.set(name, node);
    return node;
  }

  async stop(): Promise<void> {
    for (const node of this.#nodes.values()) await node.stop();
  }

  async startProxy(options: Partial<NginxOptions> = {}): Promise<Nginx> {
    const running = [await this.node('a'), await this.node('b')];
    const nginx = await startNginx({ ports: running.map(({ port }) => port), ...options });
    proxies.add(nginx);
    return nginx;
  }

  async startLoad(nginx: Nginx, options: Partial<LoadOptions>): Promise<Load> {
    const { DATABASE_URL: databaseUrl } = await this.settings();
    load = new Load({ seed, nodes: () => [nginx], channels: ['load:a', 'load:b'], databaseUrl, ...options });
    await load.start();
    return load;
  }

  /** Connections that each node has taken. */
  async accepted(): Promise<number[]> {
    const count = async (name: string): Promise<number> => sample(await this.node(name), 'sobranie_connections_total');
    return [await count('a'), await count('b')];
  }

  async #prepare(): Promise<{ DATABASE_URL: string; REDIS_URL?: string }> {
    const { url } = await createDatabase({ migrated: true });
    return this.#sync === 'redis' ? { DATABASE_URL: url, REDIS_URL: (await startRedis()).url } : { DATABASE_URL: url };
  }
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

/** Opens again until it is another node's: the kind of reconnect that sticky sessions would avoid. */
async function elsewhere<T extends { readonly node: string }>(open: () => Promise<T>, before: string): Promise<T> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const opened = await open();
    if (opened.node !== before) return opened;
  }
  throw new Error(`nginx gave 50 connections in a row to ${before}`);
}

function publish({ url }: { url: string }, channel: string, data: unknown, key?: string): Promise<Response> {
  return fetch(`${url}/realtime/publish`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key === undefined ? {} : { 'idempotency-key': key }) },
    body: JSON.stringify({ channel, data }),
    signal: AbortSignal.timeout(10_000),
  });
}

/** The same a second time over Redis: for the long form. */
const syncs = ['postgres', ...(process.env['LONG'] === '1' ? ['redis'] : [])];

describe.each(syncs)('nginx before two nodes, SYNC=%s', (sync) => {
  const pair = new Pair(sync);
  afterAll(() => pair.stop(), 60_000);

  test.each(['upstream.conf', 'upstream-ip-hash.conf', 'upstream-random.conf'])(
    '%s: both transports pass, and what one node takes comes out of the other at once',
    async (upstream) => {
      const nginx = await pair.startProxy({ upstream });
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
      socket.sendText('x'.repeat(72 * 1_024 + 1));
      expect((await socket.closed).code).toBe(1009);
      // Tokens stand in queries.
      expect(nginx.accesses()).not.toContain('channels=');
    },
  );

  test(`each connection at random at another node: every message once, in order (SEED=${seed})`, async () => {
    const nginx = await pair.startProxy({ upstream: 'upstream-random.conf' });
    const before = await pair.accepted();
    const traffic = await pair.startLoad(nginx, {});
    for (let moves = 0; moves < 25; moves++) {
      traffic.moveSome();
      await traffic.arrives(5);
    }
    await traffic.finish();
    const counts = (await pair.accepted()).map((count, index) => count - (before[index] ?? 0));
    expect(Math.min(...counts)).toBeGreaterThan(5);
  }, 90_000);

  test('clients that land on another node each time read one sequence, over either transport', async () => {
    const nginx = await pair.startProxy({ upstream: 'upstream-random.conf' });
    const channel = 'walk:a';
    const { epoch, offset } = (await (await publish(nginx, channel, 0)).json()) as Frame;
    const read: { socket: unknown[]; stream: unknown[] } = { socket: [], stream: [] };
    let position = { epoch, offset };
    let [socketNode, streamNode, lastEventId] = ['', '', ''];
    const open = { query: `channels=${channel}` };
    const { stream: first } = await openStream(nginx, channel);
    lastEventId = first.lastEventId;
    await first.cut();
    for (let round = 0; round < 10; round++) {
      // Half of them before the clients are back, half of them after.
      for (let each = 1; each <= 5; each++) await publish(nginx, channel, round * 10 + each);
      const { socket, node: node1 } = await elsewhere(() => openSocket(nginx), socketNode);
      const { stream, node: node2 } = await elsewhere(async () => {
        const opened = await EventClient.open(nginx.url, { ...open, lastEventId });
        clients.add(opened);
        return { stream: opened, node: (await opened.next('welcome')).frame.node ?? '' };
      }, streamNode);
      [socketNode, streamNode] = [node1, node2];
      expect(await socket.request({ type: 'subscribe', channel, since: position })).toMatchObject({ recovered: true });
      for (let each = 6; each <= 10; each++) await publish(nginx, channel, round * 10 + each);
      for (let each = 1; each <= 10; each++) {
        const message = await socket.next('message');
        position = { epoch: position.epoch, offset: message.offset };
        read.socket.push(message.data);
        const event = await stream.next('message');
        lastEventId = event.lastEventId;
        read.stream.push(event.frame.data);
      }
      await socket.cut();
      await stream.cut();
    }
    const all = Array.from({ length: 100 }, (_, index) => index + 1);
    expect(read).toEqual({ socket: all, stream: all });
  }, 60_000);

  test(`a node that drains: new clients come to the other, and nobody misses anything (SEED=${seed})`, async () => {
    const nginx = await pair.startProxy();
    const leaving = await pair.node('a');
    const traffic = await pair.startLoad(nginx, { readers: 4 });
    await traffic.arrives(20);
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
    await traffic.arrives(20);
    await pair.start('a');
    await until(async () => (await openSocket(nginx)).node === 'a', 'the node is used again', 20_000);
    await traffic.arrives(20);
    await traffic.finish();
    expect(nginx.errors()).not.toContain('no live upstreams');
  }, 90_000);

  test(`a node that is killed -9: the other goes on, and nobody misses anything (SEED=${seed})`, async () => {
    const nginx = await pair.startProxy();
    const doomed = await pair.node('a');
    const traffic = await pair.startLoad(nginx, { readers: 4 });
    await traffic.arrives(20);
    await doomed.kill9();
    for (let attempt = 0; attempt < 10; attempt++) {
      expect((await openSocket(nginx)).node).toBe('b');
      expect((await openStream(nginx, 'kill:b')).node).toBe('b');
    }
    await traffic.arrives(20);
    await pair.start('a');
    await until(async () => (await openSocket(nginx)).node === 'a', 'the node is used again', 20_000);
    await traffic.arrives(20);
    await traffic.finish();
  }, 90_000);

  if (process.env['LONG'] === '1') {
    test('connections on which nothing happens outlive the proxy and still work', async () => {
      const nginx = await pair.startProxy();
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

  // `/x\..\metrics` showed the metrics, and `/realtime\ws` opened a WebSocket past every limit of connects.
  test('addresses that programs read in different ways are refused, and a health check without a host is not', async () => {
    const nginx = await pair.startProxy();
    const statusOf = async (head: string): Promise<number> => {
      const tcp = await TcpClient.connect(nginx.url);
      clients.add(tcp);
      tcp.write(`${head}\r\n\r\n`);
      return (await tcp.readHead()).status;
    };
    const host = 'HTTP/1.1\r\nHost: localhost';
    const upgrade =
      'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
      'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==';
    for (const target of [
      ...['/x\\..\\metrics', '/x%5c..%5Cmetrics', '/a/../metrics', '/a/%2e%2E/metrics', '/./metrics', '/a/..'],
      ...['/realtime\\ws', '/realtime%5cws', '/realtime/./ws', '/realtime/x/../ws', '/realtime/users/../ws'],
    ]) {
      expect([target, await statusOf(`GET ${target} ${host}\r\n${upgrade}`)]).toEqual([target, 400]);
    }
    for (const target of ['/metrics', '//metrics', '/metrics/', '/%6detrics']) {
      expect([target, await statusOf(`GET ${target} ${host}`)]).toEqual([target, 404]);
    }
    expect(await statusOf(`POST /realtime/users/CORP%5Cann/disconnect ${host}\r\nContent-Length: 0`)).toBe(200);
    expect(await statusOf(`GET /realtime/channels?x=\\..%5c ${host}`)).toBe(200);
    expect(await statusOf('GET /health/live HTTP/1.0')).toBe(200);
  });

  test('nodes that all refuse are asked again at once, and their refusals reach the client', async () => {
    const nginx = await pair.startProxy();
    const both = [await pair.node('a'), await pair.node('b')];
    for (const each of both) {
      const { socket } = await openSocket(each);
      process.kill(each.pid, 'SIGTERM');
      await socket.next('drain', 10_000);
    }
    for (let attempt = 0; attempt < 3; attempt++) {
      const socket = await WebSocketClient.open(nginx.url).catch((error: unknown) => error);
      const stream = await EventClient.open(nginx.url, { query: 'channels=a' }).catch((error: unknown) => error);
      for (const refused of [socket, stream]) {
        if (!(refused instanceof Refused)) throw new Error(`not refused: ${String(refused)}`);
        expect(refused.status).toBe(503);
        expect(refused.body).toContain('shutting_down');
      }
    }
  });
});
