// Pages of other sites: who may connect, whose cookies count, and what a page may read.

import { expect, test } from 'bun:test';
import { WebSocketClient } from '../support/clients.ts';
import { describeWire } from './wire.ts';

describeWire('Origins', (wire) => {
  const get = async (url: string, origin: string): Promise<Response> => {
    const response = await fetch(`${url}/realtime/events?channels=a`, { headers: { origin } });
    await response.body?.cancel();
    return response;
  };

  test('with a list, pages of other origins are refused before anything is opened', async () => {
    const server = await wire.start({ ALLOWED_ORIGINS: 'https://app.example' });
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
    const server = await wire.start({ ALLOWED_ORIGINS: 'https://app.example' });
    const allowed = await get(server.url, 'https://app.example');
    expect(allowed.status).toBe(200);
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://app.example');
    expect(allowed.headers.get('access-control-allow-credentials')).toBe('true');
  });

  test('without a list any page may connect, but never with its visitor’s cookie', async () => {
    const server = await wire.start({ JWT_SECRET: 'a secret of more than thirty-two characters' });
    const token = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3IiwiY2hhbm5lbHMiOnsiKiI6WyJzdWJzY3JpYmUiXX19.UNSIGNED';
    const cookie = `sobranie_token=${token}`;
    const url = `${server.url}/realtime/events?channels=a`;
    const foreign = await fetch(url, { headers: { cookie, origin: 'https://evil.example' } });
    expect(await foreign.json()).toMatchObject({ error: { message: 'A valid token is needed.' } });
    const own = await fetch(url, { headers: { cookie, origin: server.url } });
    expect(await own.json()).toMatchObject({ error: { message: 'The token’s signature does not fit this server’s key.' } });
  });
});
