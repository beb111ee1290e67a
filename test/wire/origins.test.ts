// Pages of other sites: who may connect, whose cookies count, and what a page may read.

import { expect, test } from 'bun:test';
import { EventClient, Refused, WebSocketClient } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { wait } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { describeWire, errorOf } from './wire.ts';

describeWire('Origins', (wire) => {
  const listing = wire.shared({ ALLOWED_ORIGINS: 'https://app.example' });
  /** For what has nothing to do with the sync layer, and takes long. */
  const testOnce = wire.environment.name === 'memory' ? test : () => undefined;
  const get = async (url: string, origin: string): Promise<Response> => {
    const response = await fetch(`${url}/realtime/events?channels=a`, { headers: { origin } });
    await response.body?.cancel();
    return response;
  };

  test('with a list, pages of other origins are refused before anything is opened', async () => {
    const server = await listing();
    const refused = await get(server.url, 'https://evil.example');
    expect([refused.status, refused.headers.get('access-control-allow-origin')]).toEqual([403, null]);
    const open = (origin: string) => WebSocketClient.open(server.url, { headers: { origin } });
    await expect(open('https://evil.example')).rejects.toThrow();
    await expect(open('https://app.example.evil.example')).rejects.toThrow();
    const own = await open(server.url);
    expect((await own.next('welcome')).type).toBe('welcome');
    await own.cut();
    const listed = await open('https://app.example');
    expect((await listed.next('welcome')).type).toBe('welcome');
    await listed.cut();
  });

  test('pages of a listed origin may read the stream, with credentials', async () => {
    const server = await listing();
    const allowed = await get(server.url, 'https://app.example');
    expect(allowed.status).toBe(200);
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://app.example');
    expect(allowed.headers.get('access-control-allow-credentials')).toBe('true');
    // Browsers keep it from the page otherwise, which then comes back at a time of its own.
    expect(allowed.headers.get('access-control-expose-headers')).toBe('retry-after');
  });

  test('without a list any page may connect, but never with its visitor’s cookie', async () => {
    const server = await wire.start({ JWT_SECRET: 'a secret of more than thirty-two characters' });
    const token = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3IiwiY2hhbm5lbHMiOnsiKiI6WyJzdWJzY3JpYmUiXX19.UNSIGNED';
    const cookie = `sobranie_token=${token}`;
    const url = `${server.url}/realtime/events?channels=a`;
    const foreign = await fetch(url, { headers: { cookie, origin: 'https://evil.example' } });
    expect(await foreign.json()).toMatchObject({ error: { message: 'A valid token is needed.' } });
    const own = await fetch(url, { headers: { cookie, origin: server.url } });
    expect(await own.json()).toMatchObject({
      error: { message: 'The token’s signature does not fit this server’s key.' },
    });
  });

  testOnce('nothing that merely looks like a listed origin is one', async () => {
    const server = await wire.start({
      ALLOWED_ORIGINS: 'https://app.example,http://localhost:5173',
      API_KEY: 'the-key-of-the-backend-0123456789',
      JWT_SECRET: secret,
      ALLOW_ANONYMOUS: 'true',
    });
    const host = `127.0.0.1:${server.port}`;
    const refused = [
      'null',
      'https://evil.example',
      'http://app.example',
      'https://app.example:8443',
      'https://app.example.evil.org',
      'https://app.example@evil.org',
      'https://evil.org/https://app.example',
      'https://evil.org#https://app.example',
      'https://notapp.example',
      'https://sub.app.example',
      'https://app.example.',
      'https://app.exampl',
      'https://xn--pp-6kc.example',
      'https://app.example, https://evil.example',
      'http://localhost',
      'http://localhost:5174',
      `http://127.0.0.1:${server.port + 1}`,
      `http://${host}.evil.org`,
      `http://${host}@evil.org`,
      `ftp://${host}`,
      'file://',
      '*',
    ];
    for (const origin of refused) {
      const answer = await WebSocketClient.open(server.url, { headers: { origin } }).catch((error: unknown) => error);
      if (!(answer instanceof Refused)) throw new Error(`a page of ${origin} was let in`);
      expect([origin, answer.status, errorOf(answer.body).code]).toEqual([origin, 403, 'forbidden']);
      const stream = await get(server.url, origin);
      expect([origin, stream.status, stream.headers.get('access-control-allow-origin')]).toEqual([origin, 403, null]);
    }
    const welcome = [
      'https://app.example',
      'HTTPS://APP.example',
      'http://localhost:5173',
      `http://${host}`,
      `https://${host}`,
    ];
    for (const origin of welcome) {
      const socket = await WebSocketClient.open(server.url, { headers: { origin } });
      expect((await socket.next('welcome')).type).toBe('welcome');
      await socket.cut();
    }
    // A proxy that speaks TLS may name the port that browsers leave out.
    for (const [origin, name] of [
      ['https://own.example', 'own.example:443'],
      ['http://own.example', 'own.example:80'],
    ] as const) {
      const socket = await WebSocketClient.open(server.url, { headers: { origin, Host: name } });
      expect((await socket.next('welcome')).type).toBe('welcome');
      await socket.cut();
    }
    const other = WebSocketClient.open(server.url, {
      headers: { origin: 'http://own.example', Host: 'own.example:443' },
    });
    await expect(other).rejects.toMatchObject({ status: 403 });
  });

  /** Whom a visitor's cookie makes a page's connection: a name, or the reason why there is none. */
  const visitor = async (server: RunningServer, headers: Record<string, string>): Promise<string> => {
    const cookie = `sobranie_token=${await tokenOf({ sub: 'ann' })}`;
    const socket = await WebSocketClient.open(server.url, { headers: { ...headers, Cookie: cookie } });
    const closed = socket.closed.then(({ code, reason }) => `${code} ${reason}`);
    const welcome = socket.next('welcome').then(({ user }) => user ?? 'nobody');
    const outcome = await wait(Promise.race([closed, welcome.catch(() => closed)]), 5_000, 'welcome or the end');
    await socket.cut();
    const stream = await EventClient.open(server.url, {
      query: `channels=${encodeURIComponent('user:ann')}`,
      headers: { ...headers, Cookie: cookie },
    }).catch((error: unknown) => (error as Refused).status);
    expect(typeof stream).toBe(outcome === 'ann' ? 'object' : 'number');
    if (stream instanceof EventClient) await stream.cut();
    return outcome;
  };

  testOnce('a visitor’s cookie counts for own and listed pages, and for no other, be they let in or not', async () => {
    const listed = await wire.start({ JWT_SECRET: secret, ALLOWED_ORIGINS: 'https://app.example' });
    const anyone = await wire.start({ JWT_SECRET: secret, ALLOWED_ORIGINS: '*' });
    expect(await visitor(listed, { origin: 'https://app.example' })).toBe('ann');
    for (const server of [listed, anyone]) {
      expect(await visitor(server, { origin: server.url })).toBe('ann');
      // A program, or a page that asks its own server.
      expect(await visitor(server, {})).toBe('ann');
      expect(await visitor(server, { 'Sec-Fetch-Site': 'same-origin' })).toBe('ann');
      // What a page of another site loads as if it were an image names no origin.
      expect(await visitor(server, { 'Sec-Fetch-Site': 'cross-site' })).toBe('1008 unauthorized');
      expect(await visitor(server, { 'Sec-Fetch-Site': 'same-site' })).toBe('1008 unauthorized');
    }
    for (const origin of ['https://evil.example', 'null', 'https://app.example', `${anyone.url}.evil.org`]) {
      expect([origin, await visitor(anyone, { origin })]).toEqual([origin, '1008 unauthorized']);
    }
  });
});
