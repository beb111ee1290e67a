// Tickets from outside: who gets one, where it may stand, that it opens once, and how its connection ends.

import { expect, test } from 'bun:test';
import { EventClient, Refused, type WebSocketOptions } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { wait } from '../support/tcp-client.ts';
import { nowSeconds, secret, tokenOf } from '../support/tokens.ts';
import { call, describeWire, errorOf, post, type Answer } from './wire.ts';
import { patient } from '../support/patience.ts';

patient();

const apiKey = 'the-key-of-the-backend-0123456789';
const backend = { authorization: `Bearer ${apiKey}` };
const all = ['subscribe', 'publish', 'history'];
const usedText = /was used, has expired or never existed/;

function ask(server: RunningServer, headers: Record<string, string>, body?: unknown): Promise<Answer> {
  if (body !== undefined) return post(server, '/realtime/ticket', body, headers);
  return call(server, '/realtime/ticket', { method: 'POST', headers });
}

async function ticketBy(server: RunningServer, token: string): Promise<string> {
  const answer = await ask(server, { authorization: `Bearer ${token}` });
  expect(answer.status).toBe(200);
  return (answer.body as { ticket: string }).ticket;
}

async function vouchedTicket(server: RunningServer, session: object): Promise<string> {
  const answer = await ask(server, backend, session);
  expect([answer.status, answer.text]).toEqual([200, expect.stringContaining('ticket')]);
  return (answer.body as { ticket: string }).ticket;
}

