// Tokens from outside: where they may stand, what a bad one gets, what a good one grants, and how it is renewed.

import { expect, test } from 'bun:test';
import { SignJWT } from 'jose';
import { EventClient, Refused, type WebSocketOptions } from '../support/clients.ts';
import { wait } from '../support/tcp-client.ts';
import { call, describeWire, errorOf, post, publish } from './wire.ts';

const secret = 'a secret of these tests that is long enough';
const now = (): number => Math.floor(Date.now() / 1_000);

function tokenOf(claims: Record<string, unknown>, expiresAt = now() + 600, key = secret): Promise<string> {
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(expiresAt)
    .sign(new TextEncoder().encode(key));
}

const all = ['subscribe', 'publish', 'history'];
const apiKey = 'the-key-of-the-backend-0123456789';

describeWire('Tokens', (wire) => {
  const tokens = wire.shared({ JWT_SECRET: secret, API_KEY: apiKey });

  test('each place of a token is read, the first one wins', async () => {
    const server = await tokens();
    const [ann, bob] = [await tokenOf({ sub: 'ann' }), await tokenOf({ sub: 'bob' })];
    const places: readonly WebSocketOptions[] = [
      { query: `token=${ann}` },
      { headers: { Authorization: `Bearer ${ann}` } },
      { headers: { 'Sec-WebSocket-Protocol': `sobranie, bearer.${ann}` } },
      { headers: { Cookie: `other=1; sobranie_token=${ann}; more=2` } },
      { headers: { Authorization: `Bearer ${ann}`, 'Sec-WebSocket-Protocol': `sobranie, bearer.${bob}` } },
      { headers: { 'Sec-WebSocket-Protocol': `sobranie, bearer.${ann}` }, query: `token=${bob}` },
      { headers: { Cookie: `sobranie_token=${bob}` }, query: `token=${ann}` },
    ];
    for (const place of places) {
      const socket = await wire.socket(server, place);
      expect((await socket.next('welcome')).user).toBe('ann');
    }
    for (const place of places.filter(({ headers }) => headers?.['Sec-WebSocket-Protocol'] === undefined)) {
      const { query = 'x' } = place;
      const channel = encodeURIComponent('user:ann');
      const stream = await wire.stream(server, { ...place, query: `${query}&channels=${channel}` });
      expect((await stream.next('welcome')).frame.user).toBe('ann');
    }
  });

  test('a token that is missing, bad or expired closes with 1008, or is 401 before a stream', async () => {
    const server = await tokens();
    const good = await tokenOf({ sub: 'ann' });
    const unsigned = `${btoa('{"alg":"none"}')}.${btoa('{"sub":"ann"}')}.`.replaceAll('=', '');
    const cases: readonly [string, string][] = [
      ['', 'unauthorized'],
      ['token=x', 'unauthorized'],
      ['token=a.b.c', 'unauthorized'],
      [`token=${good.slice(0, -2)}`, 'unauthorized'],
      [`token=${unsigned}`, 'unauthorized'],
      [`token=${await tokenOf({ sub: 'ann' }, now() + 600, 'another secret, also long enough')}`, 'unauthorized'],
      [`token=${await tokenOf({})}`, 'unauthorized'],
      [`token=${await tokenOf({ sub: 'ann', channels: 'posts' })}`, 'unauthorized'],
      [`token=${await tokenOf({ sub: 'ann' }, now() - 60)}`, 'token_expired'],
    ];
    for (const [query, reason] of cases) {
      const socket = await wire.socket(server, { query });
      expect([query, await wait(socket.closed, 3_000, 'the end')]).toEqual([query, { code: 1008, reason }]);
      const refused = await EventClient.open(server.url, { query: `channels=a&${query}` }).catch(
        (error: unknown) => error,
      );
      if (!(refused instanceof Refused)) throw new Error(`a stream was opened with ${query}`);
      expect([refused.status, errorOf(refused.body)]).toMatchObject([401, { code: reason, retryable: false }]);
    }
  });

  test('a token grants its channels and actions and nothing more', async () => {
    const server = await tokens();
    const channels = { 'chat:*': all, posts: ['subscribe'] };
    const socket = await wire.socket(server, { query: `token=${await tokenOf({ sub: 'ann', channels })}` });
    const { user, connection } = await socket.next('welcome');
    const outcome = async (type: string, channel: string): Promise<string | undefined> => {
      const reply = await socket.request({ type, channel, data: 1 });
      return reply.code ?? reply.type;
    };
    expect(await outcome('subscribe', 'chat:1')).toBe('subscribed');
    expect(await outcome('publish', 'chat:1')).toBe('published');
    expect((await socket.next('message')).from).toEqual({ user: user!, connection: connection! });
    expect(await outcome('history', 'chat:1')).toBe('history');
    expect(await outcome('subscribe', 'posts')).toBe('subscribed');
    expect(await outcome('subscribe', 'user:ann')).toBe('subscribed');
    for (const [type, channel] of [
      ['publish', 'posts'],
      ['history', 'posts'],
      ['subscribe', 'posts2'],
      ['subscribe', 'chat'],
      ['subscribe', 'user:bob'],
      ['publish', 'user:bob'],
      ['subscribe', '$system'],
      ['publish', '$system'],
    ] as const) {
      expect([type, channel, await outcome(type, channel)]).toEqual([type, channel, 'forbidden']);
    }
    const bare = await tokenOf({ sub: 'ann', channels });
    const refused = await EventClient.open(server.url, { query: `channels=posts,secret&token=${bare}` }).catch(
      (error: unknown) => error,
    );
    expect(refused).toBeInstanceOf(Refused);
    expect([(refused as Refused).status, errorOf((refused as Refused).body).code]).toEqual([403, 'forbidden']);
  });

  test('over HTTP a token may do what it grants, and the API key everything', async () => {
    const server = await tokens();
    const bearer = { authorization: `Bearer ${await tokenOf({ sub: 'ann', channels: { 'chat:*': all } })}` };
    const send = (channel: string, headers: Record<string, string>) =>
      post(server, '/realtime/publish', { channel, data: 1 }, headers);
    expect((await send('chat:http', bearer)).status).toBe(200);
    expect((await send('posts', bearer)).status).toBe(403);
    expect((await send('posts', {})).status).toBe(401);
    expect((await send('posts', { authorization: `Bearer ${apiKey}` })).status).toBe(200);
    const history = (channel: string) => call(server, `/realtime/channels/${channel}/history`, { headers: bearer });
    expect((await history('chat:http')).status).toBe(200);
    expect((await history('posts')).status).toBe(403);
    expect((await call(server, '/realtime/channels', { headers: bearer })).status).toBeOneOf([401, 403]);
  });

  test('a token that ends closes its connection; a fresh one in time extends it', async () => {
    const server = await tokens();
    const channels = { 'chat:*': all };
    const ending = now() + 2;
    const open = async () => {
      const socket = await wire.socket(server, { query: `token=${await tokenOf({ sub: 'ann', channels }, ending)}` });
      await socket.next('welcome');
      return socket;
    };
    const [left, refreshed] = [await open(), await open()];
    await refreshed.request({ type: 'subscribe', channel: 'chat:kept' });
    const expires = now() + 600;
    const token = await tokenOf({ sub: 'ann', channels }, expires);
    expect(await refreshed.request({ type: 'refresh', token })).toMatchObject({ type: 'refreshed', expires });
    for (const [other, code] of [
      ['nonsense', 'unauthorized'],
      [await tokenOf({ sub: 'bob', channels }), 'unauthorized'],
      [await tokenOf({ sub: 'ann', channels }, now() - 60), 'token_expired'],
    ] as const) {
      expect(await refreshed.request({ type: 'refresh', token: other })).toMatchObject({ type: 'error', code });
    }
    expect(await wait(left.closed, 5_000, 'the end')).toEqual({ code: 1008, reason: 'token_expired' });
    expect(await refreshed.request({ type: 'publish', channel: 'chat:kept', data: 'still here' })).toMatchObject({
      type: 'published',
    });
    expect(await refreshed.next('message')).toMatchObject({ data: 'still here' });
  });

  test('without a token key tokens say nothing', async () => {
    const server = await wire.server();
    const socket = await wire.socket(server, { query: `token=${await tokenOf({ sub: 'ann' })}` });
    expect((await socket.next('welcome')).user).toBeNull();
    await publish(server, wire.channel(), 1);
  });
});
