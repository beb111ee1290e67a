// What pages do without a thought: give the same function twice, publish what no JSON can hold, change what they have
// given, leave a loop that waits. It harms neither the others nor what comes later.

import { describe, expect, test } from 'bun:test';
import { Sobranie, type Member } from '@sobranie/client';
import { seed } from '../support/random.ts';
import { FakeServer, World, type ClientFrame, type FakeSocket } from './simulation.ts';

function setUp() {
  const world = new World(seed);
  const server = new FakeServer();
  server.onCommand = answer;
  const client = new Sobranie('http://server', { platform: world.platform(server) });
  return { world, server, client };
}

function answer(socket: FakeSocket, { type, id, channel, channels }: ClientFrame): void {
  if (type === 'subscribe') {
    for (const entry of (channels ?? [{ channel }]) as { channel: string }[]) {
      socket.say({ type: 'subscribed', id, channel: entry.channel, recoverable: true, epoch: 'e', offset: 0 });
    }
  } else if (type === 'unsubscribe') socket.say({ type: 'unsubscribed', id, channel });
  else if (type === 'publish') socket.say({ type: 'published', id, channel, epoch: 'e', offset: 1 });
  else if (type === 'presence') socket.say({ type: 'presence', id, channel, count: 0, members: [] });
}

const last = (server: FakeServer): FakeSocket => [...server.sockets].at(-1)!;
const sent = (server: FakeServer, type: string): ClientFrame[] => server.commands.filter((each) => each.type === type);
const message = (offset: number) => ({ type: 'message', channel: 'a', offset, data: offset, at: 1 });

describe('listeners', () => {
  // Two components gave the same function. The first that was unmounted took the messages of the other one with it.
  test('the same function listens as often as it was given, and each ends by itself', async () => {
    const { world, server, client } = setUp();
    const got: unknown[] = [];
    const listener = ({ data }: { data: unknown }): unknown => got.push(data);
    const [one, other] = [client.channel('a').subscribe(listener), client.channel('a').subscribe(listener)];
    await world.pass(100);
    last(server).say(message(1));
    await world.pass(100);
    expect(got).toEqual([1, 1]);
    one();
    one();
    last(server).say(message(2));
    await world.pass(100);
    expect(got).toEqual([1, 1, 2]);
    other();
    last(server).say(message(3));
    await world.pass(100);
    expect(got).toEqual([1, 1, 2]);
    client.close();
  });

  test('who begins within a message hears the next one, and who stops hears nothing more', async () => {
    const { world, server, client } = setUp();
    const channel = client.channel('a');
    const got: string[] = [];
    channel.subscribe(({ data }) => {
      if (data === 1) channel.subscribe((later) => got.push(`late ${String(later.data)}`));
      stop();
    });
    const stop = channel.subscribe(({ data }) => got.push(`stopped ${String(data)}`));
    await world.pass(100);
    last(server).say(message(1));
    last(server).say(message(2));
    await world.pass(100);
    expect(got).toEqual(['late 2']);
    client.close();
  });
});

