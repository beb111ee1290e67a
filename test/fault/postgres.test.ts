// PostgreSQL breaks under load in every way that operators meet, and nothing is lost: each test ends with every message
// accounted for, exactly once and in order. `SEED=…` repeats a run's traffic, `LONG=1` runs the longer forms.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { systemClock } from '../../src/time/clock.ts';
import { connect } from '../../src/database/connect.ts';
import { PostgresListener } from '../../src/sync/postgres/listener.ts';
import { Load, type FinishOptions } from '../support/load.ts';
import { becomesReady, becomesUnready, servesAlone, startNodes, stopNodes } from '../support/nodes.ts';
import { startCluster, type TestCluster, type TestDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { seed } from '../support/random.ts';
import { until } from '../support/tcp-client.ts';
import { answerMsMax, patient } from '../support/patience.ts';

patient();

const long = process.env['LONG'] === '1';

describe(`PostgreSQL breaks under load (SEED=${seed})`, () => {
  let cluster: TestCluster;
  let database: TestDatabase;
  let proxy: Proxy;
  let nodes: RunningServer[] = [];
  let load: Load | undefined;
  let loads = 0;

  beforeAll(async () => {
    cluster = await startCluster();
    database = await cluster.createDatabase({ migrated: true });
    proxy = await startProxy({ port: cluster.port });
    nodes = await startNodes(2, () => ({ SYNC: 'postgres', DATABASE_URL: proxy.through(database.url) }));
  }, 60_000);

  afterEach(async () => {
    await load?.end();
    proxy.mode = 'forward';
  }, 30_000);

  afterAll(async () => {
    await stopNodes(nodes);
    await proxy.close();
    await cluster.close();
  }, 60_000);

  /** Traffic before, during and after the fault, then the books. */
  async function underLoad(fault: (load: Load) => Promise<void>, options: FinishOptions = {}): Promise<Load> {
    const name = `room:${++loads}`;
    load = new Load({
      seed: seed + loads,
      nodes: () => nodes,
      channels: [`${name}-a`, `${name}-b`],
      databaseUrl: database.url,
    });
    await load.start();
    await load.arrives(50);
    await fault(load);
    await load.arrives(50);
    load.moveSome();
    await Promise.all(nodes.map((node) => becomesReady(node)));
    await load.finish(options);
    expect(load.slowestAnswerMs).toBeLessThan(answerMsMax);
    return load;
  }

  async function asSuperuser<T>(work: (sql: postgres.Sql) => Promise<T>): Promise<T> {
    const sql = postgres(database.superUrl, { max: 1, onnotice: () => undefined });
    try {
      return await work(sql);
    } finally {
      await sql.end({ timeout: 1 });
    }
  }

  test('it is restarted', async () => {
    await underLoad(() => cluster.restart());
  }, 60_000);

  test('it is killed and comes back', async () => {
    await underLoad(async () => {
      await cluster.kill9();
      await Promise.all(nodes.map((node) => becomesUnready(node)));
      await Promise.all(nodes.map((node) => servesAlone(node)));
      await cluster.startServer();
    });
  }, 60_000);

  test('every backend is terminated, again and again', async () => {
    await underLoad(async (flowing) => {
      for (let round = 0; round < (long ? 20 : 4); round++) {
        await asSuperuser(
          (sql) => sql`
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = ${database.name} AND pid <> pg_backend_pid()`,
        );
        await flowing.flows(30);
      }
    });
  }, 120_000);

  test('it is stopped for seconds and continued', async () => {
    await underLoad(async () => {
      const continued = stopProcesses(cluster.pid);
      try {
        await Promise.all(nodes.map((node) => becomesUnready(node)));
        await Promise.all(nodes.map((node) => servesAlone(node)));
        // The length of the stop is what is tested; the nodes know of it by now.
        await Bun.sleep(long ? 10_000 : 1_000);
      } finally {
        continued();
      }
    });
  }, 60_000);

  test('the network to it is cut, and stays away for a while', async () => {
    await underLoad(async (flowing) => {
      proxy.mode = 'refuse';
      proxy.cut();
      await Promise.all(nodes.map((node) => becomesUnready(node)));
      await Promise.all(nodes.map((node) => servesAlone(node)));
      // Writers, who reach the database, feel nothing.
      await flowing.flows(100);
      proxy.mode = 'forward';
    });
  }, 60_000);

  // With the times that are shipped, so it takes them.
  test.skipIf(!long)(
    'every connection to it is half open: found within 15 s',
    async () => {
      await underLoad(async () => {
        const swallowedAt = performance.now();
        expect(proxy.swallow()).toBeGreaterThan(4);
        await Promise.all(nodes.map((node) => becomesUnready(node)));
        await Promise.all(nodes.map((node) => servesAlone(node, true)));
        await Promise.all(nodes.map((node) => becomesReady(node, 30_000)));
        expect(performance.now() - swallowedAt).toBeLessThan(15_000);
      });
    },
    90_000,
  );

  test('a session that listens, and those that send, are half open: found in a twentieth of the time shipped', async () => {
    const own = await startProxy({ port: cluster.port });
    const url = own.through(database.url);
    const sql = connect(url, { applicationName: 'half open', max: 2, answerSeconds: 0.5 });
    const told: string[] = [];
    const listener = new PostgresListener(
      {
        connect: () => connect(url, { applicationName: 'half open', max: 1 }),
        sql,
        nodeId: 'half-open',
        clock: systemClock,
        canaryEveryMs: 150,
        deafAfterMs: 400,
      },
      {
        connected: () => told.push('connected'),
        lost: () => told.push('lost'),
        appended: (payload) => told.push(payload),
        envelope: () => undefined,
        peer: () => undefined,
      },
    );
    try {
      await listener.start({ topic: 'half_open', epoch: '' });
      await listener.probe(5_000);
      for (let round = 1; round <= 3; round++) {
        told.length = 0;
        expect(own.swallow()).toBeGreaterThan(1);
        await until(() => told.includes('lost'), 'the loss is noticed');
        await until(() => told.includes('connected') && listener.up, 'it listens again', 10_000);
        await until(
          async () => {
            await asSuperuser((direct) => direct`SELECT pg_notify('half_open_log', ${`${round}`})`);
            return told.includes(`${round}`);
          },
          'it hears',
          10_000,
          50,
        );
        // Through the pool as well, whose connections were swallowed one by one.
        await until(
          () =>
            listener.probe(1_000).then(
              () => true,
              () => false,
            ),
          'what it sends comes back',
          10_000,
        );
      }
    } finally {
      await listener.close();
      await sql.end({ timeout: 0 });
      await own.close();
    }
  }, 60_000);

  test('all of its connections are taken by others', async () => {
    await underLoad(async (flowing) => {
      const others: postgres.Sql[] = [];
      const takeOne = async (): Promise<boolean> => {
        const sql = postgres(database.url, { max: 1, onnotice: () => undefined });
        try {
          await sql`SELECT 1`;
          others.push(sql);
          return true;
        } catch {
          await sql.end({ timeout: 0 });
          return false;
        }
      };
      try {
        // Ours are ended, and others are faster.
        for (let full = false; !full;) full = (await Promise.all(Array.from({ length: 20 }, takeOne))).includes(false);
        await asSuperuser(
          (sql) => sql`
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = ${database.name} AND application_name LIKE 'sobranie%'`,
        );
        for (let index = 0; index < 5; index++) await Promise.all(Array.from({ length: 20 }, takeOne));
        await Promise.all(nodes.map((node) => becomesUnready(node)));
        await Promise.all(nodes.map((node) => servesAlone(node, true)));
      } finally {
        await Promise.all(others.map((sql) => sql.end({ timeout: 1 })));
      }
      await flowing.flows(20);
    });
  }, 90_000);

  test('a fresh copy takes its place: a gap says so', async () => {
    const copy = await startCluster();
    try {
      const fresh = await copy.createDatabase({ migrated: true });
      expect(fresh.name).toBe(database.name);
      const after = await underLoad(
        async () => {
          proxy.retarget({ port: copy.port });
          proxy.cut();
        },
        { gaps: 'allowed' },
      );
      // Each reader is told of each channel that it may have missed some, once.
      const told = after.account.ledgers.map(({ gaps }) => gaps.map(({ channel, reason }) => `${channel} ${reason}`));
      for (const gaps of told) {
        expect(gaps.every((gap) => gap.endsWith('epoch_changed'))).toBe(true);
        expect(new Set(gaps).size).toBe(4);
      }
    } finally {
      proxy.retarget({ port: cluster.port });
      proxy.cut();
      await load?.end();
      await until(() => proxy.open > 0, 'the nodes are back');
      await copy.close();
    }
  }, 90_000);
});

/** Stops the server and all that it started, as a frozen machine does; answers how to go on. */
function stopProcesses(pid: number): () => void {
  const children = Bun.spawnSync(['pgrep', '-P', String(pid)])
    .stdout.toString()
    .trim()
    .split('\n')
    .map(Number);
  const stopped = [pid, ...children];
  for (const each of stopped) process.kill(each, 'SIGSTOP');
  return () => {
    for (const each of stopped) process.kill(each, 'SIGCONT');
  };
}
