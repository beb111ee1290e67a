// A crowd over three nodes that comes, goes, moves and crashes while what the nodes share is lost and comes back, and one
// node is killed: in the end every list, of each node and each client, is the truth, and on the way no client heard a user
// join who was there, or leave who was not. `SEED=…` repeats a run, as far as clocks let it.

import { afterEach, describe, expect, test } from 'bun:test';
import type { Frame } from '../support/clients.ts';
import { startNode, startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, startCluster } from '../support/postgres.ts';
import { Crowd } from '../support/presence-crowd.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import { randomFrom, seed } from '../support/random.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';
import { secret } from '../support/tokens.ts';

patient();

const long = process.env['LONG'] === '1';
const size = long
  ? { users: 300, tabsMax: 4, milliseconds: 60_000, everyMs: 10 }
  : { users: 40, tabsMax: 4, milliseconds: 12_000, everyMs: 25 };

interface Shared {
  readonly settings: Environment;
  /** It is gone at once, and comes back after a while. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

const sleep = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

const engines: Readonly<Record<string, () => Promise<Shared>>> = {
  'Redis, which comes back empty': async () => {
    const [redis, database] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
    return {
      settings: { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: database.url },
      restart: async () => {
        await redis.kill9();
        await sleep(1_000);
        await redis.start();
      },
      close: async () => {
        await redis.close();
        await database.drop();
      },
    };
  },
  'Redis, which keeps what it had': async () => {
    const [redis, database] = await Promise.all([startRedis({ persist: true }), createDatabase({ migrated: true })]);
    return {
      settings: { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: database.url },
      restart: async () => {
        await redis.kill9();
        await sleep(3_000);
        await redis.start();
      },
      close: async () => {
        await redis.close();
        await database.drop();
      },
    };
  },
  'PostgreSQL, which crashes': async () => {
    const cluster = await startCluster();
    const database = await cluster.createDatabase({ migrated: true });
    return {
      settings: { SYNC: 'postgres', DATABASE_URL: database.url },
      restart: async () => {
        await cluster.kill9();
        await sleep(500);
        await cluster.startServer();
      },
      close: () => cluster.close(),
    };
  },
};

describe(`Presence in trouble (SEED=${seed})`, () => {
  let shared: Shared | undefined;
  let nodes: RunningServer[] = [];
  let crowd: Crowd | undefined;
  afterEach(async () => {
    await crowd?.close();
    await stopNodes(nodes);
    nodes = [];
    await shared?.close();
    shared = undefined;
  }, 60_000);

  async function listOf(node: RunningServer, room: string): Promise<string[]> {
    const response = await fetch(`${node.url}/realtime/channels/${room}/presence?limit=10000`, {
      headers: { authorization: 'Bearer the-key' },
    });
    const { members = [] } = (await response.json()) as Frame;
    return members.map(({ connection }) => connection).toSorted();
  }

  test.each(Object.keys(engines))(
    'over %s',
    async (name) => {
      shared = await engines[name]?.();
      const settings: Environment = {
        ...shared?.settings,
        JWT_SECRET: secret,
        API_KEY: 'the-key',
        ROLE: 'ws,api',
        CONFIG_FILE: new URL('../support/everything.config.ts', import.meta.url).pathname,
      };
      nodes = await startNodes(3, () => settings);
      const random = randomFrom(seed);
      const rooms = long ? ['room:a', 'room:b', 'room:c'] : ['room:a', 'room:b'];
      crowd = new Crowd({ users: size.users, tabsMax: size.tabsMax, rooms, nodes: () => nodes, random });

      const startedAt = performance.now();
      const trouble = (async () => {
        await sleep(size.milliseconds * 0.3);
        await shared?.restart();
        await sleep(size.milliseconds * 0.3);
        const [victim] = nodes.splice(1, 1);
        await victim?.kill9();
        nodes.push(await startNode({ ...settings, NODE_ID: 'node-4' }));
      })();
      while (performance.now() - startedAt < size.milliseconds) {
        crowd.step();
        await sleep(size.everyMs * 2 * random());
      }
      await trouble;

      const { all } = crowd;
      let differs = '';
      const agrees = async (): Promise<boolean> => {
        for (const room of rooms) {
          const truth = crowd?.truth(room)?.join();
          if (truth === undefined) differs = `${room}: somebody is on the way in`;
          if (truth === undefined) return false;
          for (const [index, node] of nodes.entries()) {
            const listed = (await listOf(node, room)).join();
            if (listed !== truth) differs = `${room}, node ${index}: ${listed} is not ${truth}`;
            if (listed !== truth) return false;
          }
          const wrong = all.find((tab) => tab.room === room && tab.believed?.join() !== truth);
          if (wrong !== undefined) differs = `${room}, ${wrong.user}: ${wrong.believed?.join()} is not ${truth}`;
          if (wrong !== undefined) return false;
        }
        return true;
      };
      await until(agrees, () => `every list is the truth; ${differs}`, 45_000, 250);
      expect(crowd.everyone.flatMap(({ user, faults }) => faults.map((fault) => `${user}: ${fault}`))).toEqual([]);
      const entries = crowd.everyone.reduce((sum, tab) => sum + tab.entries, 0);
      // How many come and go in that time is the machine's to say; that they do is what the lists were held against.
      expect(entries).toBeGreaterThan(crowd.size);
      const fresh = crowd.everyone.filter(({ freshLists }) => freshLists > 0).length;
      expect(crowd.size).toBeGreaterThan(10);
      expect(fresh).toBeGreaterThan(0);
    },
    long ? 300_000 : 120_000,
  );
});
