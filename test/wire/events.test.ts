// The event stream endpoint as its users see it: what opens a stream, what stands on it, and how one is refused.

import { beforeAll, expect, test } from 'bun:test';
import { EventClient, EventParser, Refused, type EventOptions, type ReceivedEvent } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { call, describeWire, errorOf, publish, sample } from './wire.ts';
import { patient } from '../support/patience.ts';

patient();

async function refusal(server: RunningServer, options: EventOptions): Promise<Refused> {
  const answer = await EventClient.open(server.url, options).catch((error: unknown) => error);
  if (!(answer instanceof Refused)) throw new Error(`was not refused: ${String(answer)}`);
  return answer;
}

test('the parser of these tests reads a stream as browsers do, however it is cut into chunks', () => {
  const bytes = new TextEncoder().encode(
    '\ufeffretry: 5\r\n: c\r\rid:7\ndata: {"a":"é👩"}\r\n\r\n' +
      'event: gap\ndata:{"b":2}\nid\n\nid: 8\0\ndata: 1\n\ndata: 2\n',
  );
  const expected = [
    ['message', '{"a":"é👩"}', '7'],
    ['gap', '{"b":2}', ''],
    ['message', '1', ''],
  ];
  for (let size = 1; size <= bytes.length; size++) {
    const received: ReceivedEvent[] = [];
    const parser = new EventParser('before', (event) => received.push(event));
    for (let at = 0; at < bytes.length; at += size) parser.push(bytes.subarray(at, at + size));
    expect(received.map(({ type, data, lastEventId }) => [type, data, lastEventId])).toEqual(expected);
    expect([parser.retryMs, parser.comments]).toEqual([5, ['c']]);
  }
});

