// The edge: what every answer tells a browser, which pages may call, and what odd methods and hosts get. One server,
// since nothing here reaches the sync layer.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { networkInterfaces } from 'node:os';
import { launchBrowser } from '../support/browser.ts';
import { WebSocketClient } from '../support/clients.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { TcpClient, until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { call, errorOf, post, sample } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

const settings = {
  SYNC: 'memory',
  BROADCAST_INTERVAL: '0',
  RATE_LIMIT_PER_MINUTE: '0',
  SUBSCRIBES_PER_MINUTE: '0',
  SHUTDOWN_TIMEOUT: '0',
};
const foreign = 'https://evil.example';
const listed = 'https://app.example';

let open: RunningServer;
let listing: RunningServer;
let keyed: RunningServer;

beforeAll(async () => {
  [open, listing, keyed] = await Promise.all([
    startServer({ ...settings, LOG_FORMAT: 'json' }),
    startServer({ ...settings, ALLOWED_ORIGINS: listed }),
    startServer({ ...settings, JWT_SECRET: secret, API_KEY: 'the-key-of-the-backend-0123456789' }),
  ]);
}, 60_000);

afterAll(async () => {
  for (const server of [open, listing, keyed]) {
    await server?.stop();
    expect(server?.stdout()).not.toMatch(/was not handled|was not caught|failed unexpectedly/);
  }
}, 60_000);

function preflight(server: RunningServer, path: string, origin: string) {
  const headers = {
    origin,
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'authorization, content-type',
  };
  return call(server, path, { method: 'OPTIONS', headers });
}

const pagePaths = ['/', '/demo/demo.js', '/demo/info', '/demo/posts', '/swagger', '/swagger/assets/start.js'];
const answerPaths = [
  '/swagger/json',
  '/metrics',
  '/health/live',
  '/health/ready',
  '/nowhere',
  '/realtime/ws',
  '/realtime/events',
  '/realtime/channels',
  '/realtime/channels/a/history',
  '/realtime/channels/no%20name/history',
];

describe('headers', () => {
  test.each([...pagePaths, ...answerPaths])('of %s: no sniffing, no framing, no referrer, no version', async (path) => {
    const { headers } = await call(open, path);
    const policy = headers.get('content-security-policy');
    expect({
      sniffing: headers.get('x-content-type-options'),
      referrer: headers.get('referrer-policy'),
      resource: headers.get('cross-origin-resource-policy'),
      framing: policy?.includes("frame-ancestors 'none'"),
      loading: policy?.startsWith(pagePaths.includes(path) ? "default-src 'self'" : "default-src 'none'"),
      server: headers.get('server'),
      poweredBy: headers.get('x-powered-by'),
    }).toEqual({
      sniffing: 'nosniff',
      referrer: 'no-referrer',
      resource: 'same-origin',
      framing: true,
      loading: true,
      server: null,
      poweredBy: null,
    });
  });

  test('of an event stream are the same', async () => {
    const response = await fetch(`${open.url}/realtime/events?channels=a`);
    expect(response.headers.get('x-content-type-options')).toBe('nosniff');
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'");
    await response.body?.cancel();
  });

  test('scripts of pages are no inline ones, so that the policy forbids those', async () => {
    for (const path of ['/', '/swagger']) {
      const { text, headers } = await call(open, path);
      expect(headers.get('content-security-policy')).not.toMatch(/script-src|unsafe-eval/);
      expect(text).not.toMatch(/<script(?![^>]*\bsrc=)|\son\w+=|javascript:/i);
    }
  });

  test('the documentation still draws itself in a browser, from this server alone', async () => {
    const browser = await launchBrowser();
    try {
      const { page, errors, requests } = await browser.newPage();
      await page.goto(`${open.url}/swagger`);
      await page.locator('.opblock').first().click({ timeout: 15_000 });
      await page.locator('.opblock.is-open').first().waitFor({ timeout: 15_000 });
      expect(errors).toEqual([]);
      const fetched = requests.filter((url) => !url.startsWith('data:'));
      expect([...new Set(fetched.map((url) => new URL(url).host))]).toEqual([new URL(open.url).host]);
    } finally {
      await browser.close();
    }
  }, 60_000);
});

