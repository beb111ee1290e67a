// What the client does when the server says something that no real one says on demand, and when time passes that no test
// may wait for. The server here is a function, the clock moves by hand.

import { describe, expect, test } from 'bun:test';
import { Sobranie, SobranieError, type ConnectionStatus, type SobranieOptions } from '@sobranie/client';
import { seed } from '../support/random.ts';
import { FakeServer, World, type ClientFrame, type FakeSocket } from './simulation.ts';

function setUp(options: SobranieOptions = {}) {
  const world = new World(seed);
  const server = new FakeServer();
  server.onCommand = answer;
  const client = new Sobranie('http://server', { platform: world.platform(server), ...options });
  const seen: ConnectionStatus[] = [];
  client.on('status', (status) => seen.push(status));
  return { world, server, client, seen };
}

/** As a server with empty channels would. */
function answer(socket: FakeSocket, { type, id, channel, channels }: ClientFrame): void {
  if (type === 'subscribe') {
    for (const entry of (channels ?? [{ channel }]) as { channel: string; since?: object }[]) {
      const state = { channel: entry.channel, recoverable: true, epoch: 'e', offset: 0 };
      socket.say({ type: 'subscribed', id, ...state, ...(entry.since && { recovered: true }) });
    }
  } else if (type === 'unsubscribe') socket.say({ type: 'unsubscribed', id, channel });
  else if (type === 'publish') socket.say({ type: 'published', id, channel, epoch: 'e', offset: 1 });
  else if (type === 'ping') socket.say({ type: 'pong' });
  else if (type === 'refresh') socket.say({ type: 'refreshed', id });
}

const last = (server: FakeServer): FakeSocket => [...server.sockets].at(-1)!;
const sent = (server: FakeServer, type: string): ClientFrame[] => server.commands.filter((each) => each.type === type);

describe('which ends are final', () => {
  const ends: [number, string, 'again' | 'final'][] = [
    [1000, '', 'again'],
    [1001, 'shutting_down', 'again'],
    [1003, '', 'final'],
    [1005, '', 'again'],
    [1006, '', 'again'],
    [1008, 'unauthorized', 'final'],
    [1008, 'token_expired', 'again'],
    [1008, 'disconnected', 'final'],
    [1008, 'rate_limited', 'again'],
    [1008, '', 'final'],
    [1009, '', 'final'],
    [1011, '', 'again'],
    [1012, '', 'again'],
    [1013, 'limit_exceeded', 'again'],
    [1013, 'unavailable', 'again'],
  ];
  test.each(ends)('%d %s: %s', async (code, reason, outcome) => {
    const { world, server, client } = setUp();
    client.channel('a').subscribe(() => undefined);
    await world.pass(100);
    last(server).end(code, reason);
    await world.pass(60_000);
    expect(client.status.state).toBe(outcome === 'final' ? 'closed' : 'connected');
    expect(server.attempts.length).toBe(outcome === 'final' ? 1 : 2);
    if (outcome === 'final') expect(client.status.error).toBeInstanceOf(SobranieError);
    client.close();
  });
});

test('after a reconnect one frame asks for all channels, each at its position', async () => {
  const { world, server, client } = setUp();
  const names = Array.from({ length: 30 }, (_, index) => `room:${index}`);
  for (const name of names) client.channel(name).subscribe(() => undefined);
  await world.pass(100);
  expect(sent(server, 'subscribe')).toHaveLength(1);
  for (const channel of names) last(server).say({ type: 'message', channel, offset: 1, data: 1, at: 1 });
  last(server).end(1006, '');
  await world.pass(10_000);
  const [, again, ...more] = sent(server, 'subscribe');
  expect(more).toEqual([]);
  expect(again?.['channels']).toEqual(names.map((channel) => ({ channel, since: { epoch: 'e', offset: 1 } })));
  client.close();
});

test('more channels than a frame may hold go in several', async () => {
  const { world, server, client } = setUp();
  const names = Array.from({ length: 2_500 }, (_, index) => `${'x'.repeat(100)}:${index}`);
  for (const name of names) client.channel(name).subscribe(() => undefined);
  await world.pass(100);
  const frames = sent(server, 'subscribe');
  const asked = frames.flatMap((frame) => frame['channels'] as { channel: string }[]);
  expect(asked.map(({ channel }) => channel)).toEqual(names);
  expect(Math.max(...frames.map((frame) => JSON.stringify(frame).length))).toBeLessThan(65_536);
  client.close();
});