describe('a channel that is left and wanted again', () => {
  // A message was on its way when the channel was left. It counted for the next subscription, whose position it moved: what
  // that one had asked for, and got after it, was dropped as known.
  test('hears nothing of the subscription before, and misses nothing of its own', async () => {
    const { world, server, client } = setUp();
    const channel = client.channel('a');
    const stop = channel.subscribe(() => undefined);
    await world.pass(100);
    server.onCommand = () => undefined;
    stop();
    await world.pass(1_000);
    expect(sent(server, 'unsubscribe')).toHaveLength(1);
    const got: unknown[] = [];
    channel.subscribe(({ data }) => got.push(data), { since: { epoch: 'e', offset: 5 } });
    await world.pass(100);
    last(server).say(message(11));
    expect([got, channel.position?.offset]).toEqual([[], 5]);
    last(server).say({ type: 'unsubscribed', id: sent(server, 'unsubscribe')[0]?.['id'], channel: 'a' });
    await world.pass(100);
    const state = { channel: 'a', recoverable: true, epoch: 'e', offset: 12, recovered: true };
    last(server).say({ type: 'subscribed', id: sent(server, 'subscribe').at(-1)?.['id'], ...state });
    for (let offset = 6; offset <= 12; offset++) last(server).say(message(offset));
    expect(got).toEqual([6, 7, 8, 9, 10, 11, 12]);
    expect(sent(server, 'subscribe').at(-1)?.['since']).toEqual({ epoch: 'e', offset: 5 });
    client.close();
  });

  test('is asked for with the next connection, where this one ends before the answer', async () => {
    const { world, server, client } = setUp();
    const channel = client.channel('a');
    const stop = channel.subscribe(() => undefined);
    await world.pass(100);
    server.onCommand = () => undefined;
    stop();
    await world.pass(1_000);
    channel.subscribe(() => undefined);
    server.onCommand = answer;
    last(server).end(1006, '');
    await world.pass(10_000);
    expect(channel.state).toBe('live');
    client.close();
  });

  test('is asked for again where the server had ended it meanwhile', async () => {
    const { world, server, client } = setUp();
    const errors: string[] = [];
    client.on('error', ({ code }) => errors.push(code));
    const channel = client.channel('a');
    const stop = channel.subscribe(() => undefined);
    await world.pass(100);
    server.onCommand = (socket, { id }) => {
      socket.say({ type: 'unsubscribed', channel: 'a', reason: 'removed' });
      socket.say({ type: 'error', id, channel: 'a', code: 'not_subscribed', message: 'no', retryable: false });
      server.onCommand = answer;
    };
    stop();
    await world.pass(1_000);
    channel.subscribe(() => undefined);
    await world.pass(1_000);
    expect([channel.state, errors]).toEqual(['live', []]);
    client.close();
  });
});

describe('what no promise tells', () => {
  // A page whose token did not open the channel stayed empty, and said nothing to anybody.
  test('a refused channel is an error of the client, once, and its name is in it', async () => {
    const { world, server, client } = setUp();
    const errors: unknown[] = [];
    client.on('error', ({ code, channel, message }) => errors.push([code, channel, message]));
    server.onCommand = (socket, { type, id, channel }) =>
      type === 'subscribe' &&
      socket.say({ type: 'error', id, channel, code: 'forbidden', message: 'No rule allows this.', retryable: false });
    client.channel('a').subscribe(() => undefined);
    await world.pass(1_000);
    expect(errors).toEqual([['forbidden', 'a', 'No rule allows this.']]);
    expect(client.status.state).toBe('connected');
    client.close();
  });

  test('so is a subscription that the server ends, and an end of the connection for good', async () => {
    const { world, server, client } = setUp();
    const errors: unknown[] = [];
    client.on('error', ({ code, channel }) => errors.push([code, channel]));
    for (const name of ['a', 'b']) client.channel(name).subscribe(() => undefined);
    await world.pass(100);
    last(server).say({ type: 'unsubscribed', channel: 'a', reason: 'removed' });
    last(server).end(1008, 'disconnected');
    await world.pass(1_000);
    expect(errors).toEqual([
      ['removed', 'a'],
      ['disconnected', undefined],
    ]);
    expect([client.channel('b').state, client.status.state]).toEqual(['failed', 'closed']);
  });

  // The whole channel failed, though nothing but the data for the others was wrong.
  test('a member whose data are too large hears the channel all the same', async () => {
    const { world, server, client } = setUp();
    const errors: string[] = [];
    client.on('error', ({ code }) => errors.push(code));
    server.onCommand = (socket, command) => {
      const { type, id, channel, presence } = command;
      if (type !== 'subscribe' || presence === undefined) return answer(socket, command);
      socket.say({ type: 'error', id, channel, code: 'too_large', message: 'too large', retryable: false });
    };
    const channel = client.channel('a');
    const leave = channel.presence.enter({ text: 'x'.repeat(5_000) });
    await world.pass(1_000);
    expect([channel.state, errors]).toEqual(['live', ['too_large']]);
    leave();
    client.close();
  });

  test('a member whom a backend has removed stays away', async () => {
    const { world, server, client } = setUp();
    const channel = client.channel('a');
    channel.presence.enter();
    await world.pass(100);
    last(server).say({ type: 'unsubscribed', channel: 'a', reason: 'removed' });
    await world.pass(10_000);
    expect([channel.state, sent(server, 'subscribe').length]).toEqual(['failed', 1]);
    client.close();
  });

  test('a member whose token was refused is in the channel with the next one', async () => {
    const { world, server, client } = setUp();
    server.refuse = () => ({ code: 1008, reason: 'unauthorized' });
    client.channel('a').presence.enter();
    await world.pass(1_000);
    expect(client.status.state).toBe('closed');
    server.refuse = () => undefined;
    server.commands.length = 0;
    client.reconnect();
    await world.pass(1_000);
    expect(sent(server, 'subscribe').map((frame) => frame['presence'])).toEqual([true]);
    client.close();
  });
});