describeWire('Event streams', (wire) => {
  // Quiet streams of another server: what each hears in 30 s is measured while the other tests run.
  const quietCount = 15;
  let quiet: { readonly openedAt: number; readonly streams: EventClient[]; readonly pinged: EventClient };
  beforeAll(async () => {
    const { url } = await wire.start();
    const opening = Array.from({ length: quietCount }, () => EventClient.open(url, { query: 'channels=quiet' }));
    const pinged = await EventClient.open(url, { query: 'channels=quiet&ping=1' });
    quiet = { openedAt: performance.now(), streams: await Promise.all(opening), pinged };
  }, 20_000);

  /** The shared server, when nobody is connected any more. */
  const empty = async (): Promise<RunningServer> => {
    const server = await wire.server();
    await until(async () => (await sample(server, 'sobranie_channels_active')) === 0, 'nobody is connected');
    return server;
  };

  test('headers say that it is a stream, and that nobody may cache or buffer it', async () => {
    const stream = await wire.stream(await wire.server(), { query: `channels=${wire.channel()}` });
    expect(stream.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(stream.headers.get('cache-control')).toBe('no-cache, no-transform');
    expect(stream.headers.get('x-accel-buffering')).toBe('no');
  });

  test('welcome comes first, with channels, an id, and a retry that is jittered per connection', async () => {
    const server = await wire.start({ SSE_RETRY: '1000', NODE_ID: 'node-b', HEARTBEAT: '32' });
    const channel = wire.channel();
    const { epoch } = await publish(server, channel, 1);
    const retries = new Set<number>();
    for (let index = 0; index < 20; index++) {
      const tcp = await wire.tcp(server);
      tcp.write(`GET /realtime/events?channels=${channel} HTTP/1.1\r\nHost: ${tcp.host}\r\n\r\n`);
      await tcp.waitFor(() => tcp.received.includes('data: {"type":"welcome"'), 'welcome');
      // In the block of the welcome: a block of its own would be a message without data to some clients.
      const retry = /\r\nevent: welcome\nretry: (\d+)\nid: /.exec(tcp.received.toString())?.[1];
      retries.add(Number(retry));
    }
    expect(Math.min(...retries)).toBeGreaterThanOrEqual(500);
    expect(Math.max(...retries)).toBeLessThanOrEqual(1_500);
    expect(retries.size).toBeGreaterThan(5);

    const stream = await wire.stream(server, { query: `channels=${channel},ephemeral:x,${channel}` });
    const welcome = await stream.nextAny();
    expect(welcome.type).toBe('welcome');
    expect(welcome.lastEventId).toMatch(/^[\w.-]+$/);
    expect(welcome.frame).toEqual({
      type: 'welcome',
      connection: expect.stringMatching(/^\w{8,}$/),
      user: null,
      node: 'node-b',
      heartbeat: 15,
      channels: [
        { channel, recoverable: true, epoch, offset: 1 },
        { channel: 'ephemeral:x', recoverable: false },
      ] as never,
    });
  });

  test('an event’s data is the frame that a WebSocket gets, byte for byte', async () => {
    const server = await wire.server();
    const channels = [wire.channel(), wire.channel('ephemeral')];
    const texts: string[] = [];
    const socket = await wire.socket(server, {
      query: `channels=${channels.join(',')}`,
      onText: (text) => texts.push(text),
    });
    await until(() => texts.length === 3, 'welcome and two replies');
    const stream = await wire.stream(server, { query: `channels=${channels.join(',')}` });
    await stream.next('welcome');
    for (const channel of channels) {
      await publish(server, channel, { text: 'line\nbreak\r\u2028\u0000 "é👩' });
      socket.send({ type: 'publish', channel, data: [channel] });
    }
    await until(() => texts.filter((text) => text.includes('"message"')).length === 4, 'four messages');
    const events = [];
    while (events.length < 4) events.push(await stream.nextAny());
    expect(events.map(({ type }) => type)).toEqual(Array(4).fill('message'));
    expect(events.map(({ data }) => data)).toEqual(texts.filter((text) => text.includes('"type":"message"')));
    // Two positions were reached beside the first: an ephemeral message moves nothing, whenever it comes.
    expect([2, 3]).toContain(new Set(events.map(({ lastEventId }) => lastEventId)).size);
  });

  test('a cursor is compact', async () => {
    const server = await wire.server();
    const names = Array.from({ length: 50 }, () => wire.channel('a-rather-long-namespace'));
    const stream = await wire.stream(server, { query: `channels=${names.join(',')}` });
    await publish(server, names[49]!, 1);
    const { lastEventId } = await stream.next('message');
    expect(lastEventId.length).toBeLessThan(800);
  });

  test('1 to 50 channels, each counted once', async () => {
    const server = await wire.server();
    const names = Array.from({ length: 50 }, (_, index) => `c${index}`);
    const stream = await wire.stream(server, { query: `channels=${[...names, ...names].join(',')}` });
    expect((await stream.next('welcome')).frame.channels).toHaveLength(50);
    for (const query of ['', 'channels=', 'channels=,,', `channels=${names.join(',')},c50`]) {
      const { status, body } = await refusal(server, { query });
      expect(status).toBe(400);
      expect(errorOf(body)).toMatchObject({ code: 'bad_request', retryable: false });
    }
    for (const name of ['a%20b', 'a%00', '%F0%9F%98%80', 'a$', '%22', 'x'.repeat(257), '%E0%A4%A', '%25', '$']) {
      const { status, body, headers } = await refusal(server, { query: `channels=ok,${name}` });
      expect(status).toBe(400);
      expect(errorOf(body)).toMatchObject({ code: 'bad_channel', retryable: false });
      expect(headers.get('content-type')).toStartWith('application/json');
    }
  });

  // The runtime once refused heads of more than 16 KiB, by a 431 without a body: fifty long names beside a token were too much.
  test('50 channels of the longest names are opened, with the largest token and cursor, however they are encoded', async () => {
    const server = await wire.server();
    const names = Array.from({ length: 50 }, (_, index) => `${index}`.padEnd(256, ':'));
    const query = new URLSearchParams({ token: 'x'.repeat(8 << 10), channels: names.join(',') }).toString();
    const stream = await wire.stream(server, { query, lastEventId: 'x'.repeat(4 << 10) });
    const { frame } = await stream.next('welcome');
    expect(frame.channels?.map(({ channel }) => channel)).toEqual(names);
  });

  // The limit's answer once lacked Retry-After, because its code is not marked as retryable.
  test('past the limit of connections a stream is refused with 429 and Retry-After', async () => {
    const server = await wire.start({ MAX_CONNECTIONS: '1' });
    const first = await wire.stream(server, { query: 'channels=a' });
    const { status, body, headers } = await refusal(server, { query: 'channels=a' });
    expect(status).toBe(429);
    expect(errorOf(body)).toMatchObject({ code: 'limit_exceeded' });
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
    await first.cut();
    await until(async () => (await sample(server, 'sobranie_sse_connections_active')) === 0, 'the first has left');
    await wire.stream(server, { query: 'channels=a' });
  });

  test('HEAD answers the same headers and leaves nothing behind', async () => {
    const server = await empty();
    for (let index = 0; index < 20; index++) {
      const answer = await call(server, '/realtime/events?channels=a,b', { method: 'HEAD' });
      expect([answer.status, answer.text]).toEqual([200, '']);
      expect(answer.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    }
    const gone = async (): Promise<boolean> => (await sample(server, 'sobranie_sse_connections_active')) === 0;
    await until(gone, 'streams of HEAD requests are gone');
    expect(await sample(server, 'sobranie_channels_active')).toBe(0);
  });

  test('a stream that is cut leaves at once, also when it is quiet', async () => {
    const server = await empty();
    const streams = [];
    for (let index = 0; index < 50; index++) streams.push(await wire.stream(server, { query: 'channels=a,b,c' }));
    expect(await sample(server, 'sobranie_subscriptions_active')).toBe(150);
    for (const stream of streams) await stream.cut();
    await until(async () => (await sample(server, 'sobranie_subscriptions_active')) === 0, 'no subscriptions');
    expect(await sample(server, 'sobranie_channels_active')).toBe(0);
    expect(await sample(server, 'sobranie_sse_connections_active')).toBe(0);
  });

  test('streams that join and leave while messages pass get all of theirs, in order', async () => {
    const server = await wire.server();
    const [a, b] = [wire.channel(), wire.channel()];
    const publisher = await wire.subscriber(server);
    const held = await wire.stream(server, { query: `channels=${a},${b}` });
    const comers: EventClient[] = [];
    const gone = new Set<EventClient>();
    for (let round = 1; round <= 40; round++) {
      for (const channel of [a, b, a]) publisher.send({ type: 'publish', channel, data: round });
      comers.push(await wire.stream(server, { query: `channels=${a},${b}` }));
      if (round % 3 !== 0) continue;
      const leaver = comers[Math.floor(round / 2)]!;
      gone.add(leaver);
      await leaver.cut();
    }
    await publisher.settle();
    for (const stream of [held, ...comers.filter((comer) => !gone.has(comer))]) {
      const { channels } = (await stream.next('welcome')).frame;
      const expected = new Map(channels!.map(({ channel, offset }) => [channel!, offset! + 1]));
      const ends = new Map([
        [a, 81],
        [b, 41],
      ]);
      while ([...ends].some(([channel, end]) => expected.get(channel)! < end)) {
        const { frame } = await stream.next('message');
        expect(frame.offset).toBe(expected.get(frame.channel!));
        expected.set(frame.channel!, frame.offset! + 1);
      }
    }
  });

  // A server with few streams sent each of them a comment every two seconds.
  test('a quiet stream hears something every 15 s, and no more often: a comment, or an event if it asked for pings', async () => {
    const { openedAt, streams, pinged } = quiet;
    const heard = (): boolean => streams.every(({ comments }) => comments.length > 0);
    await until(heard, 'a comment on every stream', Math.max(1, openedAt + 20_000 - performance.now()));
    const ping = await pinged.next('ping');
    expect([ping.data, ping.lastEventId]).toEqual(['{"type":"ping"}', (await pinged.next('welcome')).lastEventId]);
    await pinged.next('ping', 20_000);
    const rounds = Math.ceil((performance.now() - openedAt) / 15_000);
    for (const { comments } of streams) expect(comments.length).toBeLessThanOrEqual(rounds);
    expect(pinged.comments).toEqual([]);
    for (const stream of [...streams, pinged]) await stream.cut();
  }, 50_000);
});
