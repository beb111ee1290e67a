// Whatever arrives, it can break nothing but its own connection: after each kind of garbage a WebSocket and an event
// stream that were there before still get what is published, and the server's memory of the sender is gone.

import { afterEach, expect, test } from 'bun:test';
import { closePayload, opcodes, type EventClient, type WebSocketClient } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { TcpClient, until, wait } from '../support/tcp-client.ts';
import { call, describeWire, publish, sample, type Wire } from './wire.ts';

/** Clients that do nothing wrong. */
class Witnesses {
  readonly server: RunningServer;
  readonly #socket: WebSocketClient;
  readonly #stream: EventClient;
  readonly #channel: string;
  #published = 0;

  private constructor(server: RunningServer, channel: string, socket: WebSocketClient, stream: EventClient) {
    this.server = server;
    this.#channel = channel;
    this.#socket = socket;
    this.#stream = stream;
  }

  static async of(wire: Wire): Promise<Witnesses> {
    const server = await wire.server();
    const channel = wire.channel('witness');
    const socket = await wire.subscriber(server, channel);
    const stream = await wire.stream(server, { query: `channels=${channel}` });
    await stream.next('welcome');
    return new Witnesses(server, channel, socket, stream);
  }

  async areServed(): Promise<void> {
    const data = ++this.#published;
    await publish(this.server, this.#channel, data);
    expect(await this.#socket.next('message')).toMatchObject({ data, offset: data });
    expect((await this.#stream.next('message')).frame).toMatchObject({ data, offset: data });
    expect(this.#stream.drain()).toEqual([]);
  }
}

/** The longest array that a frame can nest. */
function nested(depth: number): string {
  return '['.repeat(depth) + ']'.repeat(depth);
}

describeWire('Garbage', (wire) => {
  // Nothing of a test's clients may stay: the witnesses' two connections are cut as well.
  afterEach(async () => {
    await wire.cutClients();
    const server = await wire.server();
    const active = async (): Promise<number> =>
      (await sample(server, 'sobranie_ws_connections_active')) +
      (await sample(server, 'sobranie_sse_connections_active'));
    await until(async () => (await active()) === 0, 'no connection is left');
    expect(await sample(server, 'sobranie_subscriptions_active')).toBe(0);
    expect(await sample(server, 'sobranie_channels_active')).toBe(0);
  });

  test('frames of noise are answered, each with an error, on a connection that lives on', async () => {
    const witnesses = await Witnesses.of(wire);
    const socket = await wire.subscriber(witnesses.server);
    const huge = '9'.repeat(30_000);
    const texts = [
      '\u0000',
      '{"type":"subscribe"',
      '{"type":"subscribe","channel":"__proto__","id":{"__proto__":1}}',
      '{"type":"__proto__"}',
      '{"type":"toString","channel":"a"}',
      '{"__proto__":{"type":"ping"},"constructor":{"prototype":{"x":1}}}',
      '{"type":{"toString":1}}',
      `{"type":"ping","id":${huge}}`,
      `{"type":"ping","id":"${huge}"}`,
      `{"type":"publish","channel":"a","data":1,"key":"${huge}"}`,
      `{"type":"publish","channel":"${huge}","data":1}`,
      `{"type":"publish","channel":"a"}`,
      `{"type":"subscribe","channel":"a","since":${nested(20_000)}}`,
      `{"type":"subscribe","channel":"a\u0000b"}`,
      '{"type":"subscribe","channel":"\\ud800"}',
      '{"type":"history","channel":"a","limit":1e999}',
      '{"type":"history","channel":"a","limit":-0.0000001}',
      `{"type":"subscribe","channel":"a","since":{"epoch":"${huge}","offset":1}}`,
      '{"type":"subscribe","channel":"a","since":{"epoch":"a","offset":1e308}}',
      '\ufeff{"type":"ping"}',
      nested(32_000),
      `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`,
      '{"type":"publish","channel":"a","data":1,"echo":"__proto__"}',
    ];
    for (const text of texts) {
      socket.sendText(text);
      const reply = await socket.nextAny();
      expect([text.slice(0, 60), reply]).toMatchObject([text.slice(0, 60), { type: 'error', retryable: false }]);
    }
    expect(await socket.request({ type: 'ping' })).toMatchObject({ type: 'pong' });
    await witnesses.areServed();
  });

  test('deep data is either delivered or refused', async () => {
    const witnesses = await Witnesses.of(wire);
    const channel = wire.channel();
    const socket = await wire.subscriber(witnesses.server, channel);
    for (const depth of [100, 1_000, 5_000, 10_000, 20_000, 32_000]) {
      socket.sendText(`{"type":"publish","channel":"${channel}","id":"deep","data":${nested(depth)}}`);
      const reply = await socket.nextAny();
      // Which of the two comes first is the sync layer's affair.
      if (reply.type === 'message') await socket.next('published');
      else if (reply.type === 'published') await socket.next('message');
      else expect(['bad_frame', 'bad_request', undefined]).toContain(reply.code);
    }
    await witnesses.areServed();
  });

  test('names of prototypes are names', async () => {
    const witnesses = await Witnesses.of(wire);
    const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__'];
    const socket = await wire.subscriber(witnesses.server, ...names);
    const stream = await wire.stream(witnesses.server, { query: `channels=${names.join(',')}` });
    for (const name of names) {
      for (const data of [{ [name]: 1 }, name]) {
        await socket.request({ type: 'publish', channel: name, data, key: `${name} ${JSON.stringify(data)}` });
        const message = await socket.next('message');
        expect(message.channel).toBe(name);
        expect(JSON.stringify(message.data)).toBe(JSON.stringify(data));
        expect((await stream.next('message')).frame.channel).toBe(name);
      }
      expect((await call(witnesses.server, `/realtime/channels/${name}/history`)).status).toBe(200);
    }
    await witnesses.areServed();
  });

  test('a message in fragments is one message, also where they split a character', async () => {
    const witnesses = await Witnesses.of(wire);
    const channel = wire.channel();
    const socket = await wire.subscriber(witnesses.server, channel);
    const bytes = Buffer.from(JSON.stringify({ type: 'publish', channel, data: '👩‍👩‍👧‍👦é名' }));
    for (const size of [1, 2, 3, 7, 50]) {
      for (let at = 0; at < bytes.length; at += size) {
        socket.sendFrame({
          opcode: at === 0 ? opcodes.text : opcodes.continuation,
          payload: bytes.subarray(at, at + size),
          final: at + size >= bytes.length,
        });
        // Control frames may stand between fragments.
        if (at === 0) socket.sendFrame({ opcode: opcodes.ping, payload: `between ${size}` });
      }
      expect((await socket.next('message')).data).toBe('👩‍👩‍👧‍👦é名');
      expect(socket.pongs).toContain(`between ${size}`);
    }
    await witnesses.areServed();
  });

  test('bytes that are no UTF-8 close, or are refused as a frame', async () => {
    const witnesses = await Witnesses.of(wire);
    for (const bytes of [[0xff], [0xc3], [0xc3, 0x28], [0xed, 0xa0, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80]]) {
      const socket = await wire.subscriber(witnesses.server);
      const payload = Buffer.concat([Buffer.from('{"type":"ping","id":"'), Buffer.from(bytes), Buffer.from('"}')]);
      socket.sendFrame({ opcode: opcodes.text, payload });
      const outcome = await Promise.race([socket.closed, socket.nextAny().catch(() => undefined)]);
      if (outcome !== undefined && 'type' in outcome) expect(['pong', 'error']).toContain(outcome.type);
      else expect((await socket.closed).code).toBeOneOf([1006, 1007]);
    }
    await witnesses.areServed();
  });

  test('frames that break the protocol end their own connection', async () => {
    const witnesses = await Witnesses.of(wire);
    const broken: Uint8Array[] = [
      // Not masked; reserved bits; an unknown kind; a fragmented ping; a ping that is too long; nothing to continue.
      Buffer.from([0x81, 0x02, 0x7b, 0x7d]),
      Buffer.from([0xf1, 0x80, 0, 0, 0, 0]),
      Buffer.from([0x83, 0x80, 0, 0, 0, 0]),
      Buffer.from([0x09, 0x80, 0, 0, 0, 0]),
      Buffer.concat([Buffer.from([0x89, 0xfe, 0x00, 0x7e, 0, 0, 0, 0]), Buffer.alloc(126)]),
      Buffer.from([0x80, 0x80, 0, 0, 0, 0]),
      // A length of 2^63 and more.
      Buffer.from([0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
      Buffer.from([0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
      crypto.getRandomValues(new Uint8Array(4_096)),
    ];
    for (const bytes of broken) {
      const socket = await wire.subscriber(witnesses.server);
      socket.sendBytes(bytes);
      socket.sendBytes(Buffer.alloc(256, 0xff));
      const ended = wait(socket.closed, 3_000, 'the end').then(({ code }) => code);
      expect([...bytes.subarray(0, 8), await ended.catch(() => 'stays')]).toEqual([
        ...bytes.subarray(0, 8),
        expect.any(Number),
      ]);
    }
    await witnesses.areServed();
  });

  test('farewells of any code end the connection in order', async () => {
    const witnesses = await Witnesses.of(wire);
    const payloads = [
      Buffer.alloc(0),
      Buffer.from([3]),
      closePayload(1000, 'x'.repeat(123)),
      closePayload(1006),
      closePayload(1),
      closePayload(65_535),
      closePayload(4_999, 'own code'),
      Buffer.concat([closePayload(1000), Buffer.from([0xff, 0xfe])]),
    ];
    for (const payload of payloads) {
      const socket = await wire.subscriber(witnesses.server, wire.channel());
      socket.sendFrame({ opcode: opcodes.close, payload });
      socket.send({ type: 'ping' });
      await wait(socket.closed, 3_000, `the end after ${payload.toString('hex')}`);
    }
    await witnesses.areServed();
  });

  test('pings are answered with their payload', async () => {
    const witnesses = await Witnesses.of(wire);
    const socket = await wire.subscriber(witnesses.server);
    for (const payload of ['', 'x', '\u0000é', 'y'.repeat(125)]) {
      socket.sendFrame({ opcode: opcodes.ping, payload });
      await until(() => socket.pongs.includes(payload), 'a pong');
    }
    for (let count = 0; count < 500; count++) socket.sendFrame({ opcode: opcodes.pong, payload: 'nobody asked' });
    expect(await socket.request({ type: 'ping' })).toMatchObject({ type: 'pong' });
    await witnesses.areServed();
  });

  test('a handshake and the first commands may come in one packet, or byte by byte', async () => {
    const witnesses = await Witnesses.of(wire);
    const request =
      'GET /realtime/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n';
    // A masked ping command, its mask zero.
    const command = Buffer.from('{"type":"ping","id":1}');
    const frame = Buffer.concat([Buffer.from([0x81, 0x80 | command.length, 0, 0, 0, 0]), command]);
    const whole = Buffer.concat([Buffer.from(request), frame, frame]);
    for (const size of [whole.length, 1]) {
      const tcp = await wire.tcp(witnesses.server);
      for (let at = 0; at < whole.length; at += size) {
        tcp.write(whole.subarray(at, at + size));
        if (size === 1 && at % 32 === 0) await Bun.sleep(0);
      }
      const pongs = (): number => tcp.received.toString('latin1').split('"type":"pong"').length - 1;
      await tcp.waitFor(() => pongs() === 2, 'two pongs');
      expect(tcp.received.indexOf('"welcome"')).toBeLessThan(tcp.received.indexOf('"pong"'));
    }
    await witnesses.areServed();
  });

  test('half handshakes and slow headers hold up nobody', async () => {
    const witnesses = await Witnesses.of(wire);
    const starts = [
      '',
      'G',
      'GET /realtime/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n',
      'GET /realtime/events?channels=a HTTP/1.1\r\nHost: a\r\nX: ',
      'POST /realtime/publish HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{"cha',
      'POST /realtime/publish HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n{',
    ];
    const slow = [];
    for (let index = 0; index < 120; index++) {
      const tcp = await wire.tcp(witnesses.server);
      tcp.write(starts[index % starts.length]!);
      slow.push(tcp);
    }
    for (let byte = 0; byte < 5; byte++) {
      for (const tcp of slow) tcp.write('x');
      await witnesses.areServed();
    }
  });

  test('requests that are no HTTP end their own connection', async () => {
    const witnesses = await Witnesses.of(wire);
    const noise = [
      '\r\n\r\n\r\n',
      'hello\r\n\r\n',
      'GET\r\n\r\n',
      'GET / HTTP/9.9\r\n\r\n',
      'GET /realtime/ws HTTP/1.1\r\n\r\n',
      `GET /${'x'.repeat(100_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
      `GET / HTTP/1.1\r\nHost: a\r\n${'X: y\r\n'.repeat(5_000)}\r\n`,
      'POST /realtime/publish HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n',
      'POST /realtime/publish HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      'POST /realtime/publish HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
      Buffer.from('16030100a5010000a10303', 'hex').toString('latin1'),
      '\u0000'.repeat(1_000),
    ];
    for (const text of noise) {
      const tcp = await wire.tcp(witnesses.server);
      tcp.write(Buffer.from(text, 'latin1'));
      await until(() => tcp.received.length > 0, 'an answer', 300).catch(() => tcp.cut());
      expect(tcp.received.toString('latin1')).not.toStartWith('HTTP/1.1 500');
      tcp.cut();
    }
    await witnesses.areServed();
  });

  test('pipelined requests are answered in their order', async () => {
    const witnesses = await Witnesses.of(wire);
    const tcp = await wire.tcp(witnesses.server);
    const paths = ['/health/live', '/nowhere', '/realtime/channels', '/realtime/ws', '/metrics?x'];
    const requests = Array.from({ length: 50 }, (_, index) => paths[index % paths.length]!);
    tcp.write(requests.map((path) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`).join(''));
    for (const path of requests) {
      const head = await tcp.readHead();
      await tcp.readBody(head);
      const expected = path === '/nowhere' ? 404 : path === '/realtime/ws' ? 426 : 200;
      expect([path, head.status]).toEqual([path, expected]);
    }
    await witnesses.areServed();
  });

  test('1,000 connections that come and go at once leave nothing', async () => {
    const witnesses = await Witnesses.of(wire);
    const { server } = witnesses;
    const upgrade =
      'GET /realtime/ws?channels=a,b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n';
    const stream = 'GET /realtime/events?channels=a,b HTTP/1.1\r\nHost: a\r\n\r\n';
    const comeAndGo = async (index: number): Promise<void> => {
      const tcp = await TcpClient.connect(server.url);
      tcp.write(index % 2 === 0 ? upgrade : stream);
      // Some go before they are answered, some while they are, some after.
      if (index % 3 === 1) await Bun.sleep(0);
      if (index % 3 === 2) await tcp.waitFor(() => tcp.received.length > 0, 'an answer', 10_000);
      tcp.cut();
    };
    for (let wave = 0; wave < 10; wave++) {
      await Promise.all(Array.from({ length: 100 }, (_, index) => comeAndGo(index)));
    }
    await witnesses.areServed();
    const active = async (): Promise<number> =>
      (await sample(server, 'sobranie_ws_connections_active')) +
      (await sample(server, 'sobranie_sse_connections_active'));
    await until(async () => (await active()) === 2, 'the witnesses are alone');
    expect(await sample(server, 'sobranie_channels_active')).toBe(1);
  }, 30_000);
});