test('a silent link is found within 60 s, and a wake finds it at once', async () => {
  const { world, server, client } = setUp();
  client.channel('a').subscribe(() => undefined);
  await world.pass(1_000);
  last(server).isMute = true;
  const mutedAt = world.now;
  await world.pass(60_000);
  expect(server.attempts).toHaveLength(2);
  expect((server.attempts[1] ?? Infinity) - mutedAt).toBeLessThan(60_000);
  expect(client.status.state).toBe('connected');
  // A quiet one that answers is kept.
  await world.pass(600_000);
  expect(server.attempts).toHaveLength(2);
  client.close();
});

test('what is said to come later is sent then, and not before', async () => {
  const { world, server, client } = setUp();
  let refused = 0;
  server.onCommand = (socket, command) => {
    if (command.type !== 'publish' || refused++ > 0) return answer(socket, command);
    const { id, channel } = command;
    socket.say({ type: 'error', id, channel, code: 'rate_limited', message: 'slow', retryable: true, retryAfter: 7 });
  };
  let position: unknown;
  void client
    .channel('a')
    .publish(1)
    .then((published) => (position = published));
  await world.pass(7_000);
  expect(sent(server, 'publish')).toHaveLength(1);
  await world.pass(1_000);
  expect(sent(server, 'publish')).toHaveLength(2);
  expect(position).toEqual({ epoch: 'e', offset: 1 });
  const [first, second] = sent(server, 'publish');
  expect(second?.['key']).toBe(first?.['key']);
  client.close();
});

test('later than the time that is left is too late: the caller is told why', async () => {
  const { world, server, client } = setUp();
  server.onCommand = (socket, { id }) =>
    socket.say({ type: 'error', id, code: 'rate_limited', message: 'slow', retryable: true, retryAfter: 60 });
  const outcome = client
    .channel('a')
    .publish(1, { timeoutMs: 10_000 })
    .catch((error: unknown) => error);
  await world.pass(100);
  expect(await outcome).toMatchObject({ code: 'rate_limited', retryable: true, retryAfter: 60 });
  client.close();
});

test('a request that nobody answers is given up in time', async () => {
  const { world, server, client } = setUp();
  server.isUp = false;
  const outcome = client
    .channel('a')
    .publish(1, { timeoutMs: 5_000 })
    .catch((error: unknown) => error);
  await world.pass(6_000);
  expect(await outcome).toMatchObject({ code: 'timeout' });
  // Nothing is left to connect for.
  await world.pass(30_000);
  expect(client.status.state).toBe('idle');
});

test('a channel that cannot be had now is asked for again', async () => {
  const { world, server, client } = setUp();
  let refusals = 2;
  server.onCommand = (socket, command) => {
    if (command.type !== 'subscribe' || refusals-- <= 0) return answer(socket, command);
    socket.say({ type: 'error', id: 's', channel: 'a', code: 'unavailable', message: 'later', retryable: true });
  };
  const channel = client.channel('a');
  channel.subscribe(() => undefined);
  await world.pass(5_000);
  expect(channel.state).toBe('live');
  // So is one that the server ended because it could not ask.
  last(server).say({ type: 'unsubscribed', channel: 'a', reason: 'unavailable' });
  expect(channel.state).toBe('joining');
  await world.pass(5_000);
  expect(channel.state).toBe('live');
  last(server).say({ type: 'unsubscribed', channel: 'a', reason: 'forbidden' });
  await world.pass(30_000);
  expect(channel.state).toBe('failed');
  client.close();
});

test('who iterates over a channel that has failed is told so, before and after', async () => {
  const { world, server, client } = setUp();
  server.onCommand = (socket, { id }) =>
    socket.say({
      type: 'error',
      id,
      channel: 'a',
      code: 'forbidden',
      message: 'No rule allows this.',
      retryable: false,
    });
  const channel = client.channel('a');
  const next = channel
    .events()
    .next()
    .catch((error: unknown) => error);
  await world.pass(100);
  expect(await next).toMatchObject({ code: 'forbidden' });
  const stop = channel.subscribe(() => undefined);
  await world.pass(100);
  expect([channel.state, channel.error?.code]).toEqual(['failed', 'forbidden']);
  expect(
    await channel
      .events()
      .next()
      .catch((error: unknown) => error),
  ).toMatchObject({ code: 'forbidden' });
  stop();
  client.close();
});

test('a drain is followed at the time that was told', async () => {
  const { world, server, client } = setUp();
  client.channel('a').subscribe(() => undefined);
  await world.pass(20_000);
  last(server).say({ type: 'drain', after: 3_000, deadline: 0 });
  await world.pass(2_900);
  expect(server.attempts).toHaveLength(1);
  await world.pass(200);
  expect(server.attempts).toHaveLength(2);
  client.close();
});

