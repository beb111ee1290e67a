// A connection's commands, one at a time: replies, errors, order, and what is left when it ends.

import { describe, expect, test } from 'bun:test';
import type { Access, Authenticate } from '../../../src/core/access.ts';
import { ChannelPattern } from '../../../src/rules/pattern.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { createHub, HandClock, idle, type Connected, type HubHarness } from '../../support/hub.ts';
import { RoughLog } from '../../support/rough-link.ts';

test('welcome names the connection, the user, the node and the heartbeat', () => {
  const { session } = createHub().connect();
  expect(session.welcome()).toEqual({ type: 'welcome', connection: session.id, user: null, node: 'n1', heartbeat: 25 });
  expect(session.id).toMatch(/^[0-9a-z]{16}$/);
});

test('ping is answered with its id', async () => {
  const { outlet, send } = createHub().connect();
  await send({ type: 'ping', id: 7 });
  await send({ type: 'ping', id: 'seven' });
  await send({ type: 'ping' });
  expect(outlet.frames('pong')).toEqual([{ type: 'pong', id: 7 }, { type: 'pong', id: 'seven' }, { type: 'pong' }]);
});

test('published tells the position, ephemeral channels have none', async () => {
  const { hub, connect } = createHub();
  const { outlet, send } = connect();
  await send({ type: 'publish', id: 1, channel: 'a', data: 1 });
  await send({ type: 'publish', id: 2, channel: 'a', data: 2 });
  await send({ type: 'publish', id: 3, channel: 'ephemeral:a', data: 3 });
  const { epoch } = (await hub.history('a', { limit: 1 }, 'test')).head;
  expect(outlet.frames('published')).toEqual([
    { type: 'published', id: 1, channel: 'a', epoch, offset: 1 },
    { type: 'published', id: 2, channel: 'a', epoch, offset: 2 },
    { type: 'published', id: 3, channel: 'ephemeral:a' },
  ]);
});

test('a repeated key publishes once and answers the first position', async () => {
  const { connect } = createHub();
  const reader = connect();
  await reader.send({ type: 'subscribe', channel: 'a' });
  const { outlet, send } = connect();
  await send({ type: 'publish', channel: 'a', data: 1, key: 'k' });
  await send({ type: 'publish', channel: 'a', data: 2, key: 'k' });
  expect(outlet.frames('published').map(({ offset }) => offset)).toEqual([1, 1]);
  expect(reader.outlet.story('a')).toEqual([1]);
});

test('the sender hears its own publication unless it asked not to', async () => {
  const { connect } = createHub();
  const other = connect('sse');
  await other.send({ type: 'subscribe', channel: 'a' });
  const { outlet, send, session } = connect();
  await send({ type: 'subscribe', channel: 'a' });
  await send({ type: 'publish', channel: 'a', data: 1 });
  await send({ type: 'publish', channel: 'a', data: 2, echo: false });
  expect(outlet.story('a')).toEqual([1]);
  expect(other.outlet.story('a')).toEqual([1, 2]);
  const [told] = other.outlet.told.slice(-1);
  expect(told?.kind === 'message' && told.publication.from).toEqual({ user: null, connection: session.id });
});

test('data over the limit is too_large, counted in bytes', async () => {
  const { outlet, send } = createHub({ limits: { messageBytesMax: 12 } }).connect();
  await send({ type: 'publish', id: 1, channel: 'a', data: '1234567890' });
  await send({ type: 'publish', id: 2, channel: 'a', data: '€€€€' });
  expect(outlet.frames('published').map(({ id }) => id)).toEqual([1]);
  expect(outlet.frames('error')).toMatchObject([{ id: 2, channel: 'a', code: 'too_large', retryable: false }]);
});

test('unsubscribe ends delivery; without a subscription it is not_subscribed', async () => {
  const { connect } = createHub();
  const { outlet, send } = connect();
  await send({ type: 'subscribe', channel: 'a' });
  await send({ type: 'unsubscribe', id: 2, channel: 'a' });
  await send({ type: 'publish', channel: 'a', data: 1 });
  await send({ type: 'unsubscribe', id: 3, channel: 'a' });
  expect(outlet.story('a')).toEqual([]);
  expect(outlet.frames('unsubscribed')).toEqual([{ type: 'unsubscribed', id: 2, channel: 'a' }]);
  expect(outlet.frames('error')).toMatchObject([{ id: 3, channel: 'a', code: 'not_subscribed' }]);
});

