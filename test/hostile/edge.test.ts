// The edge: what every answer tells a browser, which pages may call, and what odd methods and hosts get. One server,
// since nothing here reaches the sync layer.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { launchBrowser } from '../support/browser.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { TcpClient, until } from '../support/tcp-client.ts';
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

beforeAll(async () => {
  [open, listing] = await Promise.all([startServer(settings), startServer({ ...settings, ALLOWED_ORIGINS: listed })]);
}, 60_000);

afterAll(async () => {
  for (const server of [open, listing]) {
    await server?.stop();
    expect(server?.stdout()).not.toMatch(/not handled|not caught|failed unexpectedly/);
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
  test('TRACE, CONNECT and methods that no route knows get a 404 and never their own request back', async () => {
    for (const method of ['TRACE', 'CONNECT', 'PUT', 'DELETE', 'PATCH', 'PROPFIND', 'LOCK', 'OPTIONS']) {
      const tcp = await TcpClient.connect(open.url);
      tcp.write(`${method} /metrics HTTP/1.1\r\nHost: a\r\nX-Marker: mirrored\r\nContent-Length: 0\r\n\r\n`);
      const head = await tcp.readHead();
      const body = await tcp.readBody(head);
      expect([method, head.status, errorOf(body).code]).toEqual([method, 404, 'bad_request']);
      expect(body + JSON.stringify([...head.headers])).not.toContain('mirrored');
      tcp.cut();
    }
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

  test('odd host headers change nothing', async () => {
    for (const host of ['', 'a', 'a b/<>:99999', '[::1', 'x'.repeat(5_000), '../../etc']) {
      const tcp = await TcpClient.connect(open.url);
      tcp.write(`GET /realtime/channels HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
      const head = await tcp.readHead();
      expect([host.slice(0, 20), [200, 400].includes(head.status)]).toEqual([host.slice(0, 20), true]);
      tcp.cut();
    }
  });
});