test('a server that closes at the moment it told is left without a further pause', async () => {
  const { world, server, client } = setUp();
  client.channel('a').subscribe(() => undefined);
  await world.pass(20_000);
  last(server).say({ type: 'drain', after: 3_000, deadline: 0 });
  await world.pass(2_990);
  last(server).end(1001, 'shutting_down');
  await world.pass(20);
  expect(server.attempts).toHaveLength(2);
  client.close();
});

test('a server that drains at once, again and again, is not asked in a circle', async () => {
  const { world, server, client } = setUp();
  server.onCommand = (socket, command) => {
    answer(socket, command);
    socket.say({ type: 'drain', after: 0, deadline: 0 });
  };
  client.channel('a').subscribe(() => undefined);
  await world.pass(60_000);
  expect(server.attempts.length).toBeLessThan(40);
  client.close();
});

test('before a token ends another one is sent, and asked for again if it cannot be had', async () => {
  let asked = 0;
  const token = async (): Promise<string> => {
    if (++asked === 2) throw new Error('offline');
    return `token-${asked}`;
  };
  const { world, server, client } = setUp({ token });
  const errors: string[] = [];
  client.on('error', ({ code }) => errors.push(code));
  client.channel('a').subscribe(() => undefined);
  await world.pass(100);
  expect(last(server).protocols).toEqual(['sobranie', 'bearer.token-1']);
  last(server).say({ type: 'error', code: 'token_expired', message: 'soon', retryable: false, expires: 1 });
  await world.pass(5_000);
  expect(sent(server, 'refresh').map((frame) => frame['token'])).toEqual(['token-3']);
  expect(errors).toEqual(['token_expired']);
  expect(server.attempts).toHaveLength(1);
  client.close();
});

test('a token that never comes keeps nobody offline for ever', async () => {
  let asked = 0;
  const token = (): Promise<string> => (++asked === 1 ? new Promise(() => undefined) : Promise.resolve('token'));
  const { world, client } = setUp({ token });
  client.channel('a').subscribe(() => undefined);
  await world.pass(40_000);
  expect(client.status.state).toBe('connected');
  client.close();
});

test('a frame too large is given up, and the rest goes on', async () => {
  const { world, server, client } = setUp();
  server.onCommand = (socket, command) => {
    if (JSON.stringify(command).length > 1_000) socket.end(1009, '');
    else answer(socket, command);
  };
  const outcomes = Promise.allSettled([client.channel('a').publish('x'.repeat(2_000)), client.channel('a').publish(1)]);
  await world.pass(20_000);
  const [large, small] = await outcomes;
  expect(large).toMatchObject({ status: 'rejected', reason: { code: 'too_large' } });
  expect(small.status).toBe('fulfilled');
  client.close();
});

test('a listener that throws harms nobody else', async () => {
  const { world, server, client } = setUp();
  const channel = client.channel('a');
  const uncaught: unknown[] = [];
  const own = globalThis.queueMicrotask;
  const got: unknown[] = [];
  channel.subscribe(() => {
    throw new Error('a bug of the page');
  });
  channel.subscribe(({ data }) => got.push(data));
  await world.pass(100);
  globalThis.queueMicrotask = (run) => {
    try {
      run();
    } catch (error) {
      uncaught.push(error);
    }
  };
  last(server).say({ type: 'message', channel: 'a', offset: 1, data: 1, at: 1 });
  globalThis.queueMicrotask = own;
  expect([got, uncaught.length]).toEqual([[1], 1]);
  client.close();
});

test('a channel that is left and wanted again at once stays subscribed', async () => {
  const { world, server, client } = setUp();
  const stop = client.channel('a').subscribe(() => undefined);
  await world.pass(100);
  stop();
  await world.pass(100);
  const stopAgain = client.channel('a').subscribe(() => undefined);
  await world.pass(10_000);
  expect([sent(server, 'subscribe').length, sent(server, 'unsubscribe').length]).toEqual([1, 0]);
  stopAgain();
  await world.pass(1_000);
  expect(sent(server, 'unsubscribe')).toHaveLength(1);
  await world.pass(10_000);
  expect([client.status.state, server.sockets.size]).toEqual(['idle', 0]);
});