describeWire('Tickets', (wire) => {
  const keyed = wire.shared({ JWT_SECRET: secret, API_KEY: apiKey, ALLOWED_ORIGINS: 'https://app.example' });

  test('a token becomes a ticket that says the same, stands in every place, and opens once', async () => {
    const server = await keyed();
    const token = await tokenOf({ sub: 'ann', channels: { 'chat:*': all } });
    const answer = await ask(server, { authorization: `Bearer ${token}` });
    expect(answer.status).toBe(200);
    expect(answer.headers.get('cache-control')).toBe('no-store');
    const { ticket, expires, ...more } = answer.body as { ticket: string; expires: number };
    expect(more).toEqual({});
    expect(ticket).toMatch(/^ticket_[\w-]{43}$/);
    expect(Math.abs(expires - nowSeconds() - 30)).toBeLessThan(5);

    const tickets = [
      ticket,
      await ticketBy(server, token),
      await ticketBy(server, token),
      await ticketBy(server, token),
    ];
    const places: readonly ((text?: string) => WebSocketOptions)[] = [
      (text) => ({ query: `token=${text}` }),
      (text) => ({ headers: { Authorization: `Bearer ${text}` } }),
      (text) => ({ headers: { 'Sec-WebSocket-Protocol': `sobranie, bearer.${text}` } }),
      (text) => ({ headers: { Cookie: `sobranie_token=${text}` } }),
    ];
    for (const [index, place] of places.entries()) {
      const socket = await wire.socket(server, place(tickets[index]));
      expect((await socket.next('welcome')).user).toBe('ann');
      const reply = async (type: string, channel: string) => (await socket.request({ type, channel, data: 1 })).type;
      expect([await reply('publish', 'chat:1'), await reply('subscribe', 'posts')]).toEqual(['published', 'error']);
      expect(await reply('subscribe', 'user:ann')).toBe('subscribed');
      const again = await wire.socket(server, place(tickets[index]));
      expect(await wait(again.closed, 15_000, 'the end')).toEqual({ code: 1008, reason: 'unauthorized' });
    }
    expect(server.stdout() + server.stderr()).not.toContain(ticket.slice(0, 20));
  });

  test('a stream opens by a ticket; what comes back with it gets 401 and stops; another goes on since', async () => {
    const server = await keyed();
    const token = await tokenOf({ sub: 'ann', channels: { 'chat:*': all } });
    const channel = wire.channel('chat');
    const query = `channels=${encodeURIComponent(channel)}&token=${await ticketBy(server, token)}`;
    const stream = await wire.stream(server, { query });
    expect((await stream.next('welcome')).frame.user).toBe('ann');
    const publish = (data: unknown) => post(server, '/realtime/publish', { channel, data }, backend);
    await publish('before');
    const { lastEventId } = await stream.next('message');
    await stream.cut();
    await publish('meanwhile');
    const back = await EventClient.open(server.url, { query, lastEventId }).catch((error: unknown) => error);
    if (!(back instanceof Refused)) throw new Error('a used ticket opened a stream');
    expect([back.status, errorOf(back.body)]).toEqual([
      401,
      { code: 'unauthorized', message: expect.stringMatching(usedText) as unknown as string, retryable: false },
    ]);
    const fresh = `channels=${encodeURIComponent(channel)}&token=${await ticketBy(server, token)}`;
    const resumed = await wire.stream(server, { query: `${fresh}&since=${encodeURIComponent(lastEventId)}` });
    expect((await resumed.next('message')).frame.data).toBe('meanwhile');
  });

  test('the connection ends with the token, or as the backend said, and not with the ticket', async () => {
    const server = await keyed();
    const socket = await wire.socket(server, {
      query: `token=${await ticketBy(server, await tokenOf({ sub: 'ann' }, nowSeconds() + 3))}`,
    });
    const vouched = await vouchedTicket(server, { user: 'bob', expires: nowSeconds() + 3 });
    const other = await wire.socket(server, { query: `token=${vouched}` });
    expect([(await socket.next('welcome')).user, (await other.next('welcome')).user]).toEqual(['ann', 'bob']);
    for (const { closed } of [socket, other]) {
      expect(await wait(closed, 15_000, 'the end')).toEqual({ code: 1008, reason: 'token_expired' });
    }
  });

  test('a backend vouches for a session: its user and rights, and a fresh ticket extends it', async () => {
    const server = await keyed();
    const expires = nowSeconds() + 600;
    const ticket = await vouchedTicket(server, {
      user: 'bob',
      channels: { posts: ['subscribe'] },
      claims: { tenant: 't1' },
      expires,
    });
    const socket = await wire.socket(server, { query: `token=${ticket}&channels=posts,chat:1` });
    expect((await socket.next('welcome')).user).toBe('bob');
    expect((await socket.next('subscribed')).channel).toBe('posts');
    expect(await socket.next('error')).toMatchObject({ channel: 'chat:1', code: 'forbidden' });
    // A fresh ticket of the same user extends it, another user's does not.
    const token = await vouchedTicket(server, { user: 'bob', expires: expires + 60 });
    expect(await socket.request({ type: 'refresh', token })).toMatchObject({
      type: 'refreshed',
      expires: expires + 60,
    });
    expect(await socket.next('unsubscribed')).toMatchObject({ channel: 'posts', reason: 'forbidden' });
    const others = await vouchedTicket(server, { user: 'eve' });
    expect(await socket.request({ type: 'refresh', token: others })).toMatchObject({ code: 'unauthorized' });
  });

  test('without a key for tokens a backend still names its users, and nobody else does', async () => {
    const server = await wire.start({ API_KEY: apiKey });
    const socket = await wire.socket(server, { query: `token=${await vouchedTicket(server, { user: 'bob' })}` });
    expect((await socket.next('welcome')).user).toBe('bob');
    const stranger = await wire.socket(server, { query: `token=ticket_${'a'.repeat(43)}` });
    expect(await wait(stranger.closed, 15_000, 'the end')).toEqual({ code: 1008, reason: 'unauthorized' });
    const nobody = await wire.socket(server);
    expect((await nobody.next('welcome')).user).toBeNull();
    expect((await ask(server, {}, { user: 'bob' })).status).toBe(401);
    expect(await ask(server, {})).toMatchObject({ status: 400, body: { error: { code: 'bad_request' } } });
    // It is no key of the API: the backend's calls need the backend's key.
    const ticket = await vouchedTicket(server, { user: 'bob' });
    const bearer = { authorization: `Bearer ${ticket}` };
    expect((await post(server, '/realtime/publish', { channel: 'posts', data: 1 }, bearer)).status).toBe(401);
  });

  test('who may not have one is told why', async () => {
    const server = await keyed();
    const token = await tokenOf({ sub: 'ann' });
    const bearer = { authorization: `Bearer ${token}` };
    const ticket = await ticketBy(server, token);
    const json = { 'content-type': 'application/json' };
    const cases: readonly [Record<string, string>, unknown, number, string, RegExp][] = [
      [{}, undefined, 401, 'unauthorized', /takes a user’s token/],
      [{ authorization: 'Bearer nonsense' }, undefined, 401, 'unauthorized', /not a signed JSON Web Token/],
      [{ authorization: `Bearer ${ticket}` }, undefined, 401, 'unauthorized', /not a signed JSON Web Token/],
      [{ authorization: `Bearer ${await tokenOf({ sub: 'ann' }, nowSeconds() - 60)}` }, {}, 401, 'token_expired', /./],
      [bearer, { user: 'bob' }, 401, 'unauthorized', /API key/],
      [bearer, { user: 'ann' }, 401, 'unauthorized', /API key/],
      [{}, { user: 'bob' }, 401, 'unauthorized', /API key/],
      [bearer, { channels: { '*': all } }, 400, 'bad_request', /need "user"/],
      [bearer, { expires: nowSeconds() + 9e9 }, 400, 'bad_request', /need "user"/],
      // The answer was that the API key is no JSON Web Token.
      [backend, undefined, 400, 'bad_request', /"user"/],
      [backend, { user: '' }, 400, 'bad_request', /"user"/],
      [backend, { user: 'ann\r\n' }, 400, 'bad_request', /"user"/],
      [backend, { user: 'ann', channels: 'posts' }, 400, 'bad_request', /"channels"/],
      [backend, { user: 'ann', claims: { sub: 'root' } }, 400, 'bad_request', /"claims"/],
      [backend, { user: 'ann', expires: nowSeconds() - 1 }, 400, 'bad_request', /"expires"/],
      [backend, { user: 'ann', claims: { more: 'x'.repeat(9_000) } }, 413, 'too_large', /claims/],
      [backend, { user: 'ann', claims: { more: 'x'.repeat(20_000) } }, 413, 'too_large', /body/],
      [backend, '[1]', 400, 'bad_request', /JSON object/],
      [backend, '{"user"', 400, 'bad_request', /not valid JSON/],
      [{ ...backend, 'content-type': 'text/plain' }, '{"user":"ann"}', 400, 'bad_request', /content-type/],
    ];
    for (const [headers, body, status, code, message] of cases) {
      const answer = await ask(server, { ...(body === undefined ? {} : json), ...headers }, body);
      expect([body, answer.status, errorOf(answer.text).code]).toEqual([body, status, code]);
      expect(errorOf(answer.text).message).toMatch(message);
      expect(answer.text).not.toContain('"ticket"');
    }
    const loud = await ask(server, { authorization: `Bearer ${token}`, Cookie: 'sobranie_token=x' });
    expect(loud.status).toBe(200);
    expect((await call(server, '/realtime/ticket', { headers: bearer })).status).toBe(405);
    // A token in the URL is what tickets are there to avoid.
    expect((await call(server, `/realtime/ticket?token=${token}`, { method: 'POST' })).status).toBe(401);
  });

  test('made-up, cut and lengthened tickets open nothing, and cost a good one nothing', async () => {
    const server = await keyed();
    const ticket = await ticketBy(server, await tokenOf({ sub: 'ann' }));
    const wrong = [
      `ticket_${Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64url')}`,
      ticket.slice(0, -1),
      `${ticket}A`,
      ticket.slice('ticket_'.length),
      ticket.toUpperCase(),
      'ticket_',
      `ticket_${encodeURIComponent("' OR 1=1 --")}`,
      `ticket_${'%2A'.repeat(43)}`,
    ];
    for (const text of wrong) {
      const refused = await EventClient.open(server.url, { query: `channels=a&token=${text}` }).catch(
        (error: unknown) => error,
      );
      expect(refused).toBeInstanceOf(Refused);
      expect([text, (refused as Refused).status]).toEqual([text, 401]);
    }
    // Neither is it spent by a request that could not have been served.
    const bad = await call(server, `/realtime/events?channels=bad%20name&token=${ticket}`);
    expect([bad.status, errorOf(bad.text).code]).toEqual([400, 'bad_channel']);
    const socket = await wire.socket(server, { query: `token=${ticket}` });
    expect((await socket.next('welcome')).user).toBe('ann');
  });

  test('pages of listed origins get one by cookie; others do not even with it', async () => {
    const server = await keyed();
    const cookie = `sobranie_token=${await tokenOf({ sub: 'ann' })}`;
    const preflight = await fetch(`${server.url}/realtime/ticket`, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://app.example',
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,content-type',
      },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-origin')).toBe('https://app.example');
    expect(preflight.headers.get('access-control-allow-credentials')).toBe('true');
    expect(preflight.headers.get('access-control-allow-headers')).toMatch(/authorization/);

    const listed = await ask(server, { cookie, origin: 'https://app.example' });
    expect([listed.status, listed.headers.get('access-control-allow-origin')]).toEqual([200, 'https://app.example']);
    expect(listed.headers.get('access-control-allow-credentials')).toBe('true');
    expect(listed.headers.get('cache-control')).toBe('no-store');
    expect((await ask(server, { cookie, origin: server.url })).status).toBe(200);
    for (const origin of ['https://evil.example', 'null', 'https://app.example.evil.example', 'http://app.example']) {
      const foreign = await ask(server, { cookie, origin });
      expect([origin, foreign.status]).toEqual([origin, 403]);
      expect(foreign.headers.get('access-control-allow-origin')).toBeNull();
    }
  });

  test('a user’s tickets count among the user’s commands', async () => {
    const server = await wire.start({ JWT_SECRET: secret, API_KEY: apiKey, RATE_LIMIT_PER_MINUTE: '5' });
    const bearer = { authorization: `Bearer ${await tokenOf({ sub: 'ann' })}` };
    const statuses: number[] = [];
    for (let index = 0; index < 7; index++) statuses.push((await ask(server, bearer)).status);
    expect(statuses.slice(0, 4)).toEqual([200, 200, 200, 200]);
    const refused = await ask(server, bearer);
    expect([refused.status, errorOf(refused.text).code]).toEqual([429, 'rate_limited']);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect((await ask(server, backend, { user: 'ann' })).status).toBe(200);
  });
});