describe('pages of other origins', () => {
  const paths = ['/realtime/publish', '/realtime/channels', '/realtime/users/7/notify', '/realtime/users/7/disconnect'];

  test('may call the API, with a token, where their origin is listed', async () => {
    for (const path of paths) {
      const { status, headers } = await preflight(listing, path, listed);
      expect([path, status, headers.get('access-control-allow-origin')]).toEqual([path, 204, listed]);
      expect(headers.get('access-control-allow-headers')).toMatch(/authorization.*content-type.*idempotency-key/);
      expect(headers.get('access-control-allow-methods')).toContain('POST');
      expect(headers.get('vary')).toBe('origin');
    }
    const answer = await post(listing, '/realtime/publish', { channel: 'a', data: 1 }, { origin: listed });
    expect([answer.status, answer.headers.get('access-control-allow-origin')]).toEqual([200, listed]);
  });

  test('may read what went wrong, where their origin is listed', async () => {
    const bodies: [unknown, number][] = [
      ['{"channel', 400],
      [{ channel: 'no name', data: 1 }, 400],
      [{ data: 1 }, 400],
    ];
    for (const [body, status] of bodies) {
      const answer = await post(listing, '/realtime/publish', body, { origin: listed });
      expect([answer.status, answer.headers.get('access-control-allow-origin')]).toEqual([status, listed]);
    }
  });

  test('are told nothing by the preflight where their origin is not listed', async () => {
    for (const server of [open, listing]) {
      for (const path of paths) {
        const { status, headers } = await preflight(server, path, foreign);
        expect([path, status, headers.get('access-control-allow-origin')]).toEqual([path, 204, null]);
        expect(headers.get('access-control-allow-headers')).toBeNull();
      }
    }
    expect(
      (await preflight(listing, '/realtime/events', foreign)).headers.get('access-control-allow-origin'),
    ).toBeNull();
  });

  // Without an API key every caller is believed. A request without a body, or with one of a simple type, is sent by a
  // browser without asking first: any site could have disconnected users of a developer's server.
  test('are refused by the API, whatever they send', async () => {
    for (const server of [open, listing]) {
      for (const path of paths.slice(2)) {
        const answer = await post(server, path, '', { origin: foreign, 'content-type': 'text/plain' });
        expect([path, [400, 403].includes(answer.status)]).toEqual([path, true]);
      }
      const disconnect = await call(server, '/realtime/users/7/disconnect', {
        method: 'POST',
        headers: { origin: foreign, 'sec-fetch-site': 'cross-site' },
      });
      expect([disconnect.status, errorOf(disconnect.text).code]).toEqual([403, 'forbidden']);
      const read = await call(server, '/realtime/channels', { headers: { origin: foreign } });
      expect([read.status, read.headers.get('access-control-allow-origin')]).toEqual([403, null]);
      const noOrigin = await call(server, '/realtime/channels', { headers: { origin: 'null' } });
      expect(noOrigin.status).toBe(403);
    }
  });

  test('may read streams with a token where there is no list, but never with a cookie', async () => {
    const { headers } = await preflight(open, '/realtime/events', foreign);
    expect(headers.get('access-control-allow-origin')).toBe('*');
    expect(headers.get('access-control-allow-headers')).toContain('authorization');
    expect(headers.get('access-control-allow-credentials')).toBeNull();
  });

  test('the server’s own page may call, also behind a proxy that changes the host', async () => {
    const body = { channel: 'a', data: 1 };
    expect((await post(open, '/realtime/publish', body, { origin: open.url })).status).toBe(200);
    const proxied = { origin: 'http://localhost:5173', 'sec-fetch-site': 'same-origin' };
    expect((await post(open, '/realtime/publish', body, proxied)).status).toBe(200);
  });
});