// A page with 150 channels sent 150 frames, of which 50 were refused, each time anew.
test('one subscribe for several channels: each is answered by itself, and one that fails stops no other', async () => {
  const access: Pick<Access, 'may'> = { may: (_identity, _action, channel) => channel !== 'closed' };
  const { connect, hub } = createHub({ access });
  const publisher = connect();
  for (const data of [1, 2, 3]) await publisher.send({ type: 'publish', channel: 'b', data });
  const { epoch } = (await hub.history('b', { limit: 1 }, 'test')).head;
  const { outlet, send } = connect();
  const channels = [
    { channel: 'a' },
    { channel: 'closed' },
    { channel: 'b', since: { epoch, offset: 1 } },
    { channel: 'no name' },
    { channel: 'a' },
    { channel: 'ephemeral:c' },
  ];
  await send({ type: 'subscribe', id: 7, channels });
  const answers = outlet.told.flatMap((told) => {
    if (told.kind === 'subscribed') return told.states.map(({ channel }) => `${told.id} ${channel}`);
    return told.kind === 'frame' ? [`${told.frame['id']} ${told.frame['channel']} ${told.frame['code']}`] : [];
  });
  expect(answers.toSorted((one, other) => one.localeCompare(other))).toEqual([
    '7 a',
    '7 a',
    '7 b',
    '7 closed forbidden',
    '7 ephemeral:c',
    '7 no name bad_channel',
  ]);
  expect(outlet.states().find(({ channel }) => channel === 'b')).toMatchObject({ offset: 3, recovered: true });
  for (const channel of ['a', 'b']) await publisher.send({ type: 'publish', channel, data: 9 });
  expect([outlet.story('a'), outlet.story('b')]).toEqual([[1], [2, 3, 4]]);
  expect(hub.subscriptionCount).toBe(3);
});

test('several channels of one subscribe never exceed what a connection may have, however long they take to open', async () => {
  const log = new RoughLog(new HandClock());
  const link = log.link();
  const { hub, connect } = createHub({ adapter: link, limits: { channelsPerConnectionMax: 5 } });
  const { outlet, send } = connect();
  const channels = Array.from({ length: 8 }, (_, index) => ({ channel: `c${index}` }));
  await send({ type: 'subscribe', id: 1, channels });
  // All are asked for together.
  expect(link.requests).toHaveLength(8);
  while (link.advance(0)) await idle();
  expect(outlet.states()).toHaveLength(5);
  expect(outlet.frames('error').map(({ code }) => code)).toEqual(Array(3).fill('limit_exceeded'));
  expect([hub.subscriptionCount, hub.channelCount]).toEqual([5, 5]);
});

test('history answers frames as they were told, and an ephemeral channel keeps none', async () => {
  const { outlet, send } = createHub().connect();
  for (const data of [1, 2, 3]) await send({ type: 'publish', channel: 'a', data });
  await send({ type: 'history', id: 1, channel: 'a', limit: 2 });
  const [newest] = outlet.frames('history');
  expect(newest).toMatchObject({ id: 1, channel: 'a', offset: 3, complete: false });
  expect(newest?.messages).toMatchObject([
    { type: 'message', channel: 'a', offset: 2, data: 2 },
    { type: 'message', channel: 'a', offset: 3, data: 3 },
  ]);
  await send({ type: 'history', id: 2, channel: 'a', since: { epoch: newest?.epoch, offset: 2 } });
  expect(outlet.frames('history')[1]).toMatchObject({ id: 2, offset: 3, complete: true, messages: [{ offset: 3 }] });
  await send({ type: 'history', id: 3, channel: 'ephemeral:a' });
  expect(outlet.frames('history')[2]).toMatchObject({ id: 3, epoch: '', offset: 0, messages: [], complete: true });
});

