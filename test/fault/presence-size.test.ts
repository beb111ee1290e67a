// A channel with far more members than any list shows. They belong to a node that dies: the others take all of them in and
// let all of them go, and whoever is beside goes on as if nothing were there.

import { afterEach, describe, expect, test } from 'bun:test';
import { createMember } from '../../src/presence/member.ts';
import type { Change, PresenceEvents, PresenceStore } from '../../src/presence/store.ts';
import { WebSocketClient, type Frame } from '../support/clients.ts';
import { startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { openPostgresPresence } from '../support/postgres-harness.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import { openRedisPresence } from '../support/redis-presence-harness.ts';
import { startRedis } from '../support/redis.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';

patient();

const size = process.env['LONG'] === '1' ? 100_000 : 20_000;
const batch = 200;
const channel = 'stadium';

interface Opened {
  readonly store: PresenceStore;
  close(): Promise<void>;
}

interface Engine {
  readonly settings: Environment;
  /** A further node, of which there is nothing but its store. */
  open(events: PresenceEvents): Promise<Opened>;
  close(): Promise<void>;
}

const engines: Readonly<Record<string, () => Promise<Engine>>> = {
  redis: async () => {
    const [redis, database] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
    return {
      settings: { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: database.url },
      open: (events) => openRedisPresence(redis.url, 'sobranie', 'another', events),
      close: async () => {
        await redis.close();
        await database.drop();
      },
    };
  },
  // An index that was of no use made the removal of a dead node's members square: 20 ms for each of so many.
  postgres: async () => {
    const database = await createDatabase({ migrated: true });
    return {
      settings: { SYNC: 'postgres', DATABASE_URL: database.url },
      open: (events) => openPostgresPresence(database.url, 'another', events),
      close: () => database.drop(),
    };
  },
};

/** Counts members as a client does: by the last list, and by what was pushed after it. */
class Count {
  members = 0;
  version = 0;
  lists = 0;
  readonly holes: string[] = [];

  take(frame: Frame): void {
    const { type, version = 0, count = 0, left } = frame;
    if (type === 'presence') {
      this.members = count;
      this.version = version;
      this.lists++;
    }
    if (!['join', 'leave', 'update'].includes(type) || version <= this.version) return;
    if (version !== this.version + 1) this.holes.push(`${type} ${version} after ${this.version}`);
    this.version = version;
    if (type === 'join') this.members++;
    if (type === 'leave' || left !== undefined) this.members--;
  }
}

describe.each(Object.keys(engines))(`A channel with ${size} members over %s`, (name) => {
  let engine: Engine | undefined;
  let nodes: RunningServer[] = [];
  let another: Opened | undefined;
  afterEach(async () => {
    await another?.close();
    await stopNodes(nodes);
    nodes = [];
    await engine?.close();
  }, 60_000);

  async function connect(user: string, onText?: (text: string) => void): Promise<WebSocketClient> {
    const query = `token=${await tokenOf({ sub: user })}`;
    return WebSocketClient.open(nodes[0]?.url ?? '', { query, ...(onText === undefined ? {} : { onText }) });
  }

  async function list(query = ''): Promise<Frame> {
    const response = await fetch(`${nodes[0]?.url}/realtime/channels/${channel}/presence${query}`, {
      headers: { authorization: 'Bearer the-key' },
    });
    return (await response.json()) as Frame;
  }

  const reaches = (count: number): Promise<void> =>
    until(async () => (await list('?limit=0')).count === count, `${count} members`, 60_000, 100);

  test('they come, are listed, and die with their node', async () => {
    engine = await engines[name]?.();
    const rules = new TestRules(
      `{ channels: '*', allow: { subscribe: 'users', presence: 'users' }, membersMax: 200000 }`,
    );
    const settings = { JWT_SECRET: secret, API_KEY: 'the-key', CONFIG_FILE: rules.path };
    nodes = await startNodes(1, () => ({ ...engine?.settings, ...settings }));
    another = await engine?.open({ changed: () => undefined, interrupted: () => undefined });
    const store = another?.store;
    if (store === undefined) throw new Error(`no engine is called ${name}`);
    await store.live('another', 300_000);
    const enter = async (first: number, last: number): Promise<void> => {
      for (let at = first; at < last; at += batch) {
        const changes = Array.from({ length: batch }, (_, index): Change => {
          const [connection, user] = [`fake${at + index}`, `user ${at + index}`];
          return {
            kind: 'enter',
            channel,
            connection,
            member: createMember(connection, user, '{"seat":1}'),
            membersMax: 0,
          };
        });
        await store.apply('another', changes);
      }
    };

    // Half are there before anyone looks, the others come while all is watched.
    await enter(0, size / 2);
    const count = new Count();
    const ann = await connect('ann', (text) => count.take(JSON.parse(text) as Frame));
    ann.send({ type: 'subscribe', id: 1, channel, presence: true });
    ann.send({ type: 'presence', id: 2, channel, limit: 0 });
    await until(() => count.members === size / 2 + 1, 'the list', 30_000);

    const bystander = await connect('bob');
    let [worstMs, isOver] = [0, false];
    const beside = (async () => {
      while (!isOver) {
        const begunAt = performance.now();
        await bystander.request({ type: 'ping' }, 30_000);
        worstMs = Math.max(worstMs, performance.now() - begunAt);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })();
    try {
      await enter(size / 2, size);
      await reaches(size + 1);
      await until(
        () => count.members === size + 1,
        () => `${count.members} of ${size + 1}`,
        30_000,
      );
      const [page, most] = [await list(), await list('?limit=10000')];
      expect([page.members?.length, most.members?.length]).toEqual([1_000, 10_000]);
      expect(await list('?limit=10001')).toMatchObject({ error: { code: 'bad_request' } });

      await store.end('another', 1);
      await reaches(1);
      await until(
        () => count.members === 1,
        () => `${count.members} of 1`,
        30_000,
      );
      expect((await list()).members?.map(({ user }) => user)).toEqual(['ann']);
    } finally {
      isOver = true;
      await beside;
    }
    expect(count.holes).toEqual([]);
    expect(worstMs).toBeLessThan(1_000);
    await Promise.all([ann.cut(), bystander.cut()]);
  }, 300_000);
});
