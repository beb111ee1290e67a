// Tokens from outside: where they may stand, what a bad one gets, what a good one grants, and how it is renewed.

import { expect, test } from 'bun:test';
import { exportSPKI, generateKeyPair, SignJWT } from 'jose';
import {
  EventClient,
  Refused,
  WebSocketClient,
  type Closing,
  type Frame,
  type WebSocketOptions,
} from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { until, wait } from '../support/tcp-client.ts';
import { handmade, hs256, KeySetHost, namedKey, nowSeconds, secret, tokenBy, tokenOf } from '../support/tokens.ts';
import { call, describeWire, errorOf, post, publish, type Answer } from './wire.ts';
import { patient } from '../support/patience.ts';

patient();

const now = nowSeconds;

const all = ['subscribe', 'publish', 'history'];
const apiKey = 'the-key-of-the-backend-0123456789';

/** How a server refuses: over a WebSocket, before a stream, and over HTTP; and the frame that tells why. */
async function refusals(server: RunningServer, given: WebSocketOptions): Promise<[Closing, Refused, Answer, Frame]> {
  const { query = '', headers = {} } = given;
  const socket = await WebSocketClient.open(server.url, given);
  const told = await socket.nextAny(15_000);
  const closing = await wait(socket.closed, 15_000, 'the end');
  const events = await EventClient.open(server.url, { query: `channels=a&${query}`, headers }).catch(
    (error: unknown) => error,
  );
  if (!(events instanceof Refused)) throw new Error(`a stream was opened: ${JSON.stringify(given)}`);
  const token = new URLSearchParams(query).get('token');
  const bearer = token === null ? {} : { authorization: `Bearer ${token}` };
  const answer = await post(server, '/realtime/publish', { channel: 'posts', data: 1 }, { ...headers, ...bearer });
  return [closing, events, answer, told];
}

