// One table over all gateways, each real and configured as deploy/ ships it, before the same two nodes: what a client
// may expect from a node it gets through every one of them.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { connect } from 'node:net';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { EventClient, WebSocketClient, type ReceivedEvent } from '../support/clients.ts';
import { gatewayKinds, shippedFolder, type Gateway } from '../support/gateways.ts';
import { startNodes, startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import { TcpClient, until, wait } from '../support/tcp-client.ts';

patient();

const long = process.env['LONG'] === '1';
/** Longer than the longest silence between two heartbeats, and than every default that ends a stream. */
const idleMs = long ? 200_000 : 32_000;

let nodes: RunningServer[] = [];
let settings: Environment = {};
const gateways = new Map<string, Gateway>();
const idle = new Map<string, { socket: WebSocketClient; stream: EventClient; since: number }>();
const clients = new Set<{ cut(): unknown }>();

const names = gatewayKinds.map(({ name }) => name);

function gateway(name: string): Gateway {
  const found = gateways.get(name);
  if (found === undefined) throw new Error(`${name} was not started`);
  return found;
}

async function openSocket(url: string, options?: Parameters<typeof WebSocketClient.open>[1]): Promise<WebSocketClient> {
  const socket = await WebSocketClient.open(url, options);
  clients.add(socket);
  return socket;
}

async function openStream(url: string, options: Parameters<typeof EventClient.open>[1]): Promise<EventClient> {
  const stream = await EventClient.open(url, options);
  clients.add(stream);
  return stream;
}

function publish(url: string, channel: string, data: unknown, key?: string): Promise<Response> {
  return fetch(`${url}/realtime/publish`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key === undefined ? {} : { 'idempotency-key': key }) },
    body: JSON.stringify({ channel, data }),
    signal: AbortSignal.timeout(10_000),
  });
}

