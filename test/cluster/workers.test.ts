// WORKERS: several processes on one port behave as one server, whichever of them a client meets and whichever dies.

import { afterAll, afterEach, expect, test } from 'bun:test';
import { readdirSync, readFileSync } from 'node:fs';
import postgres from 'postgres';
import { isAlive } from '../../src/embedded/data-lock.ts';
import { EventClient, WebSocketClient } from '../support/clients.ts';
import { Load } from '../support/load.ts';
import { createDatabase } from '../support/postgres.ts';
import { fromSource, spawnServer, startServer, type Environment, type RunningServer } from '../support/process.ts';
import { seed } from '../support/random.ts';
import { until, wait } from '../support/tcp-client.ts';
import { sample, samples } from '../wire/wire.ts';

const quiet = {
  RATE_LIMIT_PER_MINUTE: '0',
  SUBSCRIBES_PER_MINUTE: '0',
  BROADCAST_INTERVAL: '0',
  LOG_FORMAT: 'json',
  NODE_ID: 'm',
  WORKERS: '2',
};
const servers = new Set<RunningServer>();
const clients = new Set<{ cut(): unknown }>();
let load: Load | undefined;

afterEach(async () => {
  await load?.end();
  load = undefined;
  for (const client of clients) client.cut();
  clients.clear();
}, 60_000);

afterAll(async () => {
  for (const server of servers) await server.stop();
}, 60_000);

async function start(given: Environment = {}): Promise<RunningServer> {
  const database = 'DATABASE_URL' in given ? given : { DATABASE_URL: (await createDatabase({ migrated: true })).url };
  const server = await startServer({ ...quiet, SHUTDOWN_TIMEOUT: '2', ...database, ...given }, 40_000, fromSource);
  servers.add(server);
  return server;
}

/** The worker processes that run now. */
function workersOf({ pid }: RunningServer): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => parentOf(name) === pid && commandOf(name).includes('src/main.ts'))
    .map(Number);
}

function readProcess(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    // It has ended since it was listed.
    return '';
  }
}

function parentOf(pid: string): number {
  return Number(/^PPid:\s+(\d+)/m.exec(readProcess(pid, 'status'))?.[1]);
}

function commandOf(pid: string): string {
  return readProcess(pid, 'cmdline');
}

/** One WebSocket to each worker: the kernel chooses, so it is asked until both have one. */
async function socketPerWorker(server: RunningServer): Promise<Map<string, WebSocketClient>> {
  const found = new Map<string, WebSocketClient>();
  await until(
    async () => {
      const socket = await WebSocketClient.open(server.url);
      clients.add(socket);
      const { node = '' } = await socket.next('welcome');
      if (found.has(node)) await socket.close();
      else found.set(node, socket);
      return found.size === 2;
    },
    () => `a connection to each worker; got ${[...found.keys()].join()}`,
    20_000,
  );
  return new Map([...found].sort(([one], [other]) => one.localeCompare(other)));
}

async function gone(pids: readonly number[]): Promise<void> {
  await until(
    () => !pids.some(isAlive),
    () => `the end of ${pids.filter(isAlive).join()}`,
    20_000,
  );
}

test('WORKERS needs a sync layer that reaches other processes', async () => {
  const server = spawnServer({ ...quiet, SYNC: 'memory' });
  expect(await server.waitForExit()).toBe(78);
  expect(server.stderr()).toContain('WORKERS=2 with SYNC=memory');
});

test(`both serve; one that is killed -9 is replaced, and nobody misses anything (SEED=${seed})`, async () => {
  const database = await createDatabase({ migrated: true });
  const server = await start({ DATABASE_URL: database.url });
  load = new Load({ seed, nodes: () => [server], channels: ['a', 'b'], databaseUrl: database.url });
  await load.start();
  await load.arrives(50);
  const sockets = await socketPerWorker(server);
  expect([...sockets.keys()]).toEqual(['m-1', 'm-2']);
  const before = workersOf(server);
  expect(before.length).toBe(2);
  for (const [index, pid] of before.entries()) {
    process.kill(pid, 'SIGKILL');
    const back = new RegExp(`(?:a worker is back[^]*){${index + 1}}`);
    await server.waitForOutput(back, 30_000);
    await load.arrives(50);
  }
  expect([...(await socketPerWorker(server)).keys()]).toEqual(['m-1', 'm-2']);
  await load.finish();
  await load.end();
  const pids = workersOf(server);
  expect(pids.length).toBe(2);
  expect(pids.filter((pid) => before.includes(pid))).toEqual([]);
  expect(await server.stop('SIGTERM', 60_000)).toBe(0);
  await gone(pids);
  expect(server.stdout().match(/listening on/g)).toHaveLength(1);
  expect(server.stdout() + server.stderr()).not.toMatch(/was not handled|was not caught|failed unexpectedly/);
}, 120_000);

/** Waits half an hour for clients to leave; shared by two tests, of which the second ends it. */
let waiting: Promise<RunningServer> | undefined;
const patient = (): Promise<RunningServer> => (waiting ??= start({ SHUTDOWN_TIMEOUT: '1800', DRAIN_WINDOW: '0' }));

