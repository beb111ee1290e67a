// Limits from outside: who goes on too fast is told, and when to come back; who goes on in spite of it is closed; and
// what ends is given back.

import { expect, test } from 'bun:test';
import { EventClient, Refused, WebSocketClient, type Closing, type WebSocketOptions } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { randomFrom, seed } from '../support/random.ts';
import { until, wait } from '../support/tcp-client.ts';
import { nowSeconds, secret, tokenOf } from '../support/tokens.ts';
import { call, describeWire, errorOf, post, samples, type Answer } from './wire.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';

patient();

const long = process.env['LONG'] === '1';
const apiKey = 'the-key-of-the-backend-0123456789';
const adminKey = 'the-key-of-the-operator-0123456789';
const everything = { '*': ['subscribe', 'publish', 'history'] };
/** Counts; a ping does not. */
const counted = { type: 'history', channel: 'a' };

function bearer(token: string): Record<string, string> {
  return { authorization: `Bearer ${token}` };
}

async function limited(server: RunningServer, kind: string): Promise<number> {
  return (await samples(server)).get(`sobranie_rate_limited_total{kind="${kind}"}`) ?? -1;
}

/** What a WebSocket is closed with that is not let in. */
async function closingOf(server: RunningServer, options: WebSocketOptions = {}): Promise<Closing> {
  const socket = await WebSocketClient.open(server.url, options);
  return wait(socket.closed, 5_000, 'the end');
}

/** The answer to a stream that is not let in. */
async function refusalOf(server: RunningServer, options: WebSocketOptions = {}): Promise<Refused> {
  const query = `channels=a&${options.query ?? ''}`;
  const outcome = await EventClient.open(server.url, { ...options, query }).catch((error: unknown) => error);
  if (outcome instanceof EventClient) await outcome.cut();
  if (!(outcome instanceof Refused)) throw new Error('it was let in');
  return outcome;
}