test('who is here: a list, then what continues it, and one entry for each user', async () => {
  const { world, server, client } = setUp();
  const member = (user: string | null, connection: string, data = {}) => ({ user, connection, data, since: 1 });
  server.onCommand = (socket, command) => {
    const { id, channel } = command;
    const members = [member('ann', '1'), member('ann', '2'), member(null, '3')];
    if (command.type === 'presence') socket.say({ type: 'presence', id, channel, count: 2, members });
    else answer(socket, command);
  };
  const { presence } = client.channel('a');
  const seen: string[] = [];
  presence.subscribe((members) => seen.push(members.map(({ user }) => user ?? '?').join(' ')));
  const leave = presence.enter({ name: 'Ann' });
  await world.pass(100);
  expect(sent(server, 'subscribe').at(-1)).toMatchObject({ presence: { name: 'Ann' } });
  for (const [type, user] of [
    ['join', 'bob'],
    ['leave', 'ann'],
    ['update', 'bob'],
  ] as const) {
    last(server).say({ type, channel: 'a', member: member(user, '9') });
  }
  expect(seen).toEqual(['ann ?', 'ann ? bob', '? bob', '? bob']);
  leave();
  client.close();
});

describe('in a page', () => {
  /** What the client looks for in a page, and hands to move it. */
  function page(isWorkerAllowed: boolean) {
    const listeners = new Map<string, Set<(event: { type: string }) => void>>();
    const target = {
      visibilityState: 'hidden',
      addEventListener: (type: string, listener: (event: { type: string }) => void) =>
        void listeners.set(type, (listeners.get(type) ?? new Set()).add(listener)),
      removeEventListener: (type: string, listener: (event: { type: string }) => void) =>
        void listeners.get(type)?.delete(listener),
    };
    const workers = new Set<{ onmessage: (() => void) | null }>();
    class FakeWorker {
      onmessage: (() => void) | null = null;
      constructor() {
        if (!isWorkerAllowed) throw new Error('the page allows no workers');
        workers.add(this);
      }
      terminate(): void {
        workers.delete(this);
      }
    }
    const globals = globalThis as Record<string, unknown>;
    const { addEventListener, removeEventListener } = target;
    const before = { document: globals['document'], Worker: globals['Worker'] };
    const own = { addEventListener: globals['addEventListener'], removeEventListener: globals['removeEventListener'] };
    Object.assign(globals, { document: target, Worker: FakeWorker, addEventListener, removeEventListener });
    return {
      target,
      workers,
      say: (type: string) => listeners.get(type)?.forEach((listener) => listener({ type })),
      [Symbol.dispose]: () => void Object.assign(globals, before, own),
    };
  }

  test('that is hidden a dead link is found within 60 s, though its timers run once a minute', async () => {
    using hidden = page(true);
    const { world, server, client } = setUp({});
    // As browsers do with pages that are hidden for a while.
    const throttled = { ...world.platform(server) };
    throttled.setTimeout = (run, ms) =>
      world.setTimeout(run, Math.ceil((world.now + ms) / 60_000) * 60_000 - world.now);
    const own = new Sobranie('http://server', { platform: throttled });
    own.channel('a').subscribe(() => undefined);
    await world.pass(61_000);
    expect(own.status.state).toBe('connected');
    last(server).isMute = true;
    const mutedAt = world.now;
    for (let tick = 0; tick < 12; tick++) {
      await world.pass(5_000);
      for (const worker of hidden.workers) worker.onmessage?.();
    }
    expect((server.attempts.at(-1) ?? 0) - mutedAt).toBeWithin(1, 60_000);
    await world.pass(10);
    expect(own.status.state).toBe('connected');
    own.close();
    await world.settle();
    expect(hidden.workers.size).toBe(0);
    client.close();
  });

  test('that allows no workers everything works as long as it is seen', async () => {
    using seen = page(false);
    const { world, server, client } = setUp();
    client.channel('a').subscribe(() => undefined);
    await world.pass(1_000);
    last(server).isMute = true;
    await world.pass(60_000);
    expect(server.attempts).toHaveLength(2);
    expect(seen.workers.size).toBe(0);
    client.close();
  });

  test.each(['online', 'visibilitychange', 'pageshow', 'resume'])('%s: a dead link is found at once', async (event) => {
    using shown = page(true);
    shown.target.visibilityState = 'visible';
    const { world, server, client } = setUp();
    client.channel('a').subscribe(() => undefined);
    await world.pass(1_000);
    // One that lives is kept.
    shown.say(event);
    await world.pass(6_000);
    expect(server.attempts).toHaveLength(1);
    last(server).isMute = true;
    shown.say(event);
    await world.pass(6_000);
    expect(server.attempts).toHaveLength(2);
    // Who waits tries at once.
    server.cutAll();
    await world.pass(100);
    const before = server.attempts.length;
    shown.say(event);
    await world.pass(5);
    expect(server.attempts.length).toBe(before + 1);
    client.close();
  });
});