test('a worker that is signalled alone is drained and replaced; new clients come to the other meanwhile', async () => {
  const server = await patient();
  const sockets = await socketPerWorker(server);
  for (const socket of sockets.values()) await socket.request({ type: 'subscribe', channel: 'a' });
  const [pid = 0] = workersOf(server);
  process.kill(pid, 'SIGTERM');
  const drained = await Promise.race(
    Array.from(sockets, async ([node, socket]) => {
      await socket.next('drain', 20_000);
      return node;
    }),
  );
  for (let index = 0; index < 10; index++) {
    const stream = await EventClient.open(server.url, { query: 'channels=a' });
    clients.add(stream);
    expect((await stream.next('welcome')).frame.node).not.toBe(drained);
  }
  const leaving = sockets.get(drained);
  expect(await leaving?.request({ type: 'publish', channel: 'a', data: 1 })).toMatchObject({ type: 'published' });
  for (const socket of sockets.values()) expect(await socket.next('message', 10_000)).toMatchObject({ data: 1 });
  await leaving?.close();
  await server.waitForOutput(/a worker is back/, 30_000);
  expect(isAlive(pid)).toBe(false);
  expect([...(await socketPerWorker(server)).keys()]).toEqual(['m-1', 'm-2']);
}, 90_000);

// Each scrape met another worker: counters went up and down, and a rate over them was made up.
test('a scrape answers for both workers, and no counter goes down when one ends', async () => {
  const server = await patient();
  const before = await counted(server);
  const sockets = [...(await socketPerWorker(server)).values()];
  const cut = new Set<WebSocketClient>();
  for (const socket of sockets) {
    await socket.request({ type: 'subscribe', channel: 'sums:a' });
    void socket.closed.then(() => cut.add(socket));
  }
  const publish = async (count: number): Promise<void> => {
    for (let sent = 0; sent < count; sent++) {
      // Each call comes over a connection of its own, and so meets either worker.
      const headers = { 'content-type': 'application/json', connection: 'close' };
      const body = JSON.stringify({ channel: 'sums:a', data: sent });
      expect((await fetch(`${server.url}/realtime/publish`, { method: 'POST', headers, body })).status).toBe(200);
      for (const socket of sockets) await socket.next('message', 10_000);
    }
  };
  const difference = async (): Promise<Record<string, number>> => {
    const now = await counted(server);
    for (const [name, value] of last) expect([name, (now.get(name) ?? 0) >= value]).toEqual([name, true]);
    last = now;
    const since = (name: string) => (now.get(name) ?? 0) - (before.get(name) ?? 0);
    return {
      published: since('sobranie_publications_total{source="api",channel="sums"}'),
      delivered: since('sobranie_messages_sent_total{type="message",channel="sums"}'),
      written: since('sobranie_message_delivery_duration_seconds_count'),
    };
  };
  let last = before;
  await publish(10);
  for (let scrape = 0; scrape < 6; scrape++) {
    expect(await difference()).toEqual({ published: 10, delivered: 20, written: 20 });
  }
  const found = await samples(server);
  expect(found.get('sobranie_ws_connections_active{server_id="m-1"}')).toBeGreaterThan(0);
  expect(found.get('sobranie_ws_connections_active{server_id="m-2"}')).toBeGreaterThan(0);
  expect(found.get('sobranie_relay_leader')).toBe(1);
  expect(found.get('sobranie_database_up')).toBe(1);
  // One that dies keeps what was last seen of it; one that ends in order leaves all that it counted.
  const [killed = 0, drained = 0] = workersOf(server);
  process.kill(killed, 'SIGKILL');
  await server.waitForOutput(/worker ended by itself[^]*a worker is back/, 30_000);
  expect(await difference()).toEqual({ published: 10, delivered: 20, written: 20 });
  await until(() => cut.size === 1, 'the end of its connection');
  const survivor = sockets.filter((socket) => !cut.has(socket));
  expect(survivor).toHaveLength(1);
  sockets.splice(0, sockets.length, ...survivor);
  await publish(5);
  process.kill(drained, 'SIGTERM');
  await survivor[0]?.next('drain', 20_000);
  await survivor[0]?.close();
  await until(() => !isAlive(drained), 'the end of the drained worker', 20_000);
  await until(() => workersOf(server).length === 2, 'its replacement', 20_000);
  expect(await difference()).toEqual({ published: 15, delivered: 25, written: 25 });
}, 90_000);

/** Counters and what histograms counted. */
async function counted(server: RunningServer): Promise<Map<string, number>> {
  const all = await samples(server);
  return new Map([...all].filter(([name]) => /^(?:sobranie|process)_\w+_(?:total|count|bucket)\b/.test(name)));
}

