// Limits over three real nodes are one limit, by PostgreSQL and by Redis; and while these are away each node goes on
// alone: nobody is locked out, and nobody waits for long.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { Cluster, Redis } from 'ioredis';
import postgres from 'postgres';
import { SharedLimit } from '../../src/limits/shared-limit.ts';
import type { LimitStore } from '../../src/limits/store.ts';
import { connect } from '../../src/database/connect.ts';
import { PostgresLimits } from '../../src/sync/postgres/limits.ts';
import { redisLimits } from '../../src/sync/redis/limits.ts';
import { systemClock } from '../../src/time/clock.ts';
import { Refused, WebSocketClient, type Closing, type Frame } from '../support/clients.ts';
import { startNginx } from '../support/nginx.ts';
import { becomesReady, startNodes, stopNodes } from '../support/nodes.ts';
import { createDatabase } from '../support/postgres.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { startRedis } from '../support/redis.ts';
import { startRedisCluster } from '../support/redis-cluster.ts';
import { until, wait } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { patient } from '../support/patience.ts';

patient();

const limit = 100;
const connectionsMax = 9;

interface Fault {
  readonly name: string;
  readonly begin: () => Promise<void> | void;
  readonly end: () => Promise<void> | void;
}

/** What nodes share, with a proxy before it. */
interface Place {
  readonly settings: Environment;
  readonly faults: readonly Fault[];
  /** Makes the window of this key end in hours, as a clock would that was ahead and has been set back. */
  readonly misdate: (key: string) => Promise<void>;
  readonly close: () => Promise<void>;
}

function networkFaults(proxy: Proxy): Fault[] {
  const end = (): void => {
    proxy.mode = 'forward';
    proxy.cut();
  };
  return [
    {
      name: 'refused',
      begin: () => {
        proxy.mode = 'refuse';
        proxy.cut();
      },
      end,
    },
    {
      name: 'swallowed',
      begin: () => {
        proxy.mode = 'blackhole';
        proxy.swallow();
      },
      end,
    },
  ];
}

const places: Readonly<Record<string, () => Promise<Place>>> = {
  postgres: async () => {
    const database = await createDatabase({ migrated: true });
    const { port } = new URL(database.url);
    const proxy = await startProxy({ port: Number(port) });
    const sql = postgres(database.url, { max: 1, onnotice: () => undefined });
    return {
      settings: { SYNC: 'postgres', DATABASE_URL: proxy.through(database.url) },
      faults: networkFaults(proxy),
      misdate: async (key) => {
        await sql`UPDATE realtime.limits SET ends_at = now() + interval '5 hours' WHERE key = ${`commands:${key}`}`;
      },
      close: async () => {
        await sql.end({ timeout: 1 });
        await proxy.close();
      },
    };
  },
  redis: async () => {
    const [redis, database] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
    const proxy = await startProxy({ port: redis.port });
    return {
      settings: { SYNC: 'redis', REDIS_URL: proxy.through(redis.url), DATABASE_URL: database.url },
      faults: [
        { name: 'killed', begin: () => redis.kill9(), end: () => redis.start() },
        ...networkFaults(proxy).slice(1),
      ],
      misdate: async (key) => {
        expect(await redis.admin.pexpire(`sobranie:limit:commands:${key}`, 5 * 3_600_000)).toBe(1);
      },
      close: async () => {
        await proxy.close();
        await redis.close();
      },
    };
  },
};