/** The head of the answer to a request whose target is sent as it is, from an address of this machine. */
async function rawRequest(url: string, target: string, headers = '', from = '127.0.0.1'): Promise<string> {
  const { hostname, port, host } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), localAddress: from });
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let answer = '';
  socket.setEncoding('latin1');
  socket.on('data', (chunk) => {
    answer += String(chunk);
    if (answer.includes('\r\n\r\n')) resolve(answer);
  });
  socket.on('error', reject);
  socket.on('close', () => resolve(answer));
  socket.write(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${headers}\r\n`);
  try {
    return await wait(promise, 5_000, `an answer to ${target}`);
  } finally {
    socket.destroy();
  }
}

beforeAll(async () => {
  const { url } = await createDatabase({ migrated: true });
  settings = { SYNC: 'postgres', DATABASE_URL: url, TRUSTED_PROXIES: '127.0.0.1', SHUTDOWN_TIMEOUT: '4' };
  nodes = await startNodes(2, () => settings);
  const ports = nodes.map(({ port }) => port);
  const starting = gatewayKinds.map(async ({ name, start }) => gateways.set(name, await start({ ports })));
  await Promise.all(starting);
  // Opened first and judged last: nothing but heartbeats passes here meanwhile.
  for (const name of names) {
    const socket = await WebSocketClient.open(gateway(name).url);
    await socket.request({ type: 'subscribe', channel: `idle:${name}` });
    const stream = await EventClient.open(gateway(name).url, { query: `channels=idle:${name}` });
    await stream.next('welcome');
    idle.set(name, { socket, stream, since: performance.now() });
  }
}, 120_000);

afterAll(async () => {
  for (const client of clients) client.cut();
  for (const { socket, stream } of idle.values()) await Promise.all([socket.cut(), stream.cut()]);
  for (const each of gateways.values()) await each.close();
  await stopNodes(nodes);
}, 60_000);

describe.each(names)('%s', (name) => {
  test('a WebSocket with a subprotocol, and what is published comes over both transports', async () => {
    const { url } = gateway(name);
    const channel = `pass:${name}`;
    const tcp = await TcpClient.connect(url);
    tcp.write(
      `GET /realtime/ws HTTP/1.1\r\nHost: ${tcp.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
        'Sec-WebSocket-Protocol: sobranie, other\r\n\r\n',
    );
    const head = await tcp.readHead(5_000);
    tcp.cut();
    expect(head.status).toBe(101);
    expect(head.headers.get('sec-websocket-protocol')).toBe('sobranie');
    const socket = await openSocket(url);
    await socket.request({ type: 'subscribe', channel });
    const stream = await openStream(url, { query: `channels=${channel}` });
    await stream.next('welcome');
    expect(stream.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(stream.headers.get('cache-control')).toBe('no-cache, no-transform');
    expect(stream.headers.get('content-encoding')).toBeUndefined();
    const large = 'é'.repeat(30_000);
    for (const data of ['small', large]) {
      expect((await publish(url, channel, data)).status).toBe(200);
      expect(await socket.next('message')).toMatchObject({ data });
      expect((await stream.next('message')).frame).toMatchObject({ data });
    }
    // A frame that is too large closes with the code that says so, and not with the gateway's own end.
    socket.sendText('x'.repeat(80_000));
    expect((await socket.closed).code).toBe(1009);
  });

  test('events leave as they come: no later than without the gateway', async () => {
    const channel = `late:${name}`;
    const arrivals = { direct: new Map<unknown, number>(), through: new Map<unknown, number>() };
    const note = (times: Map<unknown, number>) => (event: ReceivedEvent) => {
      if (event.type === 'message') times.set(event.frame.data, performance.now());
    };
    // Both hear of one node at the same moment, so a busy machine delays both.
    const query = { query: `channels=${channel}` };
    await openStream(nodes[0]!.url, { ...query, onEvent: note(arrivals.direct) });
    await openStream(gateway(name).url, { ...query, onEvent: note(arrivals.through) });
    const count = long ? 500 : 60;
    for (let number = 0; number < count; number++) {
      await publish(nodes[0]!.url, channel, number);
      await until(() => arrivals.through.has(number) && arrivals.direct.has(number), `event ${number}`);
    }
    const late = Array.from(arrivals.through, ([number, at]) => at - (arrivals.direct.get(number) ?? 0));
    late.sort((one, other) => one - other);
    // Held back, each would be 40 ms late and more. One in ten may meet another program's turn.
    expect(late[Math.floor(late.length * 0.9)]).toBeLessThan(20);
  });

  test('nodes learn the client’s address, whatever the client says', async () => {
    const from = '127.0.0.77';
    const channel = `a%20${name}`;
    const before = nodes.map((node) => node.stdout().length);
    await rawRequest(
      gateway(name).url,
      `/realtime/events?channels=${channel}`,
      'X-Forwarded-For: 203.0.113.9\r\n',
      from,
    );
    const logged = () => nodes.map((node, index) => node.stdout().slice(before[index])).join('');
    await until(() => logged().includes('a connection was refused'), 'a line of the log', 5_000);
    const line = /^.*a connection was refused.*$/m.exec(logged())?.[0] ?? '';
    expect(JSON.parse(line)).toMatchObject({ address: from, code: 'bad_channel' });
  });

  const inside = [
    ...['/metrics', '/metrics?a=1', '/metrics/', '/METRICS', '//metrics', '/./metrics', '/swagger/../metrics'],
    ...['/%6detrics', '/metrics%2f', '/swagger/..%2fmetrics', '/swagger/%2e%2e/metrics', '/metrics;a', '/metrics%20'],
  ];
  const twofold = ['/swagger\\..\\metrics', '/swagger%5c..%5cmetrics', '/swagger%5C%2e%2e/metrics', '/\\metrics'];
  test('metrics stay inside, however their address is written', async () => {
    for (const target of [...inside, ...twofold]) {
      const answer = await rawRequest(gateway(name).url, target);
      expect(`${target}: ${/^HTTP\/1\.1 4\d\d/.test(answer) ? 'refused' : answer.slice(0, 400)}`).toBe(
        `${target}: refused`,
      );
    }
  });

  test('a user’s id and a channel’s name arrive as they were sent', async () => {
    for (const user of ['CORP\\ann', 'a/b', '50%', 'a b', 'a?b', 'ä;#']) {
      const part = encodeURIComponent(user);
      const notified = await fetch(`${gateway(name).url}/realtime/users/${part}/notify`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"data": 1}',
      });
      expect([user, notified.status]).toEqual([user, 200]);
      const { channel } = (await notified.json()) as { channel: string };
      const history = await fetch(`${gateway(name).url}/realtime/channels/${encodeURIComponent(channel)}/history`);
      expect(await history.json()).toMatchObject({ channel, complete: true });
    }
  });

  test('no timeout of the recipe is shorter than the longest silence between two heartbeats', () => {
    const texts = readdirSync(join(shippedFolder, name)).map((file) =>
      readFileSync(join(shippedFolder, name, file), 'utf8'),
    );
    const uncommented = texts.join('\n').replace(/(^|\s)#.*$/gm, '');
    for (const pattern of streamTimeouts[name] ?? []) {
      const found = Array.from(uncommented.matchAll(pattern), (match) => Number(match[1]));
      // What is not set has a default, which may be shorter.
      expect(`${pattern}: ${found.length}`).not.toBe(`${pattern}: 0`);
      for (const seconds of found) if (seconds !== 0) expect(seconds).toBeGreaterThanOrEqual(60);
    }
  });
});