describe('times', () => {
  // A runtime runs a timer at once that is longer than 2^31 ms: "never" was now.
  test('no timer is longer than a runtime takes', async () => {
    const world = new World(seed);
    const server = new FakeServer();
    const given = world.platform(server);
    const timers: number[] = [];
    const setTimeout = (run: () => void, ms: number): unknown => {
      timers.push(ms);
      return world.setTimeout(run, ms);
    };
    const client = new Sobranie('http://server', { platform: { ...given, setTimeout } });
    const abort = new AbortController();
    const outcome = client
      .channel('a')
      .publish(1, { timeoutMs: Infinity, signal: abort.signal })
      .catch((error: unknown) => (error as Error).name);
    await world.pass(1_000);
    abort.abort();
    expect(await outcome).toBe('AbortError');
    expect(Math.max(...timers)).toBe(2 ** 31 - 1);
    client.close();
  });
});

describe('addresses', () => {
  // `localhost:` was taken for the scheme, and the client tried for ever.
  test.each(['localhost:3000', 'live.example.com:443', 'file:///index.html', 'ftp://host'])('%s is refused', (url) => {
    expect(() => new Sobranie(url)).toThrow(`no http address: ${url}`);
  });

  test.each([
    ['http://host', 'ws://host/realtime/ws'],
    ['https://host/', 'wss://host/realtime/ws'],
    ['wss://host/realtime/ws', 'wss://host/realtime/ws'],
    ['https://host/under/here/?page=1#top', 'wss://host/under/here/realtime/ws'],
  ])('%s leads to %s', async (url, expected) => {
    const world = new World(seed);
    const server = new FakeServer();
    const client = new Sobranie(url, { platform: world.platform(server) });
    client.connect();
    await world.pass(100);
    expect(last(server).url).toBe(expected);
    client.close();
  });
});

describe('data', () => {
  const circle: Record<string, unknown> = {};
  circle['self'] = circle;

  // It waited among the requests, and failed again in front of all others with each connection.
  test('what cannot be sent is refused at once, before there is a connection and after', async () => {
    const { world, server, client } = setUp();
    const channel = client.channel('a');
    const early = Promise.allSettled([channel.publish(circle), channel.publish('fine')]);
    await world.pass(100);
    const late = Promise.allSettled([channel.publish(circle), channel.publish('fine too')]);
    await world.pass(100);
    for (const outcomes of [await early, await late]) {
      expect(outcomes).toMatchObject([{ status: 'rejected', reason: expect.any(TypeError) }, { status: 'fulfilled' }]);
    }
    last(server).end(1006, '');
    await world.pass(10_000);
    expect(sent(server, 'publish').map(({ data }) => data)).toEqual(['fine', 'fine too']);
    expect(client.status.state).toBe('idle');
    client.close();
  });

  test('a member cannot enter with it either, and the channel goes on', async () => {
    const { world, server, client } = setUp();
    const channel = client.channel('a');
    expect(() => channel.presence.enter(circle)).toThrow(TypeError);
    channel.subscribe(() => undefined);
    await world.pass(100);
    expect(channel.state).toBe('live');
    expect(sent(server, 'subscribe')).toHaveLength(1);
    client.close();
  });

  test('what is sent is what was given, whatever became of it until then', async () => {
    const { world, server, client } = setUp();
    const data = { rows: [{ id: 9_007_199_254_740_993n, at: new Date(0), text: '1n', none: undefined }] };
    const published = client.channel('a').publish(data);
    data.rows.pop();
    await world.pass(100);
    await published;
    const { rows } = sent(server, 'publish')[0]!['data'] as { rows: Record<string, unknown>[] };
    const [row] = rows;
    expect(row).toMatchObject({ at: '1970-01-01T00:00:00.000Z', text: '1n' });
    // This runtime's own JSON.parse has read the number, which went out whole.
    expect(BigInt(row?.['id'] as number)).toBe(9_007_199_254_740_992n);
    client.close();
  });
});