describe.each(Object.entries(places))('three nodes over %s', (_name, open) => {
  let place: Place;
  let nodes: RunningServer[];
  let sockets: WebSocketClient[] = [];
  let users = 0;

  beforeAll(async () => {
    place = await open();
    nodes = await startNodes(3, () => ({
      ...place.settings,
      JWT_SECRET: secret,
      RATE_LIMIT_PER_MINUTE: String(limit),
      MAX_CONNECTIONS_PER_USER: String(connectionsMax),
    }));
    for (const node of nodes) await becomesReady(node);
  }, 60_000);
  afterEach(async () => {
    await Promise.all(sockets.map((socket) => socket.cut()));
    sockets = [];
  });
  afterAll(async () => {
    await stopNodes(nodes);
    await place.close();
  }, 60_000);

  function newUser(): string {
    return `user-${process.pid}-${++users}`;
  }

  async function join(node: number, user: string): Promise<WebSocketClient> {
    const query = `token=${await tokenOf({ sub: user, channels: { '*': ['history'] } })}`;
    const socket = await WebSocketClient.open(nodes[node]!.url, { query, timeoutMs: 10_000 });
    sockets.push(socket);
    return socket;
  }

  /** Undefined when it was let in. */
  async function attempt(node: number, user: string): Promise<Closing | undefined> {
    const socket = await join(node, user);
    const welcomed = socket.next('welcome', 10_000).then(
      () => undefined,
      () => socket.closed,
    );
    return wait(welcomed, 12_000, 'an answer');
  }

  /** So many questions at once; the answers. */
  async function ask(socket: WebSocketClient, count: number): Promise<Frame[]> {
    for (let id = 0; id < count; id++) socket.send({ type: 'history', channel: 'ephemeral:a', id });
    const answers: Frame[] = [];
    while (answers.length < count) {
      const frame = await socket.nextAny(10_000);
      if (frame.type !== 'welcome') answers.push(frame);
    }
    return answers;
  }

  function passed(answers: readonly Frame[]): number {
    return answers.filter(({ type }) => type === 'history').length;
  }

  test('one user’s commands over all nodes: exactly the limit', async () => {
    const user = newUser();
    const all = await Promise.all([0, 1, 2, 0].map((node) => join(node, user)));
    const answers = (await Promise.all(all.map((socket) => ask(socket, 60)))).flat();
    expect(passed(answers)).toBe(limit);
    for (const { code, retryAfter } of answers.filter(({ type }) => type === 'error') as LimitError[]) {
      expect(code).toBe('rate_limited');
      expect(retryAfter).toBeGreaterThan(30);
      expect(retryAfter).toBeLessThanOrEqual(60);
    }
    // Nor does another node help whoever comes back.
    expect(passed(await ask(await join(1, user), 5))).toBe(0);
  }, 30_000);

  test('one user’s connections over all nodes', async () => {
    const user = newUser();
    const full = { code: 1013, reason: 'limit_exceeded' };
    for (let open = 0; open < connectionsMax; open++) expect(await attempt(0, user)).toBeUndefined();
    for (const node of [1, 2, 0, 1, 2]) expect(await attempt(node, user)).toEqual(full);
    expect(await attempt(1, newUser())).toBeUndefined();
    await sockets[0]!.cut();
    await until(async () => (await attempt(2, user)) === undefined, 'another one fits', 10_000);
    for (const node of [0, 1, 2]) expect(await attempt(node, user)).toEqual(full);
  }, 30_000);

  test('connections that open everywhere at once: hardly more than the limit', async () => {
    const user = newUser();
    const outcomes = await Promise.all(Array.from({ length: 60 }, (_, index) => attempt(index % 3, user)));
    const open = outcomes.filter((outcome) => outcome === undefined).length;
    expect(open).toBeGreaterThanOrEqual(connectionsMax);
    // Each node lets its even share in without asking, and sees then what the others have.
    expect(open).toBeLessThanOrEqual(2 * connectionsMax);
    expect(await attempt(0, user)).toEqual({ code: 1013, reason: 'limit_exceeded' });
  }, 30_000);

  test('a window that a clock has misdated begins anew: nobody is locked out', async () => {
    const user = newUser();
    expect(passed(await ask(await join(0, user), limit + 10))).toBe(limit);
    await place.misdate(user);
    expect(passed(await ask(await join(1, user), 5))).toBe(5);
  }, 30_000);

  test('while the store is away each node counts alone, and together again afterwards', async () => {
    for (const fault of place.faults) {
      const user = newUser();
      const socket = await join(0, user);
      await fault.begin();
      const startedAt = performance.now();
      expect([fault.name, passed(await ask(socket, limit + 20))]).toEqual([fault.name, limit]);
      // One who comes now waits for nobody either.
      const late = await join(1, newUser());
      expect(passed(await ask(late, 5))).toBe(5);
      expect(performance.now() - startedAt).toBeLessThan(8_000);
      await fault.end();
      const isShared = async (): Promise<boolean> => {
        const another = newUser();
        const [first, second] = [await join(0, another), await join(1, another)];
        await ask(first, limit + 1);
        return passed(await ask(second, 3)) === 0;
      };
      await until(isShared, 'nodes count together again', 30_000, 200);
    }
  }, 90_000);
});

interface LimitError extends Frame {
  readonly retryAfter: number;
}

