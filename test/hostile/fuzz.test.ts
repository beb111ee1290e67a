// Noise against a live server: frames and requests that are random, mutated or broken. Nothing fails, nothing stays in
// memory, and a bystander notices nothing. Each run has new seeds, which SEED=… repeats; LONG=1 sends a million frames
// and 100,000 requests.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { TcpClient, until } from '../support/tcp-client.ts';
import { attack } from '../support/hostile/attacker.ts';
import { long, Stage } from '../support/hostile/stage.ts';
import { seed } from '../support/random.ts';
import { call, errorOf, post, sample } from '../wire/wire.ts';
import { WebSocketClient } from '../support/clients.ts';
import { patient } from '../support/patience.ts';

patient();

const frames = long ? { count: 1_000_000, perSecond: 8_000 } : { count: 20_000, perSecond: 8_000 };
const requests = long ? { count: 100_000, perSecond: 1_200 } : { count: 3_000, perSecond: 1_200 };

let stage: Stage;

beforeAll(async () => {
  stage = await Stage.open('fuzz');
}, 60_000);

afterAll(() => stage?.close(), 60_000);

describe(`Noise, seed ${seed}`, () => {
  test(`${frames.count} frames: every one is answered or ends its connection, and none fails inside`, async () => {
    const { server } = stage;
    const warmUp = () => attack(server, 'frames', { seed: seed + 1, count: 2_000, perSecond: 10_000 });
    await warmUp();
    const before = await stage.heldMemory();
    await stage.unharmed(async () => {
      const outcome = await attack(server, 'frames', { seed, ...frames }, 300_000);
      stage.tell({ outcome });
      expect(outcome).toMatchObject({ frames: frames.count, internal: [] });
    });
    expect(await sample(server, 'sobranie_errors_total{code="internal"}')).toBe(0);
    await stage.settlesTo(before, warmUp);
  }, 400_000);

  test(`${requests.count} requests: each has a status that a client can act on, none a 500`, async () => {
    const { server } = stage;
    const warmUp = () => attack(server, 'requests', { seed: seed + 3, count: 500, perSecond: 1_200 });
    await warmUp();
    const before = await stage.heldMemory();
    await stage.unharmed(async () => {
      const outcome = await attack(server, 'requests', { seed: seed + 2, ...requests }, 300_000);
      stage.tell({ outcome });
      expect(outcome).toMatchObject({ requests: requests.count, faults: [] });
      // The noise is like enough to what is served to get through to it.
      expect(Number(outcome['200'])).toBeGreaterThan(requests.count / 50);
    });
    await stage.settlesTo(before, warmUp);
  }, 400_000);

  test('nothing of the noise is left: the bystander is alone', async () => {
    const { server } = stage;
    const socket = await WebSocketClient.open(server.url);
    await socket.next('welcome');
    await socket.close();
    expect(await sample(server, 'sobranie_ws_connections_active')).toBe(2);
    expect(await sample(server, 'sobranie_sse_connections_active')).toBe(1);
    expect(await sample(server, 'sobranie_channels_active')).toBe(1);
    expect(await sample(server, 'sobranie_subscriptions_active')).toBe(2);
  });
});

