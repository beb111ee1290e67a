// Tickets over three real nodes: given out by one, used on another, once, whoever races for it; and what happens while
// the store that they share is away.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { WebSocketClient } from '../support/clients.ts';
import { startNodes, stopNodes } from '../support/nodes.ts';
import { startCluster, type TestCluster } from '../support/postgres.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import { startRedisCluster } from '../support/redis-cluster.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until, wait } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { call, errorOf, post } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

const long = process.env['LONG'] === '1';
const apiKey = 'the-key-of-the-backend-0123456789';
const backend = { authorization: `Bearer ${apiKey}` };

/** What nodes share, and how a test reaches into it. */
interface SharedStore {
  readonly settings: Environment;
  /** All that is kept of tickets, as text. */
  kept(): Promise<string>;
  /** As if 30 seconds had passed for every ticket. */
  endAll(): Promise<void>;
  goAway(): Promise<void>;
  comeBack(): Promise<void>;
  close(): Promise<void>;
}

async function overPostgres(): Promise<SharedStore> {
  const cluster: TestCluster = await startCluster();
  const { url } = await cluster.createDatabase({ migrated: true });
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  return {
    settings: { SYNC: 'postgres', DATABASE_URL: url },
    kept: async () => JSON.stringify(await sql`SELECT * FROM realtime.tickets`),
    endAll: async () => {
      await sql`UPDATE realtime.tickets SET ends_at = statement_timestamp()`;
    },
    goAway: () => cluster.stopServer(),
    comeBack: () => cluster.startServer(),
    close: async () => {
      await sql.end({ timeout: 1 });
      await cluster.close();
    },
  };
}

async function overRedis(): Promise<SharedStore> {
  const redis: TestRedis = await startRedis();
  const cluster: TestCluster = await startCluster();
  const { url } = await cluster.createDatabase({ migrated: true });
  const keys = (): Promise<string[]> => redis.admin.keys('sobranie:ticket:*');
  return {
    settings: { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: url },
    kept: async () => {
      const names = await keys();
      return names.length === 0 ? '' : names.join() + (await redis.admin.mget(names)).join();
    },
    endAll: async () => {
      for (const key of await keys()) await redis.admin.pexpire(key, 1);
      await until(async () => (await keys()).length === 0, 'Redis has forgotten the tickets', 5_000, 10);
    },
    goAway: () => redis.kill9(),
    comeBack: () => redis.start(),
    close: async () => {
      await redis.close();
      await cluster.close();
    },
  };
}

async function ticketFrom(node: RunningServer, session: object = { user: 'ann' }): Promise<string> {
  const answer = await post(node, '/realtime/ticket', session, backend);
  expect(answer.status).toBe(200);
  return (answer.body as { ticket: string }).ticket;
}

/** The user's name, or the reason of the close. */
async function enter(node: RunningServer, ticket: string): Promise<string | null | undefined> {
  const socket = await WebSocketClient.open(node.url, { query: `token=${ticket}`, timeoutMs: 15_000 });
  const closed = socket.closed.then(({ code, reason }) => `${code} ${reason}`);
  const welcome = socket.next('welcome', 15_000).then(({ user }) => user);
  const outcome = await Promise.race([closed, welcome.catch(() => closed)]);
  await socket.cut();
  return outcome;
}

async function raceFor(ticket: string, nodes: readonly RunningServer[]): Promise<void> {
  const racers = Array.from({ length: 20 }, (_, index) => nodes[index % nodes.length]).filter(
    (node) => node !== undefined,
  );
  const outcomes = await Promise.all(racers.map((node) => enter(node, ticket)));
  expect(outcomes.filter((outcome) => outcome === 'ann')).toHaveLength(1);
  expect(outcomes.filter((outcome) => outcome === '1008 unauthorized')).toHaveLength(19);
}