/** What ends a stream on which nothing happens; 0 is never. */
const streamTimeouts: Readonly<Record<string, readonly RegExp[]>> = {
  nginx: [/\/realtime\/(?:ws|events) \{[^}]*?proxy_read_timeout (\d+)s/g, /proxy_send_timeout (\d+)s/g],
  haproxy: [/timeout (?:client|server|tunnel) (\d+)s/g],
  // Caddy has none unless one is set.
  caddy: [],
  traefik: [/writeTimeout: (\d+)s/g, /responseHeaderTimeout: (\d+)s/g],
  envoy: [/stream_idle_timeout: (\d+)s/g, /prefix: \/ \}\s+route:\s+cluster: nodes\s+timeout: (\d+)s/g],
};

test(`clients to which nothing was sent for ${idleMs / 1_000} seconds are still there`, async () => {
  for (const [name, { socket, stream, since }] of idle) {
    await until(() => performance.now() - since >= idleMs, 'the time is over', idleMs + 5_000, 100);
    await publish(nodes[1]!.url, `idle:${name}`, name);
    const got = { socket: (await socket.next('message')).data, stream: (await stream.next('message')).frame.data };
    expect(got).toEqual({ socket: name, stream: name });
  }
}, 300_000);

test('a node that drains or is gone: new clients come to the other through every gateway', async () => {
  const [leaving, staying] = [nodes[0]!, nodes[1]!];
  // Who stays keeps the node there to be asked.
  const last = await openSocket(leaving.url);
  process.kill(leaving.pid, 'SIGTERM');
  await last.next('drain', 10_000);
  const arrive = async (name: string, attempt: number): Promise<void> => {
    const { url } = gateway(name);
    const refused = (error: unknown): never => {
      throw new Error(`${name}, attempt ${attempt}: ${String(error)}`);
    };
    const socket = await openSocket(url).catch(refused);
    const stream = await openStream(url, { query: 'channels=drain:a' }).catch(refused);
    const answer = await publish(url, 'drain:a', attempt, `${name} ${attempt}`);
    const reached = {
      socket: (await socket.next('welcome')).node,
      stream: (await stream.next('welcome')).frame.node,
      publish: answer.status,
    };
    expect({ name, ...reached }).toEqual({ name, socket: 'node-2', stream: 'node-2', publish: 200 });
  };
  for (let attempt = 0; attempt < 5; attempt++) await Promise.all(names.map((name) => arrive(name, attempt)));
  expect(await leaving.waitForExit(20_000)).toBe(0);
  await Promise.all(names.map((name) => arrive(name, 5)));
  nodes = [await startNode({ ...settings, NODE_ID: 'node-1', PORT: String(leaving.port) }), staying];
  // A node that is back is used again.
  const usedAgain = async (name: string): Promise<void> => {
    const open = async (): Promise<boolean> => {
      const socket = await openSocket(gateway(name).url);
      return (await socket.next('welcome')).node === 'node-1';
    };
    await until(open, `${name} uses the node that is back`, 20_000, 50);
  };
  await Promise.all(names.map(usedAgain));
}, 90_000);