test('behind nginx as shipped nodes count its clients, whatever they write; and nginx counts before them', async () => {
  const database = await createDatabase({ migrated: true });
  const settings = { SYNC: 'postgres', DATABASE_URL: database.url, MAX_CONNECTIONS_PER_ADDRESS: '4' };
  const nodes = await startNodes(2, () => ({ ...settings, TRUSTED_PROXIES: 'loopback' }));
  for (const node of nodes) await becomesReady(node);
  const ports = nodes.map(({ port }) => port);
  const nginx = await startNginx({ ports });
  const strict = await startNginx({
    ports,
    edits: { 'limit_conn sobranie_connections 10000;': 'limit_conn sobranie_connections 2;' },
  });
  const open: WebSocketClient[] = [];
  const connectTo = async ({ url }: { url: string }, forwarded: string): Promise<WebSocketClient> => {
    const socket = await WebSocketClient.open(url, { headers: { 'X-Forwarded-For': forwarded } });
    open.push(socket);
    return socket;
  };
  try {
    for (let index = 0; index < 4; index++) await (await connectTo(nginx, `203.0.113.${index}`)).next('welcome');
    const closing = await wait((await connectTo(nginx, '203.0.113.99')).closed, 5_000, 'the end');
    expect(closing).toEqual({ code: 1013, reason: 'limit_exceeded' });
    // From a proxy that says so, another client is another one.
    await (await connectTo(nodes[0]!, '203.0.113.99')).next('welcome');
    for (const socket of open.splice(0)) await socket.cut();
    const isWelcome = async (): Promise<boolean> => {
      const socket = await connectTo(strict, 'x').catch(() => undefined);
      const welcomed = socket?.next('welcome').then(
        () => true,
        () => false,
      );
      return (await welcomed) ?? false;
    };
    // As soon as the nodes have noticed that the others are gone.
    for (let index = 0; index < 2; index++) await until(isWelcome, 'there is room again', 10_000, 100);
    const refused = await connectTo(strict, 'x').catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(Refused);
    expect((refused as Refused).status).toBe(429);
  } finally {
    await Promise.all(open.map((socket) => socket.cut()));
    await Promise.all([nginx.close(), strict.close()]);
    await stopNodes(nodes);
  }
}, 60_000);

describe('what a store gives out, to many nodes at once', () => {
  const closing: (() => Promise<unknown> | void)[] = [];
  afterAll(async () => {
    for (const close of closing.reverse()) await close();
  }, 30_000);

  /** `stores`: one of each node. */
  async function givesOut(stores: readonly LimitStore[]): Promise<void> {
    for (const points of [1, 3, 10]) {
      const nodes = stores.map((store) => new SharedLimit({ ...common, name: `n${points}`, store }));
      const asked = Array.from({ length: 240 }, (_, index) => nodes[index % nodes.length]!.fetch('{ann} x', points));
      const slices = await Promise.all(asked);
      expect([points, slices.reduce((sum, { granted }) => sum + granted, 0)]).toEqual([points, limit]);
      for (const { milliseconds } of slices) {
        expect(milliseconds).toBeGreaterThan(50_000);
        expect(milliseconds).toBeLessThanOrEqual(60_000);
      }
    }
  }

  const log = (error: unknown): void => {
    throw error;
  };
  const common = { limit, windowMs: 60_000, clock: systemClock, log };

  test('PostgreSQL: exactly the limit; what is over is deleted', async () => {
    const { url } = await createDatabase({ migrated: true });
    const pools = [1, 2, 3].map((node) => connect(url, { applicationName: `node ${node}`, max: 3 }));
    const stores = pools.map((sql) => new PostgresLimits({ sql, failed: log }));
    closing.push(
      () => stores.forEach((store) => store.close()),
      () => Promise.all(pools.map((sql) => sql.end({ timeout: 1 }))),
    );
    await givesOut(stores);
    const sql = pools[0]!;
    await sql`UPDATE realtime.limits SET ends_at = now() - interval '2 minutes' WHERE key LIKE 'n1:%'`;
    await stores[0]!.forget();
    expect((await sql`SELECT key FROM realtime.limits ORDER BY key`).map(({ key }) => key as string)).toEqual([
      'n10:{ann} x',
      'n3:{ann} x',
    ]);
  }, 30_000);

  test('Redis: exactly the limit', async () => {
    const redis = await startRedis();
    const clients = [1, 2, 3].map(() => new Redis(redis.url, { enableAutoPipelining: true }));
    closing.push(
      () => redis.close(),
      () => clients.forEach((client) => client.disconnect()),
    );
    await givesOut(clients.map((client) => redisLimits(client, 'test')));
  }, 30_000);

  const testLong = process.env['LONG'] === '1' ? test : () => undefined;

  testLong(
    'a Redis Cluster: exactly the limit',
    async () => {
      const cluster = await startRedisCluster();
      const nodes = cluster.ports.map((port) => ({ host: '127.0.0.1', port }));
      const clients = [1, 2, 3].map(() => new Cluster(nodes, { enableAutoPipelining: true }));
      closing.push(
        () => cluster.close(),
        () => clients.forEach((client) => client.disconnect()),
      );
      await givesOut(clients.map((client) => redisLimits(client, 'test')));
    },
    60_000,
  );
});
