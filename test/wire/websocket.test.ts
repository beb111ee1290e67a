// The WebSocket endpoint as its users see it: each command and its reply, each error code and each close code.

import { beforeAll, expect, test } from 'bun:test';
import { opcodes, Refused, WebSocketClient } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { call, describeWire, errorOf, publish, publishMany, sample } from './wire.ts';

const dataBytesMax = 65_536;
/** With room for what stands around the data. */
const frameBytesMax = dataBytesMax + 8_192;

describeWire('WebSocket', (wire) => {
  // A quiet socket of another server, whose first ping comes while the other tests run.
  let named: RunningServer;
  let quiet: WebSocketClient;
  beforeAll(async () => {
    named = await wire.start({ NODE_ID: 'node-a', HEARTBEAT: '8' });
    quiet = await WebSocketClient.open(named.url);
  }, 20_000);

  test('welcome is the first frame and names connection, user, node and heartbeat', async () => {
    const [first, second] = [await wire.socket(named), await wire.socket(named)];
    const welcome = await first.nextAny();
    expect(welcome).toEqual({
      type: 'welcome',
      connection: expect.stringMatching(/^\w{8,}$/),
      user: null,
      node: 'node-a',
      heartbeat: 8,
    });
    expect((await second.nextAny()).connection).not.toBe(welcome.connection!);
  });

  test('the runtime’s own client can talk to it', async () => {
    const server = await wire.server();
    const socket = new WebSocket(`${server.url.replace('http', 'ws')}/realtime/ws`, ['sobranie', 'bearer.abc']);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    socket.onmessage = ({ data }) => resolve(String(data));
    socket.onerror = () => reject(new Error('the connection failed'));
    expect(JSON.parse(await promise)).toMatchObject({ type: 'welcome' });
    expect(socket.protocol).toBe('sobranie');
    const closed = Promise.withResolvers<number>();
    socket.onclose = ({ code }) => closed.resolve(code);
    socket.close(1000);
    expect(await closed.promise).toBe(1000);
  });

  test('the subprotocol is answered with sobranie alone, whatever else is offered', async () => {
    const server = await wire.server();
    for (const offer of ['sobranie', 'sobranie, bearer.abc', 'bearer.abc,sobranie']) {
      const socket = await wire.socket(server, { headers: { 'Sec-WebSocket-Protocol': offer } });
      expect(socket.subprotocol).toBe('sobranie');
    }
    expect((await wire.socket(server)).subprotocol).toBeUndefined();
  });

  test('channels of the query are subscribed at once, in order, each once', async () => {
    const server = await wire.server();
    const [a, b] = [wire.channel(), wire.channel()];
    const socket = await wire.socket(server, { query: `channels=${a},${b},${a}` });
    expect((await socket.nextAny()).type).toBe('welcome');
    expect(await socket.nextAny()).toMatchObject({ type: 'subscribed', channel: a, offset: 0 });
    expect(await socket.nextAny()).toMatchObject({ type: 'subscribed', channel: b, offset: 0 });
    await publish(server, b, 1);
    expect(await socket.next('message')).toMatchObject({ channel: b, offset: 1, data: 1 });
    expect(await socket.settle()).toEqual([]);
  });

  test('a bad name among the channels of the query is an error, and the others are subscribed', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.socket(server, { query: `channels=no%20name,${channel}` });
    expect(await socket.next('error')).toMatchObject({ code: 'bad_channel', retryable: false });
    expect(await socket.next('subscribed')).toMatchObject({ channel });
  });

  // Characters past U+FFFF once counted twice, in ids, keys and names of users, but not in the keys of SQL.
  test('a reply repeats the id of its command, whatever kind of id it is', async () => {
    const socket = await wire.subscriber(await wire.server());
    for (const id of [0, -1, 7, Number.MAX_SAFE_INTEGER, '', 'x', 'y'.repeat(64), '😀'.repeat(64), '\u0000"\\ 名']) {
      socket.send({ type: 'ping', id });
      expect(await socket.nextAny()).toEqual({ type: 'pong', id });
    }
    socket.send({ type: 'ping' });
    expect(await socket.nextAny()).toEqual({ type: 'pong' });
  });

  test('an id of another kind is a bad request', async () => {
    const socket = await wire.subscriber(await wire.server());
    for (const id of [1.5, 1e300, 'x'.repeat(65), '😀'.repeat(65), true, {}, [1]]) {
      socket.send({ type: 'ping', id });
      expect(await socket.nextAny()).toMatchObject({ type: 'error', code: 'bad_request', retryable: false });
    }
  });

  test('subscribed names the head of a recoverable channel, and says nothing of recovery unasked', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const { epoch } = await publish(server, channel, 'a');
    await publish(server, channel, 'b');
    const socket = await wire.subscriber(server);
    expect(await socket.request({ type: 'subscribe', channel })).toEqual({
      type: 'subscribed',
      id: 1,
      channel,
      recoverable: true,
      epoch,
      offset: 2,
    });
    expect(await socket.settle()).toEqual([]);
  });

  test('an ephemeral channel has no positions', async () => {
    const server = await wire.server();
    const channel = wire.channel('ephemeral');
    const socket = await wire.subscriber(server);
    const subscribed = await socket.request({ type: 'subscribe', channel });
    expect(subscribed).toEqual({ type: 'subscribed', id: 1, channel, recoverable: false });
    expect(await socket.request({ type: 'publish', channel, data: { x: 1 } })).toEqual({
      type: 'published',
      id: 2,
      channel,
    });
    const message = await socket.next('message');
    expect(Object.keys(message).sort()).toEqual(['at', 'channel', 'data', 'from', 'type']);
    const history = await socket.request({ type: 'history', channel });
    expect(history).toMatchObject({ messages: [], complete: true });
  });

  test('subscribing twice answers twice and delivers once', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.subscriber(server, channel);
    expect(await socket.request({ type: 'subscribe', channel })).toMatchObject({ type: 'subscribed', channel });
    await publish(server, channel, 'once');
    expect(await socket.next('message')).toMatchObject({ data: 'once' });
    expect(await socket.settle()).toEqual([]);
    await socket.request({ type: 'unsubscribe', channel });
    await publish(server, channel, 'never');
    expect(await socket.settle()).toEqual([]);
  });

  test('two subscribes in one packet deliver once', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.subscriber(server);
    socket.send({ type: 'subscribe', channel });
    socket.send({ type: 'subscribe', channel });
    socket.send({ type: 'publish', channel, data: 'once' });
    // Over Redis the publication comes back by another way than the answer to its publisher.
    const frames = [await socket.next('message'), ...(await socket.settle())];
    expect(frames.map(({ type }) => type).sort()).toEqual(['message', 'published', 'subscribed', 'subscribed']);
  });

  test('nothing is delivered after unsubscribed; without a subscription it is an error', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.subscriber(server, channel);
    expect(await socket.request({ type: 'unsubscribe', channel })).toEqual({ type: 'unsubscribed', id: 2, channel });
    await publish(server, channel, 1);
    expect(await socket.settle()).toEqual([]);
    expect(await socket.request({ type: 'unsubscribe', channel })).toMatchObject({
      type: 'error',
      channel,
      code: 'not_subscribed',
      retryable: false,
    });
  });

  test('a message carries its position, data, time and sender', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.socket(server);
    const { connection } = await socket.next('welcome');
    await socket.request({ type: 'subscribe', channel });
    const before = Date.now();
    const published = await socket.request({ type: 'publish', channel, data: { a: [1, null, 'é'] } });
    expect(published).toEqual({ type: 'published', id: 2, channel, epoch: expect.any(String), offset: 1 });
    const message = await socket.next('message');
    expect(message).toEqual({
      type: 'message',
      channel,
      offset: 1,
      data: { a: [1, null, 'é'] },
      at: expect.any(Number),
      from: { user: null, connection: connection! },
    });
    expect(message.at).toBeGreaterThanOrEqual(before);
    expect(message.at).toBeLessThanOrEqual(Date.now());
    await publish(server, channel, 'from a backend');
    expect(await socket.next('message')).not.toHaveProperty('from');
  });

  test('any JSON comes out as it went in', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.subscriber(server, channel);
    const texts = [
      'null',
      'false',
      '0',
      '""',
      '[]',
      '{}',
      '-1.5e-7',
      '9007199254740991',
      '"\\u0000\\u001f\\u2028\\u2029\\n\\r\\t\\\\\\"\u007f"',
      '"\\ud800"',
      '"👩‍👩‍👧‍👦 名 \u200f"',
      '{"__proto__":{"polluted":true},"constructor":1,"toString":null,"":0}',
      '[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]',
    ];
    for (const text of texts) {
      socket.sendText(`{"type":"publish","channel":"${channel}","data":${text},"id":9}`);
      expect(await socket.next('published')).toMatchObject({ id: 9 });
      const data = (await socket.next('message')).data;
      expect(JSON.stringify(data)).toBe(JSON.stringify(JSON.parse(text)));
      const answer = await call(server, '/realtime/publish', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: `{"channel":"${channel}","data":${text}}`,
      });
      expect([answer.status, text]).toEqual([200, text]);
      expect(JSON.stringify((await socket.next('message')).data)).toBe(JSON.stringify(JSON.parse(text)));
    }
  });

  test('echo: false keeps a publication from its sender alone', async () => {
    const server = await wire.server();
    for (const channel of [wire.channel(), wire.channel('ephemeral')]) {
      const [sender, other] = [await wire.subscriber(server, channel), await wire.subscriber(server, channel)];
      await sender.request({ type: 'publish', channel, data: 1, echo: false });
      await sender.request({ type: 'publish', channel, data: 2, echo: true });
      await sender.request({ type: 'publish', channel, data: 3 });
      const dataOf = async (socket: WebSocketClient): Promise<unknown[]> => {
        await publish(server, channel, 'end');
        const received: unknown[] = [];
        while (received.at(-1) !== 'end') received.push((await socket.next('message')).data);
        return received;
      };
      expect(await dataOf(sender)).toEqual([2, 3, 'end']);
      expect((await dataOf(other)).slice(0, 4)).toEqual([1, 2, 3, 'end']);
    }
  });

  test('a key that was used in a channel publishes nothing again and answers the first position', async () => {
    const server = await wire.server();
    const [channel, elsewhere] = [wire.channel(), wire.channel()];
    const socket = await wire.subscriber(server, channel);
    const publishWith = (key: string, data: number, to = channel) =>
      socket.request({ type: 'publish', channel: to, data, key });
    expect(await publishWith('k1', 1)).toMatchObject({ offset: 1 });
    expect(await publishWith('k2', 2)).toMatchObject({ offset: 2 });
    expect(await publishWith('k1', 3)).toMatchObject({ type: 'published', offset: 1 });
    expect(await publishWith('k1', 4, elsewhere)).toMatchObject({ offset: 1 });
    for (const key of ['__proto__', 'constructor', 'x'.repeat(64), '😀'.repeat(64), 'ключ']) {
      const first = await publishWith(key, 5);
      expect(await publishWith(key, 6)).toMatchObject({ type: 'published', offset: first.offset! });
    }
    const data = (await socket.settle()).map((frame) => frame.data);
    expect(data).toEqual([1, 2, 5, 5, 5, 5, 5]);
  });

  test('history answers the newest messages, or what follows a position', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const { epoch } = await publishMany(server, channel, 150);
    const socket = await wire.subscriber(server);
    const read = async (more: object) => {
      const reply = await socket.request({ type: 'history', channel, ...more });
      expect(reply).toMatchObject({ type: 'history', channel, epoch, offset: 150 });
      return { offsets: reply.messages!.map(({ offset }) => offset), ...reply };
    };
    const whole = await read({});
    expect(whole.messages).toHaveLength(100);
    expect(whole.messages![0]).toMatchObject({ type: 'message', channel, data: whole.messages![0]!.offset! });
    const since = await read({ since: { epoch, offset: 140 }, limit: 5 });
    expect(since.offsets).toEqual([141, 142, 143, 144, 145]);
    expect(since.complete).toBe(false);
    const rest = await read({ since: { epoch, offset: 145 }, limit: 5 });
    expect(rest.offsets).toEqual([146, 147, 148, 149, 150]);
    expect(rest.complete).toBe(true);
    expect((await read({ limit: 1_000 })).offsets).toEqual(Array.from({ length: 150 }, (_, index) => index + 1));
    for (const limit of [0, -1, 1_001, 1.5, 'x']) {
      expect(await socket.request({ type: 'history', channel, limit })).toMatchObject({ code: 'bad_request' });
    }
  });

  test('unknown members are ignored', async () => {
    const socket = await wire.subscriber(await wire.server());
    expect(await socket.request({ type: 'ping', more: { a: 1 }, channel: 7 })).toEqual({ type: 'pong', id: 1 });
  });

  test('an unknown type is unknown_command, and names the id', async () => {
    const socket = await wire.subscriber(await wire.server());
    for (const type of ['nonsense', '__proto__', 'constructor', 'message', '', 5, null]) {
      expect(await socket.request({ type })).toMatchObject({
        type: 'error',
        code: 'unknown_command',
        retryable: false,
      });
    }
  });

  test('what is no JSON object is bad_frame, and the connection stays', async () => {
    const socket = await wire.subscriber(await wire.server());
    for (const text of [
      '',
      ' ',
      '{',
      '{"type":"ping"',
      '[]',
      '[{"type":"ping"}]',
      '"ping"',
      '1',
      'null',
      'NaN',
      '{}{}',
    ]) {
      socket.sendText(text);
      expect(await socket.nextAny()).toMatchObject({ type: 'error', code: 'bad_frame', retryable: false });
    }
    expect(await socket.request({ type: 'ping' })).toMatchObject({ type: 'pong' });
  });

  test('only names of the rule are channels', async () => {
    const server = await wire.server();
    const socket = await wire.subscriber(server);
    const bad = [
      '',
      ' ',
      'a b',
      'é',
      'a,b',
      'a"b',
      'a\nb',
      'a*',
      'a$b',
      '$',
      'a%',
      'a%2',
      '%zz',
      'x'.repeat(257),
      1,
      null,
      undefined,
      {},
      ['a'],
    ];
    for (const type of ['subscribe', 'unsubscribe', 'publish', 'history']) {
      for (const channel of bad) {
        expect(await socket.request({ type, channel, data: 1 })).toMatchObject({
          type: 'error',
          code: 'bad_channel',
          ...(typeof channel === 'string' ? { channel } : {}),
          retryable: false,
        });
      }
    }
    for (const channel of ['x'.repeat(256), 'a%20%C3%A9', 'A-Z_0.9:a@b/c', '__proto__', 'constructor', ':', '.', '/']) {
      expect(await socket.request({ type: 'subscribe', channel })).toMatchObject({ type: 'subscribed', channel });
      const { offset } = await publish(server, channel, channel);
      expect(await socket.next('message')).toMatchObject({ channel, offset, data: channel });
    }
  });

  test('clients never publish to the server’s own channels', async () => {
    const socket = await wire.subscriber(await wire.server());
    for (const channel of ['$system', '$nodes', '$anything']) {
      expect(await socket.request({ type: 'publish', channel, data: 1 })).toMatchObject({
        type: 'error',
        channel,
        code: 'forbidden',
        retryable: false,
      });
    }
  });

  test('$system tells time, node and connections, as often as set', async () => {
    const server = await wire.start({ BROADCAST_INTERVAL: '1', NODE_ID: 'reporter' });
    const socket = await wire.subscriber(server, '$system');
    const { data } = await socket.next('message');
    expect(data).toEqual({ at: expect.any(Number), node: 'reporter', connections: 1 });
  });

  test('fields of the wrong kind are bad requests that name the channel', async () => {
    const socket = await wire.subscriber(await wire.server());
    const channel = wire.channel();
    const bad = [
      { type: 'publish' },
      { type: 'publish', data: 1, echo: 'no' },
      { type: 'publish', data: 1, key: '' },
      { type: 'publish', data: 1, key: 'x'.repeat(65) },
      { type: 'publish', data: 1, key: 7 },
      { type: 'subscribe', since: 5 },
      { type: 'subscribe', since: { epoch: 1, offset: 1 } },
      { type: 'subscribe', since: { epoch: 'x', offset: -1 } },
      { type: 'subscribe', since: { epoch: 'x', offset: 1.5 } },
      { type: 'subscribe', since: { epoch: 'x', offset: '1' } },
      { type: 'subscribe', since: { offset: 1 } },
    ];
    for (const command of bad) {
      expect(await socket.request({ ...command, channel })).toMatchObject({
        type: 'error',
        channel,
        code: 'bad_request',
        retryable: false,
      });
    }
  });

  test('commands are answered in their order, and their publications keep it', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.subscriber(server, channel);
    for (let data = 1; data <= 1_000; data++) socket.send({ type: 'publish', channel, data, id: data });
    const frames = await socket.settle();
    const published = frames.filter(({ type }) => type === 'published');
    const messages = frames.filter(({ type }) => type === 'message');
    // A node that reads the log just then sends the last messages after the answers.
    while (messages.length < 1_000) messages.push(await socket.next('message'));
    messages.push(...(await socket.settle()).filter(({ type }) => type === 'message'));
    const numbers = Array.from({ length: 1_000 }, (_, index) => index + 1);
    expect(published.map(({ id }) => id)).toEqual(numbers);
    expect(published.map(({ offset }) => offset)).toEqual(numbers);
    expect(messages.map(({ offset }) => offset)).toEqual(numbers);
    expect(messages.map(({ data }) => data)).toEqual(numbers);
  });

  test('a farewell of the client is answered with its code', async () => {
    const socket = await wire.subscriber(await wire.server());
    expect(await socket.close(1000)).toEqual({ code: 1000, reason: '' });
  });

  test('a binary frame closes with 1003', async () => {
    const socket = await wire.subscriber(await wire.server());
    socket.sendFrame({ opcode: opcodes.binary, payload: '{"type":"ping"}' });
    socket.send({ type: 'ping' });
    expect((await socket.closed).code).toBe(1003);
  });

  // Data of exactly the limit, with the frame around it, ended the client with all its channels.
  test('data of 64 KiB is taken, more is an error and closes nothing; a frame over 72 KiB closes with 1009', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const socket = await wire.subscriber(server, channel);
    const publishOf = (data: string) => socket.request({ type: 'publish', channel, data });
    // The quotes count, as they are part of the JSON.
    expect(await publishOf('x'.repeat(dataBytesMax - 2))).toMatchObject({ type: 'published', offset: 1 });
    expect(((await socket.next('message')).data as string).length).toBe(dataBytesMax - 2);
    const tooLarge = { type: 'error', channel, code: 'too_large', retryable: false };
    for (const data of ['x'.repeat(dataBytesMax - 1), 'é'.repeat(dataBytesMax / 2), 'x'.repeat(dataBytesMax + 8_000)]) {
      expect(await publishOf(data)).toMatchObject(tooLarge);
    }
    const frame = (bytes: number): string => {
      const empty = JSON.stringify({ type: 'publish', channel, id: 'big', data: '' });
      return JSON.stringify({ type: 'publish', channel, id: 'big', data: 'x'.repeat(bytes - empty.length) });
    };
    socket.sendText(frame(frameBytesMax));
    expect(await socket.next('error')).toMatchObject({ id: 'big', code: 'too_large' });
    expect(await socket.request({ type: 'publish', channel, data: 2 })).toMatchObject({ type: 'published', offset: 2 });
    socket.sendText(frame(frameBytesMax + 1));
    expect((await socket.closed).code).toBe(1009);
  });

  test('past the limit of connections a socket gets the error and is closed with 1013', async () => {
    const server = await wire.start({ MAX_CONNECTIONS: '2' });
    const first = await wire.subscriber(server);
    await wire.stream(server, { query: `channels=${wire.channel()}` });
    const third = await wire.socket(server);
    expect((await third.closed).code).toBe(1013);
    expect(await third.nextAny()).toMatchObject({
      type: 'error',
      code: 'limit_exceeded',
      retryable: true,
      retryAfter: 10,
    });
    expect(await third.nextAny().catch(String)).toContain('unread: nothing');
    await first.close();
    await until(async () => (await sample(server, 'sobranie_ws_connections_active')) === 0, 'the first has left');
    expect(await (await wire.subscriber(server)).settle()).toEqual([]);
  });

  test('a request that is no upgrade is told so', async () => {
    const answer = await call(await wire.server(), '/realtime/ws');
    expect(answer.status).toBe(426);
    expect(answer.headers.get('upgrade')).toBe('websocket');
    expect(errorOf(answer.text)).toMatchObject({ code: 'bad_request', retryable: false });
  });

  test('a handshake without a key is refused', async () => {
    const server = await wire.server();
    const broken = WebSocketClient.open(server.url, { headers: { 'Sec-WebSocket-Key': '' } });
    const refused = await broken.catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(Refused);
    expect((refused as Refused).status).toBe(400);
  });

  test('a quiet socket is pinged and stays', async () => {
    await until(() => quiet.pings.length > 0, 'a ping', 12_000);
    expect(await quiet.request({ type: 'ping' })).toMatchObject({ type: 'pong' });
    await quiet.close();
  }, 15_000);
});
