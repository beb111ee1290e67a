// Presence over real servers, on each engine: lists, joins, leaves and data over both transports and HTTP, the node that
// a client leaves or that dies, and what is refused.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { EventClient, WebSocketClient, type Frame } from '../support/clients.ts';
import { startNode, startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import { startRedis } from '../support/redis.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';

patient();

interface Engine {
  readonly name: string;
  readonly nodes: number;
  open(): Promise<{ readonly settings: Environment; close(): Promise<void> }>;
}

const engines: readonly Engine[] = [
  {
    name: 'memory',
    nodes: 1,
    open: () => Promise.resolve({ settings: { SYNC: 'memory' }, close: () => Promise.resolve() }),
  },
  {
    name: 'postgres',
    nodes: 2,
    open: async () => {
      const database = await createDatabase({ migrated: true });
      return { settings: { SYNC: 'postgres', DATABASE_URL: database.url }, close: () => database.drop() };
    },
  },
  {
    name: 'redis',
    nodes: 2,
    open: async () => {
      const [redis, database] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
      return {
        settings: { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: database.url },
        close: async () => {
          await redis.close();
          await database.drop();
        },
      };
    },
  },
];

const rules = `
  { channels: 'small:*', allow: { subscribe: 'users', presence: 'users' }, membersMax: 2 },
  { channels: 'closed:*', allow: { subscribe: 'users', presence: 'nobody' } },
  { channels: 'fickle:*', allow: { subscribe: 'users', presence: 'users' } },
  { channels: '*', allow: { subscribe: 'users', publish: 'users', presence: 'users' } },`;

const graceMs = 5_000;
let channels = 0;

describe.each(engines)('presence over $name', ({ nodes: count, open }) => {
  let engine: Awaited<ReturnType<Engine['open']>>;
  let nodes: RunningServer[] = [];
  let settings: Environment = {};
  const config = new TestRules(rules);
  beforeAll(async () => {
    engine = await open();
    settings = {
      ...engine.settings,
      JWT_SECRET: secret,
      API_KEY: 'the-key',
      ADMIN_KEY: 'the-operator',
      RATE_LIMIT_PER_MINUTE: '100',
      CONFIG_FILE: config.path,
    };
    nodes = await startNodes(count, () => settings);
  }, 60_000);
  afterAll(async () => {
    await stopNodes(nodes);
    await engine.close();
  }, 60_000);

  const fresh = (namespace = 'room'): string => `${namespace}:${++channels}`;

  async function connect(user: string, node = 0): Promise<WebSocketClient> {
    const { url = '' } = nodes[node % nodes.length] ?? {};
    const client = await WebSocketClient.open(url, { query: `token=${await tokenOf({ sub: user })}` });
    await client.next('welcome');
    return client;
  }

  async function enter(channel: string, user: string, node = 0, presence: unknown = true): Promise<WebSocketClient> {
    const client = await connect(user, node);
    expect(await client.request({ type: 'subscribe', channel, presence })).toMatchObject({ type: 'subscribed' });
    return client;
  }

  async function list(channel: string, node = 0, query = ''): Promise<Frame> {
    const response = await fetch(`${nodes[node % nodes.length]?.url}/realtime/channels/${channel}/presence${query}`, {
      headers: { authorization: 'Bearer the-key' },
    });
    return (await response.json()) as Frame;
  }

  async function post(path: string, key: string, body: unknown): Promise<void> {
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
    const response = await fetch(`${nodes[0]?.url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    expect(response.status).toBe(200);
  }

  const reload = (): Promise<void> => post('/realtime/reload', 'the-operator', {});

  const users = ({ members = [] }: Frame): (string | null)[] => members.map(({ user }) => user);

  test('members hear who joins, changes and leaves; the list is the same everywhere', async () => {
    const channel = fresh();
    const ann = await enter(channel, 'ann', 0, { mood: 'calm' });
    const bob = await enter(channel, 'bob', 1);
    expect(await ann.next('join')).toMatchObject({ channel, member: { user: 'bob', data: null } });
    await bob.request({ type: 'presence', channel, data: { mood: 'busy' }, limit: 0 });
    const update = await ann.next('update');
    expect(update.member).toMatchObject({ user: 'bob', data: { mood: 'busy' } });
    for (const answer of [
      await bob.request({ type: 'presence', channel }),
      await list(channel),
      await list(channel, 1),
    ]) {
      expect(answer).toMatchObject({ type: 'presence', channel, count: 2, version: update.version });
      expect(users(answer)).toEqual(['ann', 'bob']);
      expect(answer.members?.map(({ data }) => data)).toEqual([{ mood: 'calm' }, { mood: 'busy' }]);
    }
    expect(users(await list(channel, 1, '?limit=1'))).toEqual(['ann']);
    expect(await list(channel, 1, '?limit=0')).toMatchObject({ count: 2, members: [] });
    await bob.request({ type: 'unsubscribe', channel });
    // At once where the store answers; a store that a busy machine holds up is asked again a moment later.
    expect(await ann.next('leave', 10_000)).toMatchObject({ member: { user: 'bob' } });
    expect(users(await list(channel))).toEqual(['ann']);
    await Promise.all([ann.cut(), bob.cut()]);
  });

  test('three tabs join once and leave once; who comes back in time on another node does neither', async () => {
    const channel = fresh();
    const watcher = await enter(channel, 'watcher');
    const tabs = [await enter(channel, 'ann', 0), await enter(channel, 'ann', 1), await enter(channel, 'ann', 0)];
    for (const tab of tabs) await tab.cut();
    const again = await enter(channel, 'ann', 1);
    await watcher.next('join');
    await new Promise((resolve) => setTimeout(resolve, graceMs + 1_000));
    const heard = await watcher.settle();
    expect(heard.filter(({ type }) => type === 'join' || type === 'leave')).toEqual([]);
    expect(users(await list(channel))).toEqual(['watcher', 'ann']);
    await again.cut();
    expect(await watcher.next('leave', graceMs + 2_000)).toMatchObject({ member: { user: 'ann' } });
    await watcher.cut();
  }, 30_000);

  test('an event stream is a member by being there: it gets the list, and hears', async () => {
    const channel = fresh();
    const ann = await enter(channel, 'ann');
    const { url = '' } = nodes[1 % nodes.length] ?? {};
    const stream = await EventClient.open(url, {
      query: `channels=${channel}&presence=1&token=${await tokenOf({ sub: 'eve' })}`,
    });
    expect(await ann.next('join')).toMatchObject({ member: { user: 'eve', data: null } });
    expect(users((await stream.next('presence')).frame)).toEqual(['ann', 'eve']);
    const bob = await enter(channel, 'bob');
    expect((await stream.next('join')).frame).toMatchObject({ channel, member: { user: 'bob' } });
    await bob.request({ type: 'unsubscribe', channel });
    expect((await stream.next('leave')).frame).toMatchObject({ channel, member: { user: 'bob' } });
    await ann.next('leave');
    await stream.cut();
    expect(await ann.next('leave', graceMs + 2_000)).toMatchObject({ member: { user: 'eve' } });
    const quiet = await EventClient.open(url, { query: `channels=${channel}&token=${await tokenOf({ sub: 'eve' })}` });
    await quiet.next('welcome');
    expect(users(await list(channel))).toEqual(['ann']);
    await Promise.all([quiet.cut(), ann.cut(), bob.cut()]);
  }, 30_000);

  test('what is refused: data too large, a channel that is full, a right that is missing, data of no member', async () => {
    const channel = fresh();
    const ann = await connect('ann');
    const large = { text: 'x'.repeat(4_096) };
    const refused = async (command: Record<string, unknown>, code: string): Promise<void> => {
      expect(await ann.request(command)).toMatchObject({ type: 'error', code });
    };
    await refused({ type: 'subscribe', channel, presence: large }, 'too_large');
    await refused({ type: 'presence', channel, data: 1 }, 'not_subscribed');
    await refused({ type: 'unsubscribe', channel }, 'not_subscribed');
    await refused({ type: 'subscribe', channel, presence: 'yes' }, 'bad_request');
    await refused({ type: 'subscribe', channel: 'closed:1', presence: true }, 'forbidden');
    await refused({ type: 'presence', channel: 'closed:1' }, 'forbidden');
    expect(await ann.request({ type: 'subscribe', channel: 'closed:1' })).toMatchObject({ type: 'subscribed' });
    const small = fresh('small');
    const [bob, cyd] = [await enter(small, 'bob', 0), await enter(small, 'cyd', 1)];
    await refused({ type: 'subscribe', channel: small, presence: true }, 'limit_exceeded');
    expect(await ann.request({ type: 'subscribe', channel: small })).toMatchObject({ type: 'subscribed' });
    await bob.request({ type: 'unsubscribe', channel: small });
    expect(await ann.request({ type: 'subscribe', channel: small, presence: { late: true } })).toMatchObject({
      type: 'subscribed',
    });
    await refused({ type: 'presence', channel: small, data: large }, 'too_large');
    // The other node hears of it a moment later.
    await until(async () => users(await list(small, 1)).join() === 'cyd,ann', 'the list of the other node');
    const { url = '' } = nodes[0] ?? {};
    const path = `${url}/realtime/channels/${small}/presence`;
    const bearer = { authorization: `Bearer ${await tokenOf({ sub: 'ann' })}` };
    const statuses = await Promise.all([
      fetch(path),
      fetch(path, { headers: bearer }),
      fetch(`${path}?limit=x`, { headers: bearer }),
      fetch(path.replace(small, 'closed:1'), { headers: bearer }),
      fetch(path.replace(small, 'not%20one'), { headers: bearer }),
    ]);
    expect(statuses.map(({ status }) => status)).toEqual([401, 200, 400, 403, 400]);
    await Promise.all([ann.cut(), bob.cut(), cyd.cut()]);
  });

  test('who loses the right is a member no more: a WebSocket is told by an error and stays, a stream ends the channel', async () => {
    const [channel, other] = [fresh('fickle'), fresh()];
    const ann = await enter(channel, 'ann');
    await ann.request({ type: 'subscribe', channel: other, presence: true });
    const query = `channels=${channel},${other}&presence=1&token=${await tokenOf({ sub: 'bob' })}`;
    const bob = await EventClient.open(nodes.at(-1)?.url ?? '', { query });
    for (let list = 0; list < 2; list++) expect(users((await bob.next('presence')).frame)).toEqual(['ann', 'bob']);
    for (let join = 0; join < 2; join++) await ann.next('join');
    config.write(rules.replace(/(fickle.*presence: )'users'/, "$1'nobody'"));
    try {
      await reload();
      // Bob's node may read the rules first: then Ann, who has the right a moment longer, hears that he left.
      const heard = [await ann.nextAny()];
      while (heard.at(-1)?.type === 'leave') heard.push(await ann.nextAny());
      expect(heard.at(-1)).toMatchObject({ type: 'error', channel, code: 'forbidden', retryable: false });
      expect(heard.slice(0, -1).every(({ member }) => member?.user === 'bob')).toBe(true);
      expect((await bob.next('unsubscribed')).frame).toMatchObject({ channel, reason: 'forbidden' });
      expect(await ann.request({ type: 'presence', channel })).toMatchObject({ code: 'forbidden' });
      await until(async () => (await list(channel)).count === 0, 'the list without them');
      expect(users(await list(other))).toEqual(['ann', 'bob']);
      // Still subscribed, and deaf to what is not theirs any more.
      await post('/realtime/publish', 'the-key', { channel, data: 'hello' });
      expect(await ann.next('message')).toMatchObject({ channel, data: 'hello' });
      expect((await ann.settle()).filter((frame) => frame.channel === channel)).toEqual([]);
    } finally {
      config.write(rules);
      await reload();
      await Promise.all([ann.cut(), bob.cut()]);
    }
  }, 30_000);

  test('data is whatever JSON it is, also what looks like the language', async () => {
    const channel = fresh();
    const ann = await enter(channel, 'ann');
    const bob = await connect('bob', 1);
    bob.sendText(
      `{"type":"subscribe","id":1,"channel":"${channel}","presence":{"__proto__":{"x":1},"constructor":"y"}}`,
    );
    await bob.next('subscribed');
    const join = await ann.next('join');
    expect(JSON.stringify(join.member?.data)).toBe('{"__proto__":{"x":1},"constructor":"y"}');
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
    await Promise.all([ann.cut(), bob.cut()]);
  });

  test('one user’s changes of data, and lists, are as many a minute as messages', async () => {
    const channel = fresh();
    const watcher = await enter(channel, 'watcher');
    const storm = await enter(channel, 'storm', 1);
    const answers: Frame[] = [];
    for (let data = 0; data < 130; data++)
      answers.push(await storm.request({ type: 'presence', channel, data, limit: 0 }));
    const refused = answers.filter(({ type }) => type === 'error');
    expect(refused.length).toBeWithin(30, 45);
    expect(refused.every(({ code, retryable }) => code === 'rate_limited' && retryable === true)).toBe(true);
    await watcher.next('join');
    // The last of them may still be on their way from the other node.
    const heard: Frame[] = [];
    const allowed = answers.length - refused.length;
    const arrived = async (): Promise<boolean> => heard.push(...(await watcher.settle())) >= allowed;
    await until(arrived, () => `${heard.length} of ${allowed} updates`);
    expect(heard.length).toBe(allowed);
    await Promise.all([watcher.cut(), storm.cut()]);
  });

  test('who enters and leaves without end is heard a few times, and then when it has stayed away', async () => {
    const channel = fresh();
    const watcher = await enter(channel, 'watcher');
    const fidget = await connect('fidget', 1);
    for (let round = 0; round < 50; round++) {
      await fidget.request({ type: 'subscribe', channel, presence: true });
      await fidget.request({ type: 'unsubscribe', channel });
    }
    await watcher.next('join');
    await new Promise((resolve) => setTimeout(resolve, graceMs + 1_000));
    const heard = (await watcher.settle()).filter(({ type }) => type === 'join' || type === 'leave');
    expect(heard.length).toBeWithin(2, 20);
    expect(heard.at(-1)?.type).toBe('leave');
    heard.forEach(({ type }, index) => expect(type).toBe(index % 2 === 0 ? 'leave' : 'join'));
    await Promise.all([watcher.cut(), fidget.cut()]);
  }, 30_000);

  if (count > 1) {
    test('a node that is killed: its members leave within 20 s, told once; one that stops: when the grace is over', async () => {
      const channel = fresh();
      const watchers = [await enter(channel, 'w0', 0), await enter(channel, 'w1', 1)];
      const third = await startNode({ ...settings, NODE_ID: 'killed' });
      const fourth = await startNode({ ...settings, NODE_ID: 'stopped' });
      nodes.push(third, fourth);
      try {
        const dead = await enter(channel, 'dead', 2);
        const gone = await enter(channel, 'gone', 3);
        const moves = await enter(channel, 'moves', 3);
        const killedAt = performance.now();
        await third.kill9();
        const stopping = fourth.stop();
        await Promise.all([dead.closed, gone.closed, moves.closed]);
        const moved = await enter(channel, 'moves', 1);
        await stopping;
        for (const watcher of watchers) {
          expect(await watcher.next('leave', graceMs + 5_000)).toMatchObject({ member: { user: 'gone' } });
          expect(await watcher.next('leave', 20_000)).toMatchObject({ member: { user: 'dead' } });
        }
        expect(performance.now() - killedAt).toBeLessThan(20_000);
        expect(users(await list(channel))).toEqual(['w0', 'w1', 'moves']);
        for (const watcher of watchers) {
          const heard = await watcher.settle();
          expect(heard.filter(({ type }) => type === 'leave')).toEqual([]);
          await watcher.cut();
        }
        await moved.cut();
      } finally {
        nodes.splice(2);
      }
    }, 60_000);
  }
});