describe('methods and hosts', () => {
  test('TRACE, CONNECT and methods that no route knows get a 405 and never their own request back', async () => {
    for (const method of ['TRACE', 'CONNECT', 'PUT', 'DELETE', 'PATCH', 'PROPFIND', 'LOCK', 'OPTIONS']) {
      const tcp = await TcpClient.connect(open.url);
      tcp.write(`${method} /metrics HTTP/1.1\r\nHost: a\r\nX-Marker: mirrored\r\nContent-Length: 0\r\n\r\n`);
      const head = await tcp.readHead();
      const body = await tcp.readBody(head);
      expect([method, head.status, errorOf(body).code]).toEqual([method, 405, 'bad_request']);
      expect(body + JSON.stringify([...head.headers])).not.toContain('mirrored');
      tcp.cut();
    }
  });

  // A gateway that keeps /metrics inside, or limits /realtime/ws, let these pass: it took them for other addresses.
  test('an address is matched as it was sent: no backslash, encoding or dot segment leads to a route', async () => {
    const upgrade =
      'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n';
    const targets = [
      ...[
        '/x\\..\\metrics',
        '/.\\metrics',
        '/a/../metrics',
        '/./metrics',
        '/%2e/metrics',
        '/x/%2E%2e/metrics',
        '/%6detrics',
      ],
      ...['/x%5c..%5cmetrics', '/realtime\\ws', '/realtime%5cws', '/realtime/./ws', '/realtime\\events?channels=a'],
      ...[
        '/realtime\\channels',
        '/a/../realtime/channels',
        '/realtime/x/../channels',
        '/health\\live',
        '/swagger\\json',
      ],
      ...['/realtime/channels/..\\..\\channels', '//metrics', '/metrics/', '/demo\\posts', '/a/../'],
    ];
    for (const target of targets) {
      const tcp = await TcpClient.connect(open.url);
      tcp.write(`GET ${target} HTTP/1.1\r\nHost: localhost\r\n${target.includes('ws') ? upgrade : ''}\r\n`);
      expect([target, (await tcp.readHead()).status]).toEqual([target, 404]);
      tcp.cut();
    }
    for (const target of ['/realtime/users/a\\b/disconnect', '/realtime/users/../disconnect']) {
      const tcp = await TcpClient.connect(open.url);
      tcp.write(`POST ${target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n`);
      expect([target, (await tcp.readHead()).status]).toEqual([target, 404]);
      tcp.cut();
    }
    // A user's id may hold a backslash.
    const named = await post(open, '/realtime/users/CORP%5Cann/disconnect', '');
    expect(named.body).toMatchObject({ user: 'CORP\\ann' });
  });

  test('a method that HTTP does not know ends the connection', async () => {
    for (const line of ['FOO / HTTP/1.1', 'get / HTTP/1.1', 'G\u0000T / HTTP/1.1']) {
      const tcp = await TcpClient.connect(open.url);
      tcp.write(`${line}\r\nHost: a\r\n\r\n`);
      await tcp.closed;
      // The runtime's own word for a line that it cannot read is 400 or 505; for a method, nothing.
      expect(tcp.received.toString('latin1')).toMatch(/^$|^HTTP\/1\.1 (400|505) /);
    }
  });

  test('HEAD answers as GET without its body, and a stream asked for by HEAD is not kept', async () => {
    for (const path of ['/', '/swagger', '/health/live', '/realtime/channels']) {
      const [head, get] = [await call(open, path, { method: 'HEAD' }), await call(open, path)];
      expect([path, head.status, head.text]).toEqual([path, get.status, '']);
      expect(head.headers.get('x-content-type-options')).toBe('nosniff');
    }
    for (let count = 0; count < 20; count++) {
      const { status } = await call(open, '/realtime/events?channels=head', { method: 'HEAD' });
      expect(status).toBe(200);
    }
    const streams = (): Promise<number> => sample(open, 'sobranie_sse_connections_active');
    await until(async () => (await streams()) === 0, 'no stream is left', 10_000);
    expect(await sample(open, 'sobranie_subscriptions_active')).toBe(0);
  });

  // A page of any site could point a name of its own at a developer's server, and was then no foreign page to it.
  test('without keys only names of this machine are taken as host, on every route alike', async () => {
    const [address = ''] = Object.values(networkInterfaces()).flatMap((all) => all?.map((each) => each.address) ?? []);
    const shown = address.includes(':') ? `[${address}]` : address;
    const own = [
      'localhost',
      'LOCALHOST.',
      'app.localhost:80',
      '127.0.0.1:3000',
      '127.9.9.9',
      '[::1]:3000',
      'container',
    ];
    const others = [
      'evil.example',
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      '192.0.2.7',
      '[2001:db8::7]:80',
    ];
    const statusOf = async (server: RunningServer, path: string, host: string): Promise<number> => {
      const tcp = await TcpClient.connect(server.url);
      tcp.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
      const { status } = await tcp.readHead();
      tcp.cut();
      return status;
    };
    for (const host of [...own, shown]) expect([host, await statusOf(open, '/health/live', host)]).toEqual([host, 200]);
    const paths = [...pagePaths, ...answerPaths, '/realtime/events?channels=a'];
    for (const host of others) {
      for (const path of paths.filter((each) => each !== '/nowhere')) {
        expect([host, path, await statusOf(open, path, host)]).toEqual([host, path, 403]);
      }
      const refused = WebSocketClient.open(open.url, { headers: { Host: host } });
      await expect(refused).rejects.toMatchObject({ status: 403 });
    }
    // Named as an origin, a host is one of this server's names.
    expect(await statusOf(listing, '/health/live', 'app.example')).toBe(200);
    expect(await statusOf(listing, '/health/live', 'evil.example')).toBe(403);
    expect(await statusOf(keyed, '/health/live', 'evil.example')).toBe(200);
  });

  // The WebSocket and the event stream let pages of anywhere in, and publish.
  test('without keys pages of other machines are refused on every route alike', async () => {
    for (const origin of [foreign, 'null', 'http://localhost.evil.example', 'http://192.0.2.7:3000']) {
      for (const path of ['/', '/health/live', '/metrics', '/realtime/channels', '/realtime/events?channels=a']) {
        const answer = await call(open, path, { headers: { origin } });
        expect([origin, path, answer.status, errorOf(answer.text).code]).toEqual([origin, path, 403, 'forbidden']);
      }
      const socket = WebSocketClient.open(open.url, { headers: { origin } });
      await expect(socket).rejects.toMatchObject({ status: 403 });
    }
    for (const origin of ['http://localhost:5173', 'http://127.0.0.1:9', 'http://[::1]:5173', open.url]) {
      const socket = await WebSocketClient.open(open.url, { headers: { origin } });
      expect((await socket.next('welcome')).type).toBe('welcome');
      await socket.cut();
    }
    // Where tokens are checked, a page of any origin may connect with one.
    const token = await tokenOf({ sub: 'ann' });
    const socket = await WebSocketClient.open(keyed.url, { headers: { origin: foreign }, query: `token=${token}` });
    expect((await socket.next('welcome')).user).toBe('ann');
    await socket.cut();
    await until(() => open.stdout().includes('a connection was refused'), 'the log tells');
  });

  test('odd host headers change nothing', async () => {
    for (const host of ['', 'a', 'a b/<>:99999', '[::1', 'x'.repeat(5_000), '../../etc']) {
      const tcp = await TcpClient.connect(open.url);
      tcp.write(`GET /realtime/channels HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
      const head = await tcp.readHead();
      expect([host.slice(0, 20), [200, 400, 403].includes(head.status)]).toEqual([host.slice(0, 20), true]);
      tcp.cut();
    }
  });
});