describeWire('Tokens', (wire) => {
  const tokens = wire.shared({ JWT_SECRET: secret, API_KEY: apiKey });
  /** For what has nothing to do with the sync layer, and takes long. */
  const testOnce = wire.environment.name === 'memory' ? test : () => undefined;

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

  // A sibling domain can set a cookie of its own for this host: the first one counted, so it chose who was meant.
  test('two cookies that differ are no token; the one that only this host can set counts first', async () => {
    const server = await tokens();
    const [ann, bob] = [await tokenOf({ sub: 'ann' }), await tokenOf({ sub: 'bob' })];
    const userOf = async (cookie: string): Promise<unknown> => {
      const socket = await wire.socket(server, { headers: { Cookie: cookie } });
      const { user, code, message } = await socket.nextAny();
      return user ?? `${code}: ${message}`;
    };
    expect(await userOf(`__Host-sobranie_token=${ann}`)).toBe('ann');
    expect(await userOf(`sobranie_token=${bob}; __Host-sobranie_token=${ann}`)).toBe('ann');
    expect(await userOf(`sobranie_token=${bob}; sobranie_token=${bob}`)).toBe('bob');
    expect(await userOf(`sobranie_token=; sobranie_token=${bob}`)).toBe('bob');
    const several = 'unauthorized: The request has several cookies sobranie_token, and they differ.';
    expect(await userOf(`sobranie_token=${ann}; x=1; sobranie_token=${bob}`)).toBe(several);
    const both = { headers: { Cookie: `sobranie_token=${ann}; sobranie_token=${bob}` } };
    const stream = await EventClient.open(server.url, { query: 'channels=a', ...both }).catch(
      (error: unknown) => error,
    );
    expect((stream as Refused).status).toBe(401);
    const ticket = await call(server, '/realtime/ticket', { method: 'POST', headers: { cookie: both.headers.Cookie } });
    expect([ticket.status, errorOf(ticket.text).code]).toEqual([401, 'unauthorized']);
  });

  test('only the protocol sobranie is ever answered, and only where it is offered', async () => {
    const server = await tokens();
    const token = await tokenOf({ sub: 'ann' });
    for (const [offered, answered] of [
      ['sobranie', 'sobranie'],
      [`graphql-ws, sobranie`, 'sobranie'],
      // A protocol that the client did not offer ends the connection there.
      [`bearer.${token}`, undefined],
      // By itself the runtime answers what was offered first, though nobody here speaks it.
      ['graphql-ws, mqtt', undefined],
    ] as const) {
      const query = `token=${token}`;
      const socket = await wire.socket(server, { headers: { 'Sec-WebSocket-Protocol': offered }, query });
      expect([offered, socket.subprotocol]).toEqual([offered, answered]);
      expect((await socket.next('welcome')).user).toBe('ann');
    }
  });

  // A WebSocket closed with a bare 1008: neither the page's developer nor the operator learned which check failed.
  test('a token that is missing, bad or expired closes with 1008, or is 401, and its fault is told', async () => {
    const server = await tokens();
    const good = await tokenOf({ sub: 'ann' });
    const cases: readonly [string, string, RegExp][] = [
      ['', 'unauthorized', /A valid token is needed|needs the API key/],
      ['x', 'unauthorized', /not a signed JSON Web Token|neither the API key nor a signed token/],
      ['a.b.c', 'unauthorized', /not a signed JSON Web Token/],
      [good.slice(0, -3), 'unauthorized', /signature/],
      [handmade({ alg: 'none' }, { sub: 'ann' }).replace(/[^.]+$/, ''), 'unauthorized', /"alg"/],
      [handmade(hs256, { sub: 'ann' }, 'another secret, also long enough'), 'unauthorized', /signature/],
      [await tokenOf({}), 'unauthorized', /"sub"/],
      [handmade(hs256, { sub: 'ann\n' }), 'unauthorized', /"sub"/],
      [handmade(hs256, { sub: 'ann', exp: 'never' }), 'unauthorized', /"exp"/],
      [handmade(hs256, { sub: 'ann', nbf: now() + 600 }), 'unauthorized', /"nbf"/],
      [handmade(hs256, { sub: 'ann', exp: Date.now() + 3_600_000 }), 'unauthorized', /"exp" is not in seconds/],
      [await tokenOf({ sub: 'ann', channels: 'posts' }), 'unauthorized', /"channels"/],
      [await tokenOf({ sub: 'ann', channels: ['posts'] }), 'unauthorized', /"channels"/],
      [handmade(hs256, { sub: 'ann', x: 'x'.repeat(7_000) }), 'unauthorized', /larger than 8192/],
      [await tokenOf({ sub: 'ann' }, now() - 60), 'token_expired', /has expired/],
    ];
    for (const [token, reason, message] of cases) {
      const query = token === '' ? '' : `token=${token}`;
      const [closing, events, answer, { type, ...told }] = await refusals(server, { query });
      expect([query, closing, type]).toEqual([query, { code: 1008, reason }, 'error']);
      // As HTTP would say it.
      expect<unknown>(told).toEqual(errorOf(events.body));
      await until(() => server.stdout().includes(JSON.stringify(told.message)), `the log tells: ${told.message}`);
      for (const { status, body } of [events, { status: answer.status, body: answer.text }]) {
        expect([status, errorOf(body)]).toEqual([
          401,
          { code: reason, message: expect.stringMatching(message) as unknown as string, retryable: false },
        ]);
        if (token.length > 9) expect(body).not.toContain(token.slice(0, 9));
      }
    }
    expect(server.stdout() + server.stderr()).not.toContain(good.slice(0, 30));
    const line =
      server
        .stdout()
        .split('\n')
        .find((each) => each.includes('a connection was refused')) ?? '{}';
    expect(JSON.parse(line)).toMatchObject({
      level: 'info',
      transport: 'websocket',
      code: 'unauthorized',
      address: '127.0.0.1',
    });
  });

  test('a wrong key is not called a token', async () => {
    const server = await tokens();
    for (const [path, message] of [
      ['/realtime/publish', 'The bearer is neither the API key nor a signed token.'],
      ['/realtime/users/ann/disconnect', 'This call needs the API key. The bearer is not it.'],
      ['/realtime/reload', 'This call needs ADMIN_KEY, which is not set.'],
    ] as const) {
      const answer = await post(
        server,
        path,
        { channel: 'a', data: 1 },
        { authorization: 'Bearer wrong-key-0123456789' },
      );
      expect([answer.status, errorOf(answer.text).message]).toEqual([401, message]);
    }
  });

  test('the first place counts even if its token is bad, and two tokens in one header are none', async () => {
    const server = await tokens();
    const [good, bad] = [await tokenOf({ sub: 'ann' }), await tokenOf({ sub: 'ann' }, now() - 60)];
    const places: readonly [WebSocketOptions, string][] = [
      [{ headers: { Authorization: `Bearer ${bad}` }, query: `token=${good}` }, 'token_expired'],
      [{ headers: { Cookie: `sobranie_token=${good}` }, query: `token=${bad}` }, 'token_expired'],
      [{ headers: { Authorization: `Bearer ${good}`, authorization: `Bearer ${good}` } }, 'unauthorized'],
      [{ headers: { Authorization: 'Basic YTpi', authorization: `Bearer ${good}` } }, 'unauthorized'],
      [{ headers: { Authorization: `Bearer ${good} ${good}` }, query: `token=${good}` }, 'unauthorized'],
    ];
    for (const [place, reason] of places) {
      const socket = await wire.socket(server, place);
      expect(await wait(socket.closed, 15_000, 'the end')).toEqual({ code: 1008, reason });
      const { headers = {}, query = '' } = place;
      const refused = await EventClient.open(server.url, { headers, query: `channels=a&${query}` }).catch(
        (error: unknown) => error,
      );
      expect(refused).toBeInstanceOf(Refused);
      expect(errorOf((refused as Refused).body).code).toBe(reason);
    }
    // Another scheme is somebody else's, such as a proxy's.
    const socket = await wire.socket(server, { headers: { Authorization: 'Basic YTpi' }, query: `token=${good}` });
    expect((await socket.next('welcome')).user).toBe('ann');
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

  testOnce('a token that ends closes its connection; a fresh one in time extends it', async () => {
    const server = await tokens();
    const channels = { 'chat:*': all };
    const ending = now() + 4;
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
      ['x'.repeat(60_000), 'unauthorized'],
      [await tokenOf({ sub: 'bob', channels }), 'unauthorized'],
      [await tokenOf({ sub: 'ann', channels }, now() - 60), 'token_expired'],
    ] as const) {
      expect(await refreshed.request({ type: 'refresh', token: other })).toMatchObject({ type: 'error', code });
    }
    expect(await wait(left.closed, 15_000, 'the end')).toEqual({ code: 1008, reason: 'token_expired' });
    expect(await refreshed.request({ type: 'publish', channel: 'chat:kept', data: 'still here' })).toMatchObject({
      type: 'published',
    });
    expect(await refreshed.next('message')).toMatchObject({ data: 'still here' });
  });

  testOnce(
    'before a token ends its WebSocket is warned once, and a fresh one in that time extends it',
    async () => {
      const server = await tokens();
      const expires = now() + 8;
      // Ends that are missing or ever so far away: nothing may come of them meanwhile.
      const endless = await Promise.all(
        [{}, { exp: 2 ** 31 + 1 }, { exp: 2 ** 32 + 1 }, { exp: 253_402_300_799 }].map(async (end) => {
          const each = await wire.socket(server, { query: `token=${handmade(hs256, { sub: 'ann', ...end })}` });
          await each.next('welcome');
          return each;
        }),
      );
      const token = await tokenOf({ sub: 'ann' }, expires);
      const socket = await wire.socket(server, { query: `token=${token}` });
      const stream = await wire.stream(server, { query: `channels=${encodeURIComponent('user:ann')}&token=${token}` });
      const warning = await socket.next('error', 15_000);
      expect(warning).toEqual({
        type: 'error',
        code: 'token_expired',
        message: expect.stringContaining('refresh') as unknown as string,
        retryable: false,
        expires,
      } as never);
      expect(now()).toBeLessThan(expires);
      const later = now() + 600;
      const fresh = await tokenOf({ sub: 'ann' }, later);
      expect(await socket.request({ type: 'refresh', token: fresh })).toMatchObject({
        type: 'refreshed',
        expires: later,
      });
      // The stream, which cannot refresh, ends in order and has heard of no error.
      expect(await wait(stream.closed, 15_000, 'the end of the stream')).toBe(true);
      expect((await stream.next('welcome')).frame.user).toBe('ann');
      await expect(stream.next('error', 10)).rejects.toThrow('no error');
      // An EventSource comes back as it came, and stops for good at this answer.
      const again = EventClient.open(server.url, {
        query: `channels=a&token=${await tokenOf({ sub: 'ann' }, now() - 9)}`,
      });
      await expect(again).rejects.toMatchObject({ status: 401 });
      expect((await socket.settle()).map(({ type }) => type)).toEqual(['welcome']);
      expect(now()).toBeGreaterThanOrEqual(expires);
      for (const each of endless) expect(await each.settle()).toEqual([]);
    },
    30_000,
  );

  test('a fresh token with less rights leaves the channels that it does not grant', async () => {
    const server = await tokens();
    const token = await tokenOf({ sub: 'ann', channels: { 'chat:*': all, posts: all } });
    const socket = await wire.socket(server, { query: `token=${token}&channels=chat:less,posts` });
    await socket.next('subscribed');
    await socket.next('subscribed');
    const less = await tokenOf({ sub: 'ann', channels: { posts: all } });
    expect(await socket.request({ type: 'refresh', token: less })).toMatchObject({ type: 'refreshed' });
    expect(await socket.next('unsubscribed')).toMatchObject({ channel: 'chat:less', reason: 'forbidden' });
    expect(await socket.request({ type: 'unsubscribe', channel: 'posts' })).toMatchObject({ type: 'unsubscribed' });
  });

  testOnce('audience and issuer are checked on every way in', async () => {
    const server = await wire.start({ JWT_SECRET: secret, JWT_AUDIENCE: 'chat', JWT_ISSUER: 'https://id.example' });
    const good = { sub: 'ann', aud: ['mail', 'chat'], iss: 'https://id.example' };
    const socket = await wire.socket(server, { query: `token=${await tokenOf(good)}` });
    expect((await socket.next('welcome')).user).toBe('ann');
    for (const [claims, message] of [
      [{ ...good, aud: 'mail' }, /"aud"/],
      [{ ...good, iss: 'https://evil.example' }, /"iss"/],
    ] as const) {
      const [closing, events] = await refusals(server, { query: `token=${await tokenOf(claims)}` });
      expect([closing, events.status]).toEqual([{ code: 1008, reason: 'unauthorized' }, 401]);
      expect(errorOf(events.body).message).toMatch(message);
      expect(await socket.request({ type: 'refresh', token: await tokenOf(claims) })).toMatchObject({
        code: 'unauthorized',
        message: expect.stringMatching(message) as unknown as string,
      });
    }
  });

  testOnce(
    'a key set: away at the start, then there, rotated, and away again',
    async () => {
      const [first, second] = await Promise.all([namedKey('first'), namedKey('second')]);
      const host = new KeySetHost(first);
      await host.goAway();
      const server = await wire.start({ JWKS_URL: host.url });
      const [token, rotated] = await Promise.all([tokenBy(first), tokenBy(second)]);
      const socket = await wire.socket(server, { query: `token=${token}` });
      expect(await wait(socket.closed, 15_000, 'the end')).toEqual({ code: 1013, reason: 'unavailable' });
      const refused = await EventClient.open(server.url, { query: `channels=a&token=${token}` }).catch(
        (error: unknown) => error,
      );
      expect(refused).toBeInstanceOf(Refused);
      const { status, headers, body } = refused as Refused;
      expect([status, errorOf(body).code]).toEqual([503, 'unavailable']);
      expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);

      host.comeBack();
      const enters = async (by: string): Promise<boolean> => {
        const entering = await wire.socket(server, { query: `token=${by}` });
        const welcome = await entering.next('welcome').catch(() => undefined);
        return welcome?.user === 'ann';
      };
      await until(() => enters(token), 'tokens are taken', 20_000, 100);
      host.answer = KeySetHost.keys(first, second);
      expect(await enters(rotated)).toBe(true);
      await host.goAway();
      expect([await enters(token), await enters(rotated)]).toEqual([true, true]);
      const [closing] = await refusals(server, { query: `token=${await tokenOf({ sub: 'ann' })}` });
      expect(closing).toEqual({ code: 1008, reason: 'unauthorized' });
    },
    40_000,
  );

  testOnce('tokens by made-up keys are refused, and hardly trouble the host of the key set', async () => {
    const [known, stranger] = await Promise.all([namedKey('known'), namedKey('stranger')]);
    const host = new KeySetHost(known);
    const server = await wire.start({ JWKS_URL: host.url });
    const good = await wire.socket(server, { query: `token=${await tokenBy(known)}` });
    expect((await good.next('welcome')).user).toBe('ann');
    for (let index = 0; index < 30; index++) {
      const query = `token=${await tokenBy({ ...stranger, kid: `made-up-${index}` })}`;
      const socket = await wire.socket(server, { query });
      expect(await wait(socket.closed, 15_000, 'the end')).toEqual({ code: 1008, reason: 'unauthorized' });
    }
    // At the start, three times at once, and once more every ten seconds that this takes.
    expect(host.asked).toBeLessThanOrEqual(7);
    await host.goAway();
  });

  test('clocks may differ by five seconds, either way', async () => {
    const server = await tokens();
    const outcome = async (claims: object): Promise<string | null | undefined> => {
      const socket = await wire.socket(server, { query: `token=${handmade(hs256, { sub: 'ann', ...claims })}` });
      const closed = socket.closed.then(({ reason }) => reason);
      const welcome = socket.next('welcome', 15_000).then(({ user }) => user);
      return wait(Promise.race([closed, welcome.catch(() => closed)]), 15_000, 'welcome or the end');
    };
    expect(await outcome({ exp: now() - 1 })).toBe('ann');
    expect(await outcome({ exp: now() - 6 })).toBe('token_expired');
    expect(await outcome({ nbf: now() + 4 })).toBe('ann');
    expect(await outcome({ nbf: now() + 60 })).toBe('unauthorized');
  });

  testOnce('with a public key nothing signed by that key as if it were a secret gets in', async () => {
    const { privateKey, publicKey } = await generateKeyPair('RS256', { extractable: true });
    const pem = await exportSPKI(publicKey);
    const server = await wire.start({ JWT_PUBLIC_KEY: pem, API_KEY: apiKey });
    const good = await new SignJWT({ sub: 'ann' }).setProtectedHeader({ alg: 'RS256' }).sign(privateKey);
    const socket = await wire.socket(server, { query: `token=${good}` });
    expect((await socket.next('welcome')).user).toBe('ann');
    for (const token of [handmade(hs256, { sub: 'ann' }, pem), handmade(hs256, { sub: 'ann' }, pem.trim())]) {
      const [closing, events, answer] = await refusals(server, { query: `token=${token}` });
      expect([closing, events.status, answer.status]).toEqual([{ code: 1008, reason: 'unauthorized' }, 401, 401]);
      expect(errorOf(events.body).message).toMatch(/"alg" is not allowed: this server’s key is for RS256/);
    }
  });

  test('without a token key tokens say nothing', async () => {
    const server = await wire.server();
    const socket = await wire.socket(server, { query: `token=${await tokenOf({ sub: 'ann' })}` });
    expect((await socket.next('welcome')).user).toBeNull();
    await publish(server, wire.channel(), 1);
  });
});