describeWire('Limits', (wire) => {
  /** For what has nothing to do with the sync layer. */
  const testOnce = wire.environment.name === 'postgres' ? test : () => undefined;
  const ten = wire.shared({ JWT_SECRET: secret, API_KEY: apiKey, RATE_LIMIT_PER_MINUTE: '10' });

  test('a user’s commands over the limit are refused with id, channel and retryAfter, over all connections', async () => {
    const server = await ten();
    const token = await tokenOf({ sub: 'ann', channels: everything });
    const sockets = [
      // What a connection comes with counts against nothing.
      await wire.socket(server, { query: `token=${token}&channels=a,b,c` }),
      await wire.socket(server, { query: `token=${token}` }),
    ] as const;
    for (let sent = 0; sent < 10; sent++) {
      const reply = await sockets[sent % 2]!.request({ type: 'publish', channel: 'a', data: sent });
      expect(reply.type).toBe('published');
    }
    for (const socket of sockets) {
      const refusal = await socket.request({ type: 'publish', channel: 'a', data: 1 });
      expect(refusal).toMatchObject({ type: 'error', channel: 'a', code: 'rate_limited', retryable: true });
      const { retryAfter } = refusal as unknown as { retryAfter: number };
      expect(retryAfter).toBeGreaterThan(40);
      expect(retryAfter).toBeLessThanOrEqual(60);
      expect((await socket.request(counted)).code).toBe('rate_limited');
      // What a client is kept alive by, and what it listens to, is no message.
      expect((await socket.request({ type: 'ping' })).type).toBe('pong');
      expect((await socket.request({ type: 'subscribe', channel: 'b' })).type).toBe('subscribed');
    }
    // Others are not concerned.
    const bob = await wire.socket(server, { query: `token=${await tokenOf({ sub: 'bob', channels: everything })}` });
    expect((await bob.request(counted)).type).toBe('history');
    // Coming back does not help.
    const again = await wire.socket(server, { query: `token=${token}` });
    expect((await again.request(counted)).code).toBe('rate_limited');
    // What is refused by a limit was counted as a frame that nobody could read.
    const found = await samples(server);
    expect(found.get('sobranie_messages_received_total{type="publish"}')).toBe(12);
    expect(found.get('sobranie_messages_received_total{type="invalid"}')).toBeUndefined();
  });

  testOnce(
    'calls over HTTP with a user’s token count too, each channel once; those with the API key do not',
    async () => {
      const server = await ten();
      const token = bearer(await tokenOf({ sub: 'http', channels: everything }));
      const channels = ['a', 'b', 'c', 'd'];
      const publish = (): Promise<Answer> => post(server, '/realtime/publish', { channels, data: 1 }, token);
      // More than the whole limit once passed.
      const eleven = Array.from({ length: 11 }, (_, index) => `eleven:${index}`);
      const large = await post(server, '/realtime/publish', { channels: eleven, data: 1 }, token);
      expect(large.status).toBe(429);
      expect(errorOf(large.text)).toMatchObject({ code: 'limit_exceeded', retryable: false });
      expect([(await publish()).status, (await publish()).status]).toEqual([200, 200]);
      const history = (): Promise<Answer> => call(server, '/realtime/channels/a/history', { headers: token });
      expect((await history()).status).toBe(200);
      const refused = await publish();
      expect(refused.status).toBe(429);
      expect(errorOf(refused.text)).toMatchObject({ code: 'rate_limited', retryable: true });
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(40);
      expect((await history()).status).toBe(200);
      expect((await history()).status).toBe(429);
      const socket = await wire.socket(server, { headers: token });
      expect((await socket.request(counted)).code).toBe('rate_limited');
      for (let sent = 0; sent < 30; sent++) {
        const answer = await post(server, '/realtime/publish', { channels, data: 1 }, bearer(apiKey));
        expect(answer.status).toBe(200);
      }
    },
  );

  // 150 channels never succeeded, and a page with 30 that reconnected five times in a minute was mute.
  testOnce('150 channels at once, a thousand in one command, and 30 over and over, are no messages', async () => {
    const server = await wire.start({ JWT_SECRET: secret, RATE_LIMIT_PER_MINUTE: '100', MAX_MESSAGE_BYTES: '131072' });
    const names = (count: number) => Array.from({ length: count }, (_, index) => `many:${index}`);
    const query = `token=${await tokenOf({ sub: 'reads', channels: everything })}`;
    const single = await wire.socket(server, { query });
    await single.next('welcome');
    for (const [id, channel] of names(150).entries()) single.send({ type: 'subscribe', id, channel });
    for (const channel of names(150)) expect(await single.next('subscribed')).toMatchObject({ channel });
    const together = await wire.socket(server, { query });
    await together.next('welcome');
    const channels = names(1_000).map((channel) => ({ channel, since: { epoch: 'other', offset: 1 } }));
    together.send({ type: 'subscribe', id: 'all', channels });
    const answered = new Set<unknown>();
    for (const _ of channels) {
      const answer = await together.next('subscribed');
      expect(answer).toMatchObject({ id: 'all', recovered: false });
      answered.add(answer.channel);
    }
    expect(answered.size).toBe(1_000);
    expect((await together.settle()).map(({ type }) => type)).toEqual(Array(1_000).fill('gap'));
    for (let round = 0; round < 5; round++) {
      const page = await wire.socket(server, { query: `${query}&channels=${names(30).join(',')}` });
      for (const channel of names(30)) expect(await page.next('subscribed')).toMatchObject({ channel });
      await page.cut();
    }
    expect((await together.request(counted)).type).toBe('history');
  });

  // A hundred connects that named their channels in the address came to 79,000 subscriptions, and no limit counted them.
  testOnce(
    'channels are counted wherever they are named: in commands, in the address, and of event streams',
    async () => {
      const server = await wire.start({ JWT_SECRET: secret, SUBSCRIBES_PER_MINUTE: '10' });
      const token = await tokenOf({ sub: 'reads', channels: everything });
      const socket = await wire.socket(server, { query: `token=${token}&channels=a,b,c` });
      await socket.next('welcome');
      for (const channel of ['a', 'b', 'c']) expect(await socket.next('subscribed')).toMatchObject({ channel });
      await wire.stream(server, { query: `token=${token}&channels=a,b,c` });
      const channels = ['d', 'e', 'f', 'g', 'h', 'i'].map((channel) => ({ channel }));
      socket.send({ type: 'subscribe', id: 1, channels });
      const answers = [];
      while (answers.length < 6) answers.push(await socket.nextAny());
      const told = new Map(answers.map(({ id, channel, code }) => [`${id} ${channel}`, code]));
      expect(told).toEqual(
        new Map(channels.map(({ channel }, index) => [`1 ${channel}`, index < 4 ? undefined : 'rate_limited'])),
      );
      const refused = answers.find(({ channel }) => channel === 'i') as unknown as { retryAfter: number };
      expect(refused).toMatchObject({ type: 'error', retryable: true });
      expect(refused.retryAfter).toBeGreaterThan(40);
      const late = await wire.socket(server, { query: `token=${token}&channels=a` });
      expect(await late.next('error')).toMatchObject({ channel: 'a', code: 'rate_limited' });
      const stream = await refusalOf(server, { query: `token=${token}` });
      expect([stream.status, errorOf(stream.body).code]).toEqual([429, 'rate_limited']);
      expect(Number(stream.headers.get('retry-after'))).toBeGreaterThan(40);
      expect((await socket.request(counted)).type).toBe('history');
      expect(await limited(server, 'subscribes')).toBe(3);
      // Others are not concerned.
      const other = await tokenOf({ sub: 'other', channels: everything });
      await wire.stream(server, { query: `token=${other}&channels=a` });
    },
  );

  testOnce('an anonymous connection has an allowance of its own', async () => {
    const server = await wire.start({ RATE_LIMIT_PER_MINUTE: '3' });
    for (const socket of [await wire.socket(server), await wire.socket(server)]) {
      for (let sent = 0; sent < 3; sent++) expect((await socket.request(counted)).type).toBe('history');
      expect((await socket.request(counted)).code).toBe('rate_limited');
    }
  });

  testOnce(
    'who goes on to ten times the limit is closed with 1008, and so again until the minute is over',
    async () => {
      const server = await wire.start({ RATE_LIMIT_PER_MINUTE: '5', JWT_SECRET: secret });
      const query = `token=${await tokenOf({ sub: 'goes-on', channels: everything })}`;
      const before = await limited(server, 'commands');
      const socket = await wire.socket(server, { query });
      for (let sent = 0; sent < 5 + 50; sent++) socket.send({ ...counted, id: sent });
      const types: string[] = [];
      await socket.next('welcome');
      for (let read = 0; read < 55; read++) types.push((await socket.nextAny()).type);
      expect(types).toEqual([...Array<string>(5).fill('history'), ...Array<string>(50).fill('error')]);
      socket.send(counted);
      expect(await wait(socket.closed, 5_000, 'the end')).toEqual({ code: 1008, reason: 'rate_limited' });
      expect(await limited(server, 'commands')).toBe(before + 51);
      const again = await wire.socket(server, { query });
      again.send(counted);
      expect(await wait(again.closed, 5_000, 'the end')).toEqual({ code: 1008, reason: 'rate_limited' });
    },
  );

  if (long) {
    test('who waits as told is let through, and not before', async () => {
      const server = await wire.start({ RATE_LIMIT_PER_MINUTE: '2', JWT_SECRET: secret });
      const socket = await wire.socket(server, {
        query: `token=${await tokenOf({ sub: 'waits', channels: everything })}`,
      });
      for (let sent = 0; sent < 2; sent++) expect((await socket.request(counted)).type).toBe('history');
      const refusal = (await socket.request(counted)) as unknown as { retryAfter: number };
      await Bun.sleep((refusal.retryAfter - 3) * 1_000);
      expect((await socket.request(counted)).code).toBe('rate_limited');
      await Bun.sleep(3_000);
      expect((await socket.request(counted)).type).toBe('history');
    }, 90_000);
  }

  test('one user’s connections, over both transports: 1013, or 429; what ends is given back', async () => {
    const server = await wire.start({ JWT_SECRET: secret, MAX_CONNECTIONS_PER_USER: '3' });
    const query = `token=${await tokenOf({ sub: 'ann', channels: everything })}`;
    const [first] = [await wire.socket(server, { query }), await wire.socket(server, { query })];
    const stream = await wire.stream(server, { query: `channels=a&${query}` });
    expect(await closingOf(server, { query })).toEqual({ code: 1013, reason: 'limit_exceeded' });
    const refused = await refusalOf(server, { query });
    expect(refused.status).toBe(429);
    expect(errorOf(refused.body)).toMatchObject({ code: 'limit_exceeded', message: 'There are too many connections.' });
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await limited(server, 'connections')).toBe(2);
    const bob = await wire.socket(server, { query: `token=${await tokenOf({ sub: 'bob' })}` });
    expect((await bob.next('welcome')).user).toBe('bob');
    for (const gone of [first, stream]) {
      await gone.cut();
      let fits = false;
      await until(async () => {
        const socket = await wire.socket(server, { query });
        const outcome = await Promise.race([socket.next('welcome').catch(() => undefined), socket.closed]);
        return (fits = outcome !== undefined && 'type' in outcome);
      }, 'another one fits');
      expect(fits).toBe(true);
      expect(await closingOf(server, { query })).toEqual({ code: 1013, reason: 'limit_exceeded' });
    }
  });

  testOnce(
    `2,000 connections that come and go in disorder, with refusals: all room is there again, SEED=${seed}`,
    async () => {
      const max = 40;
      const server = await wire.start({
        // Alone, so that its own counts are all there is: over a database where nobody else relays.
        SYNC: 'memory',
        DATABASE_URL: (await createDatabase({ migrated: true })).url,
        JWT_SECRET: secret,
        MAX_CONNECTIONS_PER_USER: String(max),
        MAX_CONNECTIONS_PER_ADDRESS: String(2 * max),
      });
      const random = randomFrom(seed);
      const queries = await Promise.all(
        ['ann', 'bob', 'cat'].map(async (sub) => `token=${await tokenOf({ sub, channels: everything })}&channels=a`),
      );
      let refused = 0;
      const open = async (): Promise<void> => {
        const query = queries[Math.floor(random() * 3)] ?? '';
        try {
          if (random() < 0.5) {
            const stream = await EventClient.open(server.url, { query, timeoutMs: 20_000 });
            if (random() < 0.8) await Promise.race([stream.next('welcome', 20_000), stream.closed]);
            await stream.cut();
          } else {
            const socket = await WebSocketClient.open(server.url, { query, timeoutMs: 20_000 });
            const outcome = await Promise.race([socket.next('welcome', 20_000).catch(() => undefined), socket.closed]);
            if (outcome === undefined || !('type' in outcome)) refused++;
            await socket.cut();
          }
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          refused++;
        }
      };
      const left = Array.from({ length: 2_000 }).values();
      const opener = async (): Promise<void> => {
        for (const _each of left) await open();
      };
      await Promise.all(Array.from({ length: 200 }, opener));
      expect(refused).toBeGreaterThan(0);
      const openConnections = async (): Promise<number> => {
        const all = await samples(server);
        return [...all].reduce((sum, [name, value]) => sum + (name.includes('connections_active') ? value : 0), 0);
      };
      await until(async () => (await openConnections()) === 0, 'all have left', 10_000);
      for (const query of queries.slice(0, 2)) {
        for (let index = 0; index < max; index++) {
          if (index % 2 === 0) await (await wire.socket(server, { query })).next('welcome');
          else await (await wire.stream(server, { query })).next('welcome');
        }
      }
      // Both users and the address are at their limits: none of the counts was given back too often.
      for (const query of queries) {
        expect(await closingOf(server, { query })).toEqual({ code: 1013, reason: 'limit_exceeded' });
      }
    },
    60_000,
  );

  testOnce('an address’s connections, which a header does not change', async () => {
    const server = await wire.start({ MAX_CONNECTIONS_PER_ADDRESS: '2' });
    for (const address of ['198.51.100.1', '198.51.100.2']) {
      await (await wire.socket(server, { headers: { 'X-Forwarded-For': address } })).next('welcome');
    }
    for (const header of ['X-Forwarded-For', 'X-Real-IP', 'Forwarded', 'CF-Connecting-IP', 'True-Client-IP']) {
      const headers = { [header]: '198.51.100.3' };
      expect(await closingOf(server, { headers })).toEqual({ code: 1013, reason: 'limit_exceeded' });
    }
    expect((await refusalOf(server, { headers: { 'X-Forwarded-For': '198.51.100.4' } })).status).toBe(429);
  });

  testOnce('behind a trusted proxy the client that it names counts, not what the client itself wrote', async () => {
    const server = await wire.start({ MAX_CONNECTIONS_PER_ADDRESS: '1', TRUSTED_PROXIES: '10.0.0.0/8, loopback' });
    const from = (forwarded: string): WebSocketOptions => ({ headers: { 'X-Forwarded-For': forwarded } });
    await (await wire.socket(server, from('198.51.100.1'))).next('welcome');
    await (await wire.socket(server, from('198.51.100.2'))).next('welcome');
    const full = { code: 1013, reason: 'limit_exceeded' };
    expect(await closingOf(server, from('198.51.100.1'))).toEqual(full);
    expect(await closingOf(server, from('203.0.113.77, 198.51.100.1'))).toEqual(full);
    expect(await closingOf(server, from('198.51.100.1, 10.7.7.7'))).toEqual(full);
    expect(await closingOf(server, from('::ffff:198.51.100.1'))).toEqual(full);
    // One client of IPv6 has a /64 to choose from.
    await (await wire.socket(server, from('2001:db8:1:2::1'))).next('welcome');
    expect(await closingOf(server, from('2001:db8:1:2:ffff::9'))).toEqual(full);
    await (await wire.socket(server, from('2001:db8:1:3::1'))).next('welcome');
    // Nonsense counts as the proxy itself.
    await (await wire.socket(server, from('nonsense'))).next('welcome');
    expect(await closingOf(server, from('198.51.100.5, other nonsense'))).toEqual(full);
  });

  testOnce(
    'connects per second of an address: a burst passes, then 1013 or 429 with a true Retry-After',
    async () => {
      const server = await wire.start({ CONNECTS_PER_SECOND_PER_ADDRESS: '2' });
      for (let attempt = 0; attempt < 10; attempt++) await (await wire.socket(server)).next('welcome');
      expect(await closingOf(server)).toEqual({ code: 1013, reason: 'rate_limited' });
      const refused = await refusalOf(server);
      expect(refused.status).toBe(429);
      expect(errorOf(refused.body)).toMatchObject({ code: 'rate_limited', retryable: true });
      const retryAfter = Number(refused.headers.get('retry-after'));
      expect(retryAfter).toBeGreaterThan(0);
      expect(retryAfter).toBeLessThanOrEqual(5);
      expect(await limited(server, 'connects')).toBe(2);
      // Those that are open are not concerned, nor is HTTP.
      expect((await call(server, '/health/live')).status).toBe(200);
      await Bun.sleep(retryAfter * 1_000);
      await (await wire.stream(server, { query: 'channels=a' })).next('welcome');
    },
    15_000,
  );

  // A refresh was a door of its own: two hundred guesses there, and the address was heard as ever.
  testOnce('tokens that are guessed by refresh count as those shown at the door', async () => {
    const server = await wire.start({ JWT_SECRET: secret, AUTH_FAILURES_PER_MINUTE_PER_ADDRESS: '3' });
    const good = await tokenOf({ sub: 'ann' });
    const socket = await wire.socket(server, { query: `token=${good}` });
    await socket.next('welcome');
    let guesses = 0;
    const guess = async (): Promise<unknown> => {
      const token = await tokenOf({ sub: 'ann' }, undefined, `wrong secret number ${guesses++} that is long enough`);
      return (await socket.request({ type: 'refresh', token }))['code'];
    };
    for (let count = 0; count < 3; count++) expect(await guess()).toBe('unauthorized');
    // They are counted while the answer is on its way.
    await until(async () => (await guess()) === 'rate_limited', 'no more guessing');
    expect(guesses).toBeLessThan(40);
    expect(await socket.request({ type: 'refresh', token: good })).toMatchObject({ code: 'rate_limited' });
    expect((await closingOf(server, { query: `token=${good}` })).reason).toBe('rate_limited');
  });

  testOnce('guessing tokens and keys: after too many the address is not heard, whatever it shows', async () => {
    const server = await wire.start({
      JWT_SECRET: secret,
      API_KEY: apiKey,
      ADMIN_KEY: adminKey,
      AUTH_FAILURES_PER_MINUTE_PER_ADDRESS: '7',
      TRUSTED_PROXIES: 'loopback',
    });
    const mallory = { 'X-Forwarded-For': '203.0.113.66' };
    const good = await tokenOf({ sub: 'ann', channels: everything });
    const late = await tokenOf({ sub: 'ann' }, nowSeconds() - 3_600);
    const publish = (key: string, headers = mallory): Promise<Answer> =>
      post(server, '/realtime/publish', { channel: 'a', data: 1 }, { ...headers, ...bearer(key) });
    // A token that has ended, or none, is no guess.
    for (let attempt = 0; attempt < 20; attempt++) {
      expect((await closingOf(server, { headers: mallory, query: `token=${late}` })).reason).toBe('token_expired');
      expect((await closingOf(server, { headers: mallory })).reason).toBe('unauthorized');
    }
    const reloadBy = (key: string): Promise<Answer> =>
      post(server, '/realtime/reload', '', { ...mallory, ...bearer(key) });
    expect((await reloadBy('a-guessed-admin-key')).status).toBe(401);
    for (let guess = 0; guess < 2; guess++) {
      const forged = await tokenOf({ sub: 'ann' }, undefined, `wrong secret number ${guess} that is long enough`);
      const query = `token=${forged}`;
      expect(await closingOf(server, { headers: mallory, query })).toEqual({ code: 1008, reason: 'unauthorized' });
      expect((await refusalOf(server, { headers: mallory, query })).status).toBe(401);
      expect((await publish(`a-guessed-key-${guess}`)).status).toBe(401);
    }
    expect((await publish('the-eighth-guess')).status).toBe(401);
    // It is counted while the answer is on its way.
    await until(async () => (await publish('another-guess')).status === 429, 'the address is not heard');
    const before = await limited(server, 'authentications');
    for (const key of ['another-guess', good, apiKey]) {
      const answer = await publish(key);
      expect([answer.status, errorOf(answer.text).code]).toEqual([429, 'rate_limited']);
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(30);
    }
    const channels = await call(server, '/realtime/channels', { headers: { ...mallory, ...bearer(apiKey) } });
    expect(channels.status).toBe(429);
    expect((await reloadBy(adminKey)).status).toBe(429);
    const query = `token=${good}`;
    expect(await closingOf(server, { headers: mallory, query })).toEqual({ code: 1013, reason: 'rate_limited' });
    expect((await refusalOf(server, { headers: mallory, query })).status).toBe(429);
    expect(await limited(server, 'authentications')).toBe(before + 7);
    // Elsewhere nobody notices.
    expect((await publish(good, { 'X-Forwarded-For': '198.51.100.1' })).status).toBe(200);
    expect((await publish(apiKey, { 'X-Forwarded-For': '198.51.100.1' })).status).toBe(200);
    await (await wire.socket(server, { query })).next('welcome');
  });

  testOnce('guessed keys of the backend and of the operator count as tokens do', async () => {
    const server = await wire.start({
      JWT_SECRET: secret,
      API_KEY: apiKey,
      ADMIN_KEY: adminKey,
      AUTH_FAILURES_PER_MINUTE_PER_ADDRESS: '3',
      TRUSTED_PROXIES: 'loopback',
    });
    for (const [index, method, path] of [
      [1, 'GET', '/realtime/channels'],
      [2, 'POST', '/realtime/users/ann/disconnect'],
      [3, 'POST', '/realtime/reload'],
    ] as const) {
      const ask = (key: string): Promise<Answer> =>
        call(server, path, { method, headers: { 'X-Forwarded-For': `203.0.113.${index}`, ...bearer(key) } });
      let guesses = 0;
      await until(async () => (await ask(`guess-${guesses++}`)).status === 429, `${path} hears no more guesses`);
      expect(guesses).toBeGreaterThan(3);
      expect(guesses).toBeLessThan(40);
      expect((await ask(index === 3 ? adminKey : apiKey)).status).toBe(429);
    }
  });

  testOnce('a node that is full says so over both transports, and to a proxy that may ask elsewhere', async () => {
    const server = await wire.start({ MAX_CONNECTIONS: '1' });
    await (await wire.socket(server)).next('welcome');
    expect(await closingOf(server)).toEqual({ code: 1013, reason: 'limit_exceeded' });
    const refused = await refusalOf(server);
    expect([refused.status, errorOf(refused.body).code]).toEqual([429, 'limit_exceeded']);
    const retried = { headers: { 'X-Retry-On': '503' } };
    expect((await refusalOf(server, retried)).status).toBe(503);
    const socket = await WebSocketClient.open(server.url, retried).catch((error: unknown) => error);
    expect(socket).toBeInstanceOf(Refused);
    expect((socket as Refused).status).toBe(503);
    expect(await limited(server, 'connections')).toBe(4);
  });

  testOnce('sizes and lists over their limits are told, and counted', async () => {
    const server = await wire.start({ MAX_CHANNELS_PER_CONNECTION: '2' });
    for (const kind of ['commands', 'subscribes', 'connections', 'connects', 'authentications', 'frames', 'queue']) {
      expect([kind, await limited(server, kind)]).toEqual([kind, 0]);
    }
    const socket = await wire.subscriber(server, 'a', 'b');
    const third = await socket.request({ type: 'subscribe', channel: 'c' });
    expect(third).toMatchObject({ type: 'error', channel: 'c', code: 'limit_exceeded' });
    const many = Array.from({ length: 51 }, (_, index) => `c${index}`).join(',');
    const refused = await refusalOf(server, { query: `channels=${many}` });
    expect([refused.status, errorOf(refused.body).code]).toEqual([400, 'bad_request']);
    socket.sendText(`{"type":"publish","channel":"a","data":"${'x'.repeat(80_000)}"}`);
    expect((await wait(socket.closed, 5_000, 'the end')).code).toBe(1009);
    await until(async () => (await limited(server, 'frames')) === 1, 'the frame is counted');
    const all = await samples(server);
    expect(all.get('sobranie_errors_total{code="limit_exceeded"}')).toBe(1);
    expect(all.get('sobranie_errors_total{code="bad_request"}')).toBe(1);
    expect(all.get('sobranie_disconnects_total{transport="websocket",code="1009"}')).toBe(1);
  });
});