describe('refresh', () => {
  const soon = Math.floor(new HandClock().now() / 1_000) + 60;
  /** Tokens are `<user> <end> <channel>...`. */
  const authenticate: Authenticate = (token = '') => {
    const [user = '', end = '', ...channels] = token.split(' ');
    if (user === 'late') throw new RealtimeError('token_expired');
    const grants = channels.map((name) => ({
      pattern: new ChannelPattern(name),
      actions: new Set(['subscribe'] as const),
    }));
    return { user, expiresAt: Number(end), grants };
  };
  const access: Pick<Access, 'may'> = {
    may: (identity, _action, channel) => identity.grants?.some(({ pattern }) => pattern.matches(channel)) === true,
  };
  async function connected(harness = createHub({ authenticate, access })): Promise<HubHarness & Connected> {
    const identity = await authenticate(`ann ${soon} a b c`);
    return { ...harness, ...harness.connect('websocket', identity) };
  }

  test('a fresh token of the same user extends the connection', async () => {
    const { sessions, clock, outlet, send } = await connected();
    await send({ type: 'refresh', id: 1, token: `ann ${soon + 100} a` });
    expect(outlet.frames('refreshed')).toEqual([{ type: 'refreshed', id: 1, expires: soon + 100 }]);
    clock.advance(61_000);
    sessions.expire();
    expect(outlet.ended).toBeUndefined();
    clock.advance(100_000);
    sessions.expire();
    expect(outlet.ended).toEqual({ code: 1008, reason: 'token_expired' });
    expect(sessions.size).toBe(0);
  });

  test('another user’s token, and one that is over, change nothing', async () => {
    const { session, outlet, send } = await connected();
    const before = session.identity;
    await send({ type: 'refresh', id: 1, token: `bob ${soon} a` });
    await send({ type: 'refresh', id: 2, token: 'late' });
    const errors = outlet.frames('error').map(({ id, code }) => [id, code]);
    expect(errors).toEqual([
      [1, 'unauthorized'],
      [2, 'token_expired'],
    ]);
    expect(session.identity).toBe(before);
  });

  test('what the fresh token does not grant is left, and said', async () => {
    const { hub, outlet, send } = await connected();
    for (const channel of ['a', 'b', 'c']) await send({ type: 'subscribe', channel });
    await send({ type: 'refresh', token: `ann ${soon} b` });
    expect(outlet.frames('unsubscribed')).toEqual([
      { type: 'unsubscribed', channel: 'a', reason: 'forbidden' },
      { type: 'unsubscribed', channel: 'c', reason: 'forbidden' },
    ]);
    expect(hub.channelCounts()).toEqual([{ channel: 'b', subscribers: 1 }]);
  });
});

test('publications of one connection go out together, and other commands find them done', async () => {
  const log = new RoughLog(new HandClock());
  const link = log.link();
  const { session, outlet } = createHub({ adapter: link }).connect();
  for (let id = 1; id <= 400; id++) session.receive(`{"type":"publish","id":${id},"channel":"a","data":${id}}`);
  session.receive('{"type":"ping","id":"after"}');
  session.receive('{"type":"publish","id":"last","channel":"a","data":0}');
  await idle();
  expect(link.requests).toHaveLength(256);
  expect(outlet.paused).toBe(true);
  for (let round = 0; round < 500; round++) {
    while (link.advance(0)) await Promise.resolve();
    await idle();
  }
  const ids = outlet.told.map((told) => told.kind === 'frame' && told.frame.id);
  expect(ids).toEqual([...Array.from({ length: 400 }, (_, index) => index + 1), 'after', 'last']);
  expect(outlet.paused).toBe(false);
});

test('what no rule allows is forbidden, also when the answer takes a while', async () => {
  for (const slow of [false, true]) {
    const access: Pick<Access, 'may'> = {
      may: (_identity, _action, channel) => {
        const allowed = channel === 'open';
        return slow ? Promise.resolve(allowed) : allowed;
      },
    };
    const { outlet, send } = createHub({ access }).connect();
    for (const type of ['subscribe', 'publish', 'history']) {
      await send({ type, id: type, channel: 'closed', data: 1 });
      await send({ type, id: type, channel: 'open', data: 1 });
    }
    expect(outlet.frames('error').map(({ id, code }) => [id, code])).toEqual([
      ['subscribe', 'forbidden'],
      ['publish', 'forbidden'],
      ['history', 'forbidden'],
    ]);
  }
});