describe.each([
  ['postgres', overPostgres],
  ['redis', overRedis],
] as const)('tickets over three nodes, SYNC=%s', (_name, open) => {
  let store: SharedStore;
  let nodes: RunningServer[];
  beforeAll(async () => {
    store = await open();
    nodes = await startNodes(3, () => ({ ...store.settings, JWT_SECRET: secret, API_KEY: apiKey }));
  }, 90_000);
  afterAll(async () => {
    await stopNodes(nodes);
    await store.close();
  }, 60_000);

  const nodeAt = (index: number): RunningServer => {
    const node = nodes[index % nodes.length];
    if (node === undefined) throw new Error('there is no node');
    return node;
  };

  test('given out by one node, it opens a connection on another, with all that it says', async () => {
    const token = await tokenOf({ sub: 'ann', channels: { 'chat:*': ['subscribe'] } });
    const answer = await call(nodeAt(0), '/realtime/ticket', {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
    });
    const { ticket } = answer.body as { ticket: string };
    const socket = await WebSocketClient.open(nodeAt(1).url, { query: `token=${ticket}&channels=chat:1,posts` });
    expect((await socket.next('welcome')).user).toBe('ann');
    expect((await socket.next('subscribed')).channel).toBe('chat:1');
    expect(await socket.next('error')).toMatchObject({ channel: 'posts', code: 'forbidden' });
    await socket.cut();
    for (const node of nodes) expect(await enter(node, ticket)).toBe('1008 unauthorized');
  });

  test('twenty who race for it on all nodes: one gets in, and so again and again', async () => {
    for (let round = 0; round < (long ? 100 : 8); round++) await raceFor(await ticketFrom(nodeAt(round)), nodes);
  });

  test('what is kept opens nothing, and is gone once it was used', async () => {
    const ticket = await ticketFrom(nodeAt(0), { user: 'kept-user' });
    const kept = await store.kept();
    expect(kept).toContain('kept-user');
    expect(kept).not.toContain(ticket.slice('ticket_'.length));
    expect(await enter(nodeAt(2), ticket)).toBe('kept-user');
    expect(await store.kept()).not.toContain('kept-user');
  });

  test('too late is too late on every node', async () => {
    const tickets = await Promise.all(nodes.map((node) => ticketFrom(node)));
    await store.endAll();
    for (const [index, ticket] of tickets.entries()) {
      expect(await enter(nodeAt(index + 1), ticket)).toBe('1008 unauthorized');
    }
  });

  test('while the store is away nobody gets one or in by one, tokens work, and it passes', async () => {
    const ticket = await ticketFrom(nodeAt(0));
    await store.goAway();
    const startedAt = performance.now();
    expect(await enter(nodeAt(1), ticket)).toBe('1013 unavailable');
    const [asked, stream] = await Promise.all([
      post(nodeAt(0), '/realtime/ticket', { user: 'ann' }, backend),
      call(nodeAt(2), `/realtime/events?channels=${encodeURIComponent('user:ann')}&token=${ticket}`),
    ]);
    // Two seconds at most for each of two in a row, and what a busy machine adds.
    expect(performance.now() - startedAt).toBeLessThan(8_000);
    for (const answer of [asked, stream]) {
      expect([answer.status, errorOf(answer.text)]).toMatchObject([503, { code: 'unavailable', retryable: true }]);
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
    }
    expect(await enter(nodeAt(1), await tokenOf({ sub: 'bob' }))).toBe('bob');
    await store.comeBack();
    // Each node comes back in its own time.
    const works = async (node: number): Promise<boolean> => {
      const answer = await post(nodeAt(0), '/realtime/ticket', { user: 'ann' }, backend);
      if (answer.status !== 200) return false;
      return (await enter(nodeAt(node), (answer.body as { ticket: string }).ticket)) === 'ann';
    };
    for (const node of [1, 2]) await until(() => works(node), 'tickets work again', 30_000, 100);
    const socket = await WebSocketClient.open(nodeAt(2).url, { query: `token=${await ticketFrom(nodeAt(0))}` });
    expect((await wait(socket.next('welcome'), 5_000, 'welcome')).user).toBe('ann');
    await socket.cut();
  });
});

if (long) {
  test('over a Redis Cluster each ticket is found wherever its key lies', async () => {
    const [redis, cluster] = await Promise.all([startRedisCluster(), startCluster()]);
    const { url } = await cluster.createDatabase({ migrated: true });
    const settings = { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: url, JWT_SECRET: secret, API_KEY: apiKey };
    const nodes = await startNodes(2, () => settings);
    for (let round = 0; round < 20; round++) {
      for (const node of nodes) await raceFor(await ticketFrom(node), nodes);
    }
    await stopNodes(nodes);
    await Promise.all([redis.close(), cluster.close()]);
  }, 120_000);
}