describe('What noise has found', () => {
  // The framework's report of a wrong field prints the value that it found. An object whose toString is no function
  // cannot be printed: the report failed in its turn, the client got a 500, and every such request filled the log.
  test('a field that is an object which cannot be printed is a bad request', async () => {
    const { server } = stage;
    const value = '{"toString":1,"constructor":2}';
    const bodies: readonly [string, string][] = [
      ['/realtime/publish', `{"channel":"a","data":1,"key":${value}}`],
      ['/realtime/publish', `{"channel":${value},"data":1}`],
      ['/realtime/publish', `{"channels":[${value}],"data":1}`],
      ['/realtime/publish', `{"channels":${value},"data":1}`],
      ['/realtime/publish', value],
      ['/realtime/users/7/notify', `{"data":1,"key":${value}}`],
      ['/demo/posts', `{"title":${value}}`],
      ['/demo/posts', `{"title":"a","body":[${value}]}`],
      ['/demo/posts', `[${value}]`],
    ];
    for (const [path, body] of bodies) {
      const answer = await post(server, path, body);
      expect([path, body, answer.status, errorOf(answer.text).code]).toEqual([path, body, 400, 'bad_request']);
    }
    const stored = await post(server, '/realtime/publish', `{"channel":"a","data":${value}}`);
    expect(stored.status).toBe(200);
    expect((await call(server, '/realtime/channels/a/history')).text).toContain(value);
  });

  // Whoever left in the middle of a body was told nothing, being gone, but each was an error in the log.
  test('a request that breaks off is no failure of the server', async () => {
    const { server } = stage;
    const paths = ['/realtime/publish', '/realtime/ticket', '/realtime/users/7/notify', '/demo/posts'];
    for (const path of paths) {
      for (const how of ['Content-Length: 100', 'Transfer-Encoding: chunked']) {
        const tcp = await TcpClient.connect(server.url);
        tcp.write(`POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n${how}\r\n\r\n10\r\n{"`);
        // Once this is answered, what came before it has been read.
        expect((await call(server, '/health/live')).status).toBe(200);
        tcp.cut();
      }
    }
    await until(async () => (await sample(server, 'sobranie_ws_connections_active')) === 2, 'the bystander is alone');
    expect(await sample(server, 'sobranie_errors_total{code="internal"}')).toBe(0);
  });
});

describe('Requests that could be read in two ways', () => {
  const post1 = 'POST /realtime/publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n';
  const smuggled = 'GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n';
  const doubtful: readonly [string, string][] = [
    ['a length and chunks', `${post1}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`],
    ['chunks and a length', `${post1}Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n${smuggled}`],
    ['two lengths', `${post1}Content-Length: 6\r\nContent-Length: 5\r\n\r\nabcdef${smuggled}`],
    ['a length with a sign', `${post1}Content-Length: +6\r\n\r\nabcdef${smuggled}`],
    ['a length in hex', `${post1}Content-Length: 0x6\r\n\r\nabcdef${smuggled}`],
    ['a list of lengths', `${post1}Content-Length: 6, 6\r\n\r\nabcdef${smuggled}`],
    ['a length past all numbers', `${post1}Content-Length: 99999999999999999999\r\n\r\nabcdef${smuggled}`],
    ['two encodings', `${post1}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${smuggled}`],
    ['an encoding nobody knows', `${post1}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${smuggled}`],
    ['a space before the colon', `${post1}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n${smuggled}`],
    ['a tab before the value', `${post1}Transfer-Encoding:\u000bchunked\r\n\r\n0\r\n\r\n${smuggled}`],
    ['a negative chunk', `${post1}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n${smuggled}`],
    ['a chunk past all numbers', `${post1}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n${smuggled}`],
    [
      'a chunk that is longer than it says',
      `${post1}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n${smuggled}`,
    ],
    ['a header on two lines', `GET /metrics HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n${smuggled}`],
    ['a NUL in a header', `GET /metrics HTTP/1.1\r\nHost: a\r\nX: a\u0000b\r\n\r\n${smuggled}`],
    ['a bare line feed', `GET /metrics HTTP/1.1\nHost: a\n\n${smuggled}`],
    ['no host', `GET /metrics HTTP/1.1\r\n\r\n${smuggled}`],
  ];

  test.each(doubtful)('%s: refused, and the connection with it', async (_what, text) => {
    const tcp = await TcpClient.connect(stage.server.url);
    tcp.write(Buffer.from(text, 'latin1'));
    await tcp.closed;
    const received = tcp.received.toString('latin1');
    // What follows is never read as a request of its own.
    expect(received).not.toContain('"checks"');
    expect(received).toMatch(/^HTTP\/1\.1 (400|413|505) /);
    expect(received.match(/HTTP\/1\.1/g)).toHaveLength(1);
  });

  test('headers of megabytes, or by the thousand, are refused before they are kept', async () => {
    for (const headers of [
      `X: ${'y'.repeat(1 << 20)}\r\n`,
      'X: y\r\n'.repeat(20_000),
      `${'x'.repeat(1 << 20)}: y\r\n`,
    ]) {
      const tcp = await TcpClient.connect(stage.server.url);
      tcp.write(`GET /metrics HTTP/1.1\r\nHost: a\r\n${headers}\r\n`);
      await tcp.closed;
      expect(tcp.received.toString('latin1')).toMatch(/^$|^HTTP\/1\.1 431 /);
    }
  });
});