test('on a signal nobody new is let in, workers are drained side by side, a second signal ends it', async () => {
  const server = await patient();
  const [[, first], [, second]] = [...(await socketPerWorker(server))] as [
    [string, WebSocketClient],
    [string, WebSocketClient],
  ];
  const pids = workersOf(server);
  process.kill(server.pid, 'SIGTERM');
  for (const socket of [first, second]) {
    const { deadline = 0 } = await socket.next('drain', 10_000);
    expect(Math.abs(deadline - Date.now() - 1_800_000)).toBeLessThan(10_000);
  }
  await until(async () => (await fetch(`${server.url}/health/ready`)).status === 503, 'ready has turned 503');
  const late = await WebSocketClient.open(server.url);
  expect((await wait(late.closed, 10_000, 'the farewell')).code).toBe(1001);
  await first.close();
  expect(await second.request({ type: 'ping' })).toMatchObject({ type: 'pong' });
  // Signals within half a second are one.
  await until(async () => (await sample(server, 'sobranie_shutdown_duration_seconds')) > 0.8, 'they are two');
  process.kill(server.pid, 'SIGTERM');
  expect((await wait(second.closed, 10_000, 'the farewell')).code).toBe(1001);
  expect(await server.waitForExit(20_000)).toBe(0);
  await gone(pids);
}, 60_000);

// Drained one after another, four workers took four times as long, and the deploy tool killed the last ones.
test('workers drain within one window, all of them together', async () => {
  const server = await start({ SHUTDOWN_TIMEOUT: '1800', DRAIN_WINDOW: '3' });
  const sockets = [...(await socketPerWorker(server)).values()];
  const stream = await EventClient.open(server.url, { query: 'channels=a' });
  clients.add(stream);
  await stream.next('welcome');
  const startedAt = performance.now();
  process.kill(server.pid, 'SIGTERM');
  for (const socket of sockets) expect((await socket.next('drain', 10_000)).after).toBeLessThan(3_000);
  for (const socket of sockets) expect((await wait(socket.closed, 10_000, 'the farewell')).code).toBe(1001);
  expect(await wait(stream.closed, 10_000, 'the end of the stream')).toBe(true);
  expect(await server.waitForExit(20_000)).toBe(0);
  expect(performance.now() - startedAt).toBeLessThan(6_000);
}, 60_000);

test('workers end by themselves when the main process is killed -9, and the port is free for the next start', async () => {
  const database = await createDatabase({ migrated: true });
  const server = await start({ DATABASE_URL: database.url, SHUTDOWN_TIMEOUT: '1800' });
  const sockets = await socketPerWorker(server);
  const pids = workersOf(server);
  servers.delete(server);
  await server.kill9();
  for (const socket of sockets.values()) expect((await wait(socket.closed, 10_000, 'the farewell')).code).toBe(1001);
  await start({ DATABASE_URL: database.url, PORT: String(server.port) });
  await gone(pids);
}, 90_000);

test('workers share the embedded database, which ends after them', async () => {
  const server = await start({ DATABASE_URL: undefined, LOG_FORMAT: 'pretty' });
  const [, url = ''] = await server.waitForOutput(/database +(postgres:\S+)/);
  const sockets = await socketPerWorker(server);
  for (const socket of sockets.values()) await socket.request({ type: 'subscribe', channel: 'posts' });
  const sql = postgres(url, { max: 1 });
  await sql`INSERT INTO posts (title) VALUES ('to both')`;
  await sql.end();
  for (const socket of sockets.values()) {
    expect(await socket.next('message', 10_000)).toMatchObject({ offset: 1, data: { data: { title: 'to both' } } });
  }
  const pids = workersOf(server);
  for (const socket of sockets.values()) await socket.close();
  expect(await server.stop()).toBe(0);
  await gone(pids);
  const refused = postgres(url, { max: 1, connect_timeout: 2 });
  expect(await refused`SELECT 1`.catch((error: unknown) => (error as { code: string }).code)).toBe('ECONNREFUSED');
  await refused.end();
}, 90_000);

if (process.env['LONG'] === '1') {
  test('a stranger gets neither the port nor the name, and a crash loop is told and does not end the server', async () => {
    const database = await createDatabase({ migrated: true });
    const server = await start({ DATABASE_URL: database.url });
    const stranger = spawnServer({ ...quiet, DATABASE_URL: database.url, PORT: String(server.port), NODE_ID: 's' });
    expect(await stranger.waitForExit()).toBe(78);
    expect(stranger.stderr()).toContain(`PORT: ${server.port} is taken by another program`);
    const namesake = spawnServer({ ...quiet, DATABASE_URL: database.url });
    expect(await namesake.waitForExit()).toBe(78);
    expect(namesake.stderr()).toContain('NODE_ID');
    const [, doomed] = workersOf(server);
    let victim = doomed ?? 0;
    for (let death = 1; death <= 5; death++) {
      const others = workersOf(server).filter((pid) => pid !== victim);
      process.kill(victim, 'SIGKILL');
      const next = (): number | undefined => workersOf(server).find((pid) => !others.includes(pid) && pid !== victim);
      await until(() => next() !== undefined, 'a new worker', 30_000);
      victim = next() ?? 0;
    }
    await server.waitForOutput(/ended again and again/);
    await server.waitForOutput(/a worker is back/, 60_000);
    expect([...(await socketPerWorker(server)).keys()]).toEqual(['m-1', 'm-2']);
  }, 180_000);
}
