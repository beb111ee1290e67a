// Users and single connections over several nodes: who is online and where, subscribing and unsubscribing by a backend,
// messages to one connection, and channels to which a token's owner is subscribed without asking.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { EventClient, WebSocketClient, type Frame } from '../support/clients.ts';
import { startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { startRedis } from '../support/redis.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';

patient();

const rules = `
  { channels: 'user:{sub}', join: 'always', allow: { subscribe: 'owner', publish: 'nobody' } },
  { channels: 'closed:*', allow: { subscribe: 'nobody' } },
  { channels: '*', allow: { subscribe: 'users', publish: 'users' } },`;

interface UserAnswer {
  readonly user: string;
  readonly online: boolean;
  readonly connections: readonly {
    readonly connection: string;
    readonly node: string;
    readonly transport: string;
    readonly since: number;
    readonly channels: readonly string[];
  }[];
}

describe.each(['postgres', 'redis'])('users over %s', (sync) => {
  let nodes: RunningServer[] = [];
  let close: () => Promise<void> = () => Promise.resolve();
  beforeAll(async () => {
    const database = await createDatabase({ migrated: true });
    const redis = sync === 'redis' ? await startRedis() : undefined;
    close = async () => {
      await redis?.close();
      await database.drop();
    };
    nodes = await startNodes(2, () => ({
      SYNC: sync,
      DATABASE_URL: database.url,
      ...(redis === undefined ? {} : { REDIS_URL: redis.url }),
      JWT_SECRET: secret,
      API_KEY: 'the-key',
      CONFIG_FILE: new TestRules(rules).path,
    }));
    // Each knows the other, so that an answer about all nodes is about both.
    for (const node of nodes) {
      await until(async () => (await online(node, 'nobody')).incomplete === undefined, 'the nodes know each other');
    }
  }, 60_000);
  afterAll(async () => {
    await stopNodes(nodes);
    await close();
  }, 60_000);

  const urlOf = (node: number): string => nodes[node]?.url ?? '';

  async function call(node: number, path: string, body?: unknown): Promise<{ status: number; body: Frame }> {
    const response = await fetch(`${urlOf(node)}/realtime/${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { authorization: 'Bearer the-key', 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, body: (await response.json()) as Frame };
  }

  async function online(node: RunningServer, user: string): Promise<UserAnswer & { incomplete?: string[] }> {
    const response = await fetch(`${node.url}/realtime/users/${encodeURIComponent(user)}`, {
      headers: { authorization: 'Bearer the-key' },
    });
    return (await response.json()) as UserAnswer;
  }

  async function connect(user: string, node: number): Promise<{ client: WebSocketClient; connection: string }> {
    const client = await WebSocketClient.open(urlOf(node), { query: `token=${await tokenOf({ sub: user })}` });
    const { connection = '' } = await client.next('welcome');
    return { client, connection };
  }

  test('a user’s connections are told with node, transport, time and channels, whichever node is asked', async () => {
    const user = 'ann:1 ü';
    const own = `user:ann%3A1%20%C3%BC`;
    const socket = await connect(user, 0);
    await socket.client.next('subscribed');
    await socket.client.request({ type: 'subscribe', channel: 'news' });
    const token = await tokenOf({ sub: user });
    const stream = await EventClient.open(urlOf(1), { query: `channels=news&token=${token}` });
    const { connection } = (await stream.next('welcome')).frame;
    for (const node of nodes) {
      const answer = await online(node, user);
      expect(answer).toMatchObject({ user, online: true });
      const byNode = answer.connections.toSorted((one, other) => (one.node < other.node ? -1 : 1));
      expect(byNode).toEqual([
        {
          connection: socket.connection,
          node: 'node-1',
          transport: 'websocket',
          since: expect.any(Number) as number,
          channels: [own, 'news'],
        },
        {
          connection: connection ?? '',
          node: 'node-2',
          transport: 'sse',
          since: expect.any(Number) as number,
          channels: ['news', own],
        },
      ]);
      for (const { since } of byNode) expect(Math.abs(Date.now() - since)).toBeLessThan(60_000);
    }
    await Promise.all([socket.client.cut(), stream.cut()]);
    await until(async () => !(await online(nodes[0]!, user)).online, 'the user is gone');
    expect(await online(nodes[1]!, user)).toEqual({ user, online: false, connections: [] });
  });

  test('a backend subscribes every WebSocket of a user, whatever rules say, and ends it again', async () => {
    const [one, two, other] = [await connect('bob', 0), await connect('bob', 1), await connect('eve', 1)];
    for (const { client } of [one, two, other]) await client.next('subscribed');
    const channel = 'closed:1';
    const answer = await call(1, 'users/bob/subscribe', { channel });
    expect(answer).toEqual({ status: 200, body: { user: 'bob', channel, connections: 2 } as unknown as Frame });
    for (const { client } of [one, two]) {
      expect(await client.next('subscribed')).toMatchObject({ channel, recoverable: true });
    }
    await call(0, 'publish', { channel, data: 'for bob' });
    for (const { client } of [one, two]) expect((await client.next('message')).data).toBe('for bob');
    // What a backend began, no right ends.
    await call(0, 'users/bob/reauthorize', {});
    await call(0, 'publish', { channel, data: 'still' });
    for (const { client } of [one, two]) expect((await client.next('message')).data).toBe('still');
    const ended = await call(0, 'users/bob/unsubscribe', { channel });
    expect(ended.body).toMatchObject({ connections: 2 });
    for (const { client } of [one, two]) {
      expect(await client.next('unsubscribed')).toEqual({ type: 'unsubscribed', channel, reason: 'removed' });
      expect(await client.request({ type: 'subscribe', channel })).toMatchObject({ code: 'forbidden' });
    }
    expect((await call(0, 'users/bob/unsubscribe', { channel })).body).toMatchObject({ connections: 0 });
    expect((await other.client.settle()).map(({ type }) => type)).toEqual([]);
    for (const { client } of [one, two, other]) await client.cut();
  });

  test('unsubscribing reaches event streams too, which go on with their other channels', async () => {
    const token = await tokenOf({ sub: 'eve' });
    const stream = await EventClient.open(urlOf(1), { query: `channels=rooms,news&token=${token}` });
    await stream.next('welcome');
    expect((await call(0, 'users/eve/unsubscribe', { channel: 'rooms' })).body).toMatchObject({ connections: 1 });
    expect((await stream.next('unsubscribed')).frame).toMatchObject({ channel: 'rooms', reason: 'removed' });
    await call(0, 'publish', { channels: ['rooms', 'news'], data: 1 });
    expect((await stream.next('message')).frame).toMatchObject({ channel: 'news' });
    await stream.cut();
  });

  test('publish with `to` reaches that one connection on any node, and says when it is not there', async () => {
    const channel = 'call:1';
    const [caller, callee, third] = [await connect('ann', 0), await connect('bob', 1), await connect('cyd', 1)];
    for (const { client } of [caller, callee, third]) await client.request({ type: 'subscribe', channel });
    for (const round of [1, 2, 3]) {
      caller.client.send({ type: 'publish', channel, data: { round }, to: callee.connection });
    }
    const reply = await caller.client.request({ type: 'publish', channel, data: 'last', to: callee.connection });
    expect(reply).toEqual({ type: 'published', id: expect.any(Number) as number, channel });
    for (const data of [{ round: 1 }, { round: 2 }, { round: 3 }, 'last']) {
      const message = await callee.client.next('message');
      expect(message).toEqual({
        type: 'message',
        channel,
        data,
        at: expect.any(Number) as number,
        from: { user: 'ann', connection: caller.connection },
        direct: true,
      });
    }
    // Back, and on one node.
    await callee.client.request({ type: 'publish', channel, data: 'back', to: caller.connection });
    expect(await caller.client.next('message')).toMatchObject({ data: 'back', direct: true });
    await callee.client.request({ type: 'publish', channel, data: 'beside', to: third.connection });
    expect(await third.client.next('message')).toMatchObject({ data: 'beside', direct: true });

    const refused = async (to: string, code: string, more = {}): Promise<void> => {
      expect(await caller.client.request({ type: 'publish', channel, data: 1, to, ...more })).toMatchObject({ code });
    };
    await refused('nobodyatall00000', 'not_subscribed');
    await refused(callee.connection.slice(0, 4) + '000000000000', 'not_subscribed');
    await refused(callee.connection, 'not_subscribed', { channel: 'call:2' });
    await refused(callee.connection, 'forbidden', { channel: 'user:bob' });
    await refused(callee.connection, 'too_large', { data: 'x'.repeat(65_536) });
    await refused('no id', 'bad_request');
    await callee.client.request({ type: 'unsubscribe', channel });
    await refused(callee.connection, 'not_subscribed');
    await callee.client.cut();
    await refused(callee.connection, 'not_subscribed');
    // It has no number, and no history keeps it.
    expect(await third.client.request({ type: 'subscribe', channel })).toMatchObject({ offset: 0 });
    await Promise.all([caller.client.cut(), third.client.cut()]);
  });

  test('a backend sends to one connection, a WebSocket or a stream, on any node', async () => {
    const socket = await connect('ann', 1);
    const token = await tokenOf({ sub: 'bob' });
    const stream = await EventClient.open(urlOf(1), { query: `channels=news&token=${token}` });
    const { connection = '' } = (await stream.next('welcome')).frame;
    const text = '{"data":{"big":123456789012345678901234567890,"x":[1,null]}}';
    const sent = await fetch(`${urlOf(0)}/realtime/connections/${socket.connection}/send`, {
      method: 'POST',
      headers: { authorization: 'Bearer the-key', 'content-type': 'application/json' },
      body: text,
    });
    expect([sent.status, await sent.json()]).toEqual([200, { connection: socket.connection }]);
    expect(await socket.client.next('message')).toMatchObject({ direct: true, data: { x: [1, null] } });
    expect((await call(0, `connections/${connection}/send`, { data: 'hello' })).status).toBe(200);
    const { frame, lastEventId } = await stream.next('message');
    expect(frame).toEqual({ type: 'message', data: 'hello', at: expect.any(Number) as number, direct: true });
    await call(0, 'publish', { channel: 'news', data: 1 });
    const next = await stream.next('message');
    expect(next.frame).toMatchObject({ channel: 'news', offset: expect.any(Number) as number });
    expect(next.lastEventId).not.toBe(lastEventId);
    const statuses = [];
    for (const [path, body] of [
      ['connections/nobodyatall00000/send', { data: 1 }],
      ['connections/NOT%20AN%20ID/send', { data: 1 }],
      [`connections/${connection}/send`, {}],
      [`connections/${connection}/send`, { data: 'x'.repeat(65_537) }],
      ['users/ann/subscribe', { channel: 'not one' }],
      ['users/ann/subscribe', {}],
      ['users/ann/subscribe', { channel: '$control' }],
      [`users/${'x'.repeat(129)}/unsubscribe`, { channel: 'a' }],
    ] as const) {
      statuses.push((await call(0, path, body)).status);
    }
    expect(statuses).toEqual([404, 400, 400, 413, 400, 400, 403, 400]);
    for (const path of ['users/ann', 'users/ann/subscribe', `connections/${connection}/send`]) {
      const method = path === 'users/ann' ? 'GET' : 'POST';
      const response = await fetch(`${urlOf(0)}/realtime/${path}`, {
        method,
        headers: { authorization: `Bearer ${token}` },
      });
      expect([path, response.status]).toEqual([path, 401]);
    }
    await Promise.all([socket.client.cut(), stream.cut()]);
  });

  test('a rule that joins always subscribes by itself, on both transports, and nothing is lost over a reconnect', async () => {
    const user = `dan${sync}`;
    const own = `user:${user}`;
    const token = await tokenOf({ sub: user });
    const notify = (data: unknown): Promise<unknown> => call(0, `users/${user}/notify`, { data });
    const first = await connect(user, 0);
    const { epoch = '', offset = 0 } = await first.client.next('subscribed');
    const stream = await EventClient.open(urlOf(1), { query: `channels=news&token=${token}` });
    const welcome = await stream.next('welcome');
    expect(welcome.frame.channels?.map(({ channel }) => channel)).toEqual(['news', own]);
    await notify(1);
    expect(await first.client.next('message')).toMatchObject({ channel: own, data: 1 });
    const heard = await stream.next('message');
    expect(heard.frame).toMatchObject({ channel: own, data: 1 });
    await Promise.all([first.client.cut(), stream.cut()]);
    await notify(2);
    const again = await EventClient.open(urlOf(0), {
      query: `channels=news&token=${token}`,
      headers: { 'last-event-id': heard.lastEventId },
    });
    expect((await again.next('message')).frame).toMatchObject({ channel: own, data: 2 });
    // The server has subscribed it before the client says where it stood.
    const second = await connect(user, 1);
    expect(await second.client.next('subscribed')).toMatchObject({ channel: own });
    const since = { epoch, offset: offset + 1 };
    expect(await second.client.request({ type: 'subscribe', channel: own, since })).toMatchObject({ recovered: true });
    expect(await second.client.next('message')).toMatchObject({ channel: own, data: 2 });
    await notify(3);
    expect(await second.client.next('message')).toMatchObject({ channel: own, data: 3 });
    expect((await second.client.settle()).map(({ type }) => type)).toEqual([]);
    // Named as well, it is subscribed once.
    const third = await WebSocketClient.open(urlOf(0), { query: `channels=${own},news&token=${token}` });
    await third.next('welcome');
    const subscribed = [await third.next('subscribed'), await third.next('subscribed')];
    expect(subscribed.map(({ channel }) => channel)).toEqual([own, 'news']);
    expect((await third.settle()).map(({ type }) => type)).toEqual([]);
    await Promise.all([again.cut(), second.client.cut(), third.cut()]);
  });
});