// As by `response.json()` without its member. The client waited half a minute, and told of no reason then.
test('a token that is no text reaches the server, which refuses it', async () => {
  const world = new World(seed);
  const server = new FakeServer();
  server.refuse = () => ({ code: 1008, reason: 'unauthorized' });
  const token = () => ({ token: 'inside' }) as unknown as string;
  const client = new Sobranie('http://server', { platform: world.platform(server), token });
  client.connect();
  await world.pass(20_000);
  expect(client.status).toMatchObject({ state: 'closed', error: { code: 'unauthorized' } });
  expect(server.attempts).toHaveLength(2);
});

describe('loops', () => {
  // Node ends a stream made of a channel so. The subscription stayed until another message came.
  test.each(['return', 'throw'] as const)('one that waits ends at once by %s', async (name) => {
    const { world, server, client } = setUp();
    const events = client.channel('a').events();
    const next = events.next();
    await world.pass(100);
    const ended = events[name]?.(new Error('over')).catch((error: unknown) => (error as Error).message);
    await world.pass(1_000);
    expect(await next).toMatchObject({ done: true });
    expect(await ended).toEqual(name === 'return' ? { value: expect.any(Error), done: true } : 'over');
    expect(await events.next()).toMatchObject({ done: true });
    expect(sent(server, 'unsubscribe')).toHaveLength(1);
    client.close();
  });

  test('one that has begun nothing yet subscribes to nothing', async () => {
    const { world, server, client } = setUp();
    const events = client.channel('a').events();
    await events.return?.();
    expect(await events.next()).toMatchObject({ done: true });
    await world.pass(1_000);
    expect(server.attempts).toEqual([]);
  });
});

describe('members', () => {
  async function entered() {
    const { world, server, client } = setUp();
    const { presence } = client.channel('a');
    const seen: (readonly Member[])[] = [];
    presence.subscribe((members) => seen.push(members));
    await world.pass(100);
    server.commands.length = 0;
    const lastEntry = (): unknown => sent(server, 'subscribe').at(-1)?.['presence'];
    return { world, server, client, presence, lastEntry };
  }

  // Two components of a page were in a channel: the first that was unmounted took the other one out as well.
  test('who entered twice is in until both have left', async () => {
    const { world, server, client, presence, lastEntry } = await entered();
    const [one, other] = [presence.enter(), presence.enter()];
    await world.pass(1_000);
    one();
    one();
    await world.pass(1_000);
    expect([lastEntry(), sent(server, 'unsubscribe').length]).toEqual([true, 0]);
    other();
    await world.pass(1_000);
    expect([lastEntry(), sent(server, 'unsubscribe').length]).toEqual([undefined, 1]);
    client.close();
  });

  test('the data are those of the newest who has not left', async () => {
    const { world, server, client, presence } = await entered();
    const data = (): unknown[] => sent(server, 'presence').map((frame) => frame['data'] ?? null);
    presence.enter();
    await world.pass(100);
    server.commands.length = 0;
    const busy = presence.enter({ mood: 'busy' });
    await world.pass(100);
    busy();
    await world.pass(1_000);
    // As one who enters without data has them: none.
    expect(data()).toEqual([{ mood: 'busy' }, null]);
    expect(sent(server, 'unsubscribe')).toEqual([]);
    client.close();
  });
});