test('clients may not publish to the server’s own channels', async () => {
  const { outlet, send } = createHub().connect();
  await send({ type: 'publish', channel: '$system', data: 1 });
  expect(outlet.frames('error')).toMatchObject([{ channel: '$system', code: 'forbidden' }]);
});

test('a failure that nobody expected is internal to the client and told whole to the log', async () => {
  const broken = createHub();
  const adapter = broken.adapter;
  adapter.publish = () => {
    throw new Error('secret detail');
  };
  const { outlet, send } = broken.connect();
  await send({ type: 'publish', id: 1, channel: 'a', data: 1 });
  expect(outlet.frames('error')).toMatchObject([{ id: 1, code: 'internal', retryable: true }]);
  expect(JSON.stringify(outlet.told)).not.toContain('secret');
  expect(broken.logged).toHaveLength(1);
  await send({ type: 'ping' });
  expect(outlet.frames('pong')).toHaveLength(1);
});

test('commands behind a slow one wait, keep their order, and pause the peer before they pile up', async () => {
  let allow = (): void => undefined;
  const asked = new Promise<void>((resolve) => (allow = resolve));
  const access: Pick<Access, 'may'> = {
    may: (_identity, _action, channel) => channel !== 'slow' || asked.then(() => true),
  };
  const { session, outlet } = createHub({ access }).connect();
  session.receive('{"type":"publish","id":0,"channel":"slow","data":0}');
  for (let id = 1; id <= 40; id++) session.receive(`{"type":"ping","id":${id}}`);
  await idle();
  expect(outlet.told).toEqual([]);
  expect(outlet.paused).toBe(true);
  allow();
  await idle();
  expect(outlet.told.map((told) => told.kind === 'frame' && told.frame.id)).toEqual([...Array(41).keys()]);
  expect(outlet.paused).toBe(false);
});

test('a peer that goes on in spite of the pause is disconnected', () => {
  const access: Pick<Access, 'may'> = { may: () => new Promise(() => undefined) };
  const { session, outlet } = createHub({ access }).connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  for (let sent = 0; sent <= 10_001 && outlet.ended === undefined; sent++) session.receive('{"type":"ping"}');
  expect(outlet.ended).toEqual({ code: 1008, reason: 'rate_limited' });
});

test('after the end nothing is read, told or kept', async () => {
  const { hub, sessions, connect } = createHub();
  const { session, outlet, send } = connect();
  await send({ type: 'subscribe', channel: 'a' });
  const told = outlet.told.length;
  session.end(1000);
  session.end(1000);
  await send({ type: 'ping' });
  expect(outlet.told).toHaveLength(told);
  expect([sessions.size, hub.channelCount, hub.subscriptionCount]).toEqual([0, 0, 0]);
});

test('metrics hear what happened', async () => {
  const heard: unknown[] = [];
  const note =
    (name: string) =>
    (...values: unknown[]) =>
      heard.push([name, ...values]);
  const observer = {
    connection: note('connection'),
    disconnection: note('disconnection'),
    received: note('received'),
    published: note('published'),
    delivered: note('delivered'),
    sent: note('sent'),
    broadcastFailed: note('broadcastFailed'),
    lost: note('lost'),
    recovery: note('recovery'),
    historyRead: note('historyRead'),
    error: note('error'),
    rateLimited: note('rateLimited'),
  };
  const { connect } = createHub({ observer });
  const { session, send } = connect();
  await send({ type: 'subscribe', channel: 'a' });
  await send({ type: 'publish', channel: 'a', data: 1 });
  await send({ type: 'nonsense' });
  session.end(1000);
  expect(heard).toEqual([
    ['connection', 'websocket', 'accepted'],
    ['received', 'subscribe'],
    ['received', 'publish'],
    ['delivered', 'a', 1, 0],
    // It counts once the log has it, which in memory is after those who are here have it.
    ['published', 'client', 'a'],
    ['received', 'invalid'],
    ['error', 'unknown_command'],
    ['disconnection', 'websocket', 1000],
  ]);
});
