// Two tenants on one server: what one of them may see, and all that the other one can think of to see it too. Whatever
// the attempt, no byte of the first one's rows may reach the second.

import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'bun:test';
import postgres from 'postgres';
import { Refused, type EventClient, type EventOptions, type WebSocketClient } from '../support/clients.ts';
import { channelPart } from '../../src/protocol/channel.ts';
import { createDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { call, errorOf, post, sample, samples, Wire } from './wire.ts';

const apiKey = 'the-key-of-the-backend-0123456789';
const rules = new TestRules(`
  { channels: 'tenant:{tenant}:*', allow: { subscribe: 'owner', publish: 'owner', history: 'owner', presence: 'owner' } },
  { channels: 'user:{sub}', allow: { subscribe: 'owner', history: 'owner', publish: 'nobody' } },
  { channels: 'public:*', allow: { subscribe: 'everyone', history: 'everyone', publish: 'users' } }`);
/** Stands in every row of tenant a, and in nothing else. */
const mark = 'the-rows-of-tenant-a';
const hidden = 'what-no-column-list-names';
const theirs = 'tenant:a:orders';
const ours = 'tenant:b:orders';
const all = ['subscribe', 'publish', 'history', 'presence'];

const database = createDatabase({ migrated: true });
const wire = new Wire({
  name: 'postgres',
  durable: true,
  settings: async () => ({ SYNC: 'postgres', DATABASE_URL: (await database).url }),
});
let server: RunningServer;
let sql: postgres.Sql;
/** Everything that the second tenant was ever sent. */
let seen: string[] = [];
let ids = 0;

beforeAll(async () => {
  sql = postgres((await database).url, { max: 1, onnotice: () => undefined });
  await sql`CREATE TABLE orders (id int PRIMARY KEY, tenant text, author_id text, body text, secret text)`;
  await sql`SELECT realtime.watch('orders', ARRAY['tenant:{tenant}:orders', 'user:{author_id}'],
    ARRAY['id', 'tenant', 'author_id', 'body'])`;
  server = await wire.start({
    JWT_SECRET: secret,
    API_KEY: apiKey,
    CONFIG_FILE: rules.path,
    ALLOW_ANONYMOUS: 'true',
    CONNECTS_PER_SECOND_PER_ADDRESS: '0',
  });
}, 60_000);
beforeEach(() => {
  seen = [];
});
afterEach(() => wire.cutClients());
afterAll(async () => {
  await sql.end({ timeout: 1 });
  await wire.stopServers();
}, 60_000);

const alice = () => tokenOf({ sub: 'alice', tenant: 'a' });
const mallory = (more: Record<string, unknown> = {}) => tokenOf({ sub: 'mallory', tenant: 'b', ...more });

/** A row of tenant a, which has surely been published when this resolves: its owner has it. */
async function insertAndSee(owner: WebSocketClient): Promise<number> {
  const id = ++ids;
  await sql`INSERT INTO orders VALUES (${id}, 'a', 'alice', ${mark}, ${hidden})`;
  const message = await owner.next('message');
  expect(message).toMatchObject({ channel: theirs, data: { action: 'INSERT', data: { id, body: mark } } });
  return id;
}

async function owner(): Promise<WebSocketClient> {
  const socket = await wire.socket(server, { query: `token=${await alice()}` });
  expect(await socket.request({ type: 'subscribe', channel: theirs })).toMatchObject({ type: 'subscribed' });
  return socket;
}

async function spy(token: string): Promise<WebSocketClient> {
  const socket = await wire.socket(server, { query: `token=${token}` });
  await socket.next('welcome');
  return socket;
}

/** Reads all that has come, once everything before has been answered. */
async function readAll(socket: WebSocketClient): Promise<void> {
  seen.push(JSON.stringify(await socket.settle()));
}

async function get(path: string, token: string): Promise<number> {
  const answer = await call(server, path, { headers: { authorization: `Bearer ${token}` } });
  seen.push(answer.text, JSON.stringify([...answer.headers]));
  return answer.status;
}

async function openStream(options: EventOptions): Promise<EventClient | number> {
  try {
    return await wire.stream(server, options);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    seen.push(error.body);
    return error.status;
  }
}

function expectNothingSeen(): void {
  const leaks = seen.filter((text) => text.includes(mark) || text.includes(hidden));
  expect(leaks).toEqual([]);
}

/** Names that might be taken for the first tenant's channel by something that is careless. */
const names: readonly string[] = [
  theirs,
  'user:alice',
  ...['*', '**', '.*', 'tenant:*', 'tenant:*:orders', 'tenant:a:*', 'tenant:?:orders', 'tenant:[a]:orders', 'user:*'],
  ...[
    'Tenant:a:orders',
    'TENANT:A:ORDERS',
    'tenant:A:orders',
    'tenant:a:Orders',
    'User:alice',
    'user:Alice',
    'USER:ALICE',
  ],
  // Cyrillic а, full-width ａ, a with a combining accent, a zero-width space, a soft hyphen, right-to-left marks.
  ...['tenant:\u0430:orders', 'tenant:\uff41:orders', 'tenant:a\u0301:orders', 'tenant:a\u200b:orders'],
  ...[
    'tenant:\u00ada:orders',
    '\u202etenant:a:orders',
    'user:\u0430lice',
    'user:al\u0131ce',
    'tenant\uff1aa\uff1aorders',
  ],
  ...[
    'tenant:a:orders\u0000',
    'tenant:a\u0000:orders',
    '\u0000tenant:a:orders',
    'user:alice\u0000',
    'user:mallory\u0000alice',
  ],
  ...[
    ' tenant:a:orders',
    'tenant:a:orders ',
    'tenant:a:orders\n',
    'tenant:a:orders\r\n',
    '\ttenant:a:orders',
    'user: alice',
  ],
  ...['tenant%3Aa%3Aorders', 'tenant:%61:orders', 'tenant%253Aa%253Aorders', 'tenant:a%00:orders', 'user%2Falice'],
  ...[
    'tenant:b/../a:orders',
    'tenant:b:../a:orders',
    '/tenant:a:orders',
    'tenant:a:orders/',
    'tenant:a:orders/.',
    './user:alice',
  ],
  ...['tenant::a:orders', ':tenant:a:orders', 'tenant:a:orders:', 'tenant:b:a:orders', 'tenant:b,tenant:a:orders'],
  ...[
    'tenant:{tenant}:orders',
    'tenant:{a}:orders',
    '{tenant}',
    'user:{sub}',
    'tenant:$1:orders',
    'tenant:${a}:orders',
  ],
  ...[
    'tenant:undefined:orders',
    'tenant:null:orders',
    'tenant:[object Object]:orders',
    'user:null',
    'user:undefined',
    'user:',
  ],
  ...[
    '__proto__',
    'constructor',
    'prototype',
    'toString',
    'user:__proto__',
    'tenant:__proto__:orders',
    'hasOwnProperty',
  ],
  ...[
    `tenant:a:orders' OR '1'='1`,
    `tenant:a:orders'--`,
    'orders',
    'public.orders',
    '$tenant:a:orders',
    '$control',
    '$*',
  ],
  ...['tenant:a:orders#', 'tenant:a:orders?x', 'tenant:a:orders&channels=tenant:a:orders', 'tenant:a;:orders', ''],
];

/** The part after one's own tenant is free: such a name is one's own. */
const othersNames = names.filter((name) => !name.startsWith('tenant:b:'));

test('no name but one’s own opens another’s channel, by no command', async () => {
  const owning = await owner();
  await insertAndSee(owning);
  const socket = await spy(await mallory({ channels: { '*': all, 'tenant:*': all, 'user:*': all } }));
  for (const channel of names) {
    for (const type of ['subscribe', 'history', 'presence', 'publish']) {
      const reply = await socket.request({ type, channel, data: 1, since: { epoch: '', offset: 0 } });
      seen.push(JSON.stringify(reply));
      const isOpen = type !== 'presence' && reply.type !== 'error';
      // One's own, and names that no rule closes, are granted; that they hold nothing is seen below.
      const isNoOnes = !/^(tenant:(?!b:)[^:]+:|user:|\$)/.test(channel);
      if (isOpen) expect([type, channel, isNoOnes]).toEqual([type, channel, true]);
    }
  }
  await insertAndSee(owning);
  await readAll(socket);
  expectNothingSeen();
}, 20_000);

test('no list of channels of a stream lets one in among one’s own', async () => {
  const owning = await owner();
  const token = await mallory();
  const streams: EventClient[] = [];
  for (const name of othersNames) {
    for (const channels of [
      encodeURIComponent(name),
      encodeURIComponent(encodeURIComponent(name)),
      `${ours},${encodeURIComponent(name)}`,
    ]) {
      const stream = await openStream({ query: `channels=${channels}&token=${token}` });
      if (typeof stream === 'number') expect([name, stream]).toEqual([name, stream === 400 ? 400 : 403]);
      else streams.push(stream);
    }
  }
  for (const query of [
    `channels=${ours}&channels=${theirs}`,
    `channels=${ours}&channels[]=${theirs}`,
    `channels=${ours}%2C${theirs}`,
  ]) {
    const stream = await openStream({ query: `${query}&token=${token}` });
    if (typeof stream === 'number') expect(stream).toBe(403);
    else streams.push(stream);
  }
  await insertAndSee(owning);
  await sql`INSERT INTO orders VALUES (${++ids}, 'b', 'mallory', 'ours', '')`;
  // What opened is one's own channel alone, and each of these has heard its own row, which came later.
  for (const stream of streams) {
    const events = [await stream.next('welcome')];
    expect(events[0]!.frame.channels?.map(({ channel }) => channel)).toEqual([ours]);
    events.push(await stream.next('message'));
    seen.push(JSON.stringify([...events, ...stream.drain()]));
  }
  expectNothingSeen();
}, 20_000);

test('no address of the HTTP API shows another’s history, presence or channels', async () => {
  const owning = await owner();
  await insertAndSee(owning);
  const token = await mallory();
  for (const name of othersNames) {
    for (const part of [encodeURIComponent(name), encodeURIComponent(encodeURIComponent(name))]) {
      for (const what of ['history?limit=1000', 'history?epoch=&offset=0', 'presence', 'history/', 'history%2F']) {
        const status = await get(`/realtime/channels/${part}/${what}`, token);
        expect([name, what, status]).toEqual([name, what, [400, 403].includes(status) ? status : 404]);
      }
    }
  }
  for (const path of [
    `/realtime/channels/${ours}/../${theirs}/history`,
    `/realtime/channels/${ours}%2F..%2F${theirs}/history`,
    `/realtime/channels//${theirs}/history`,
    `/realtime//channels/${theirs}/history`,
    `/realtime/channels/${theirs}/history?channel=${ours}`,
    `/realtime/channels/${ours}/history?channel=${theirs}&limit=1000`,
    '/realtime/channels',
    '/metrics',
    '/swagger/json',
  ]) {
    await get(path, token);
  }
  expectNothingSeen();
}, 20_000);

test('a position or cursor of another’s channel shows nothing of it', async () => {
  const owning = await owner();
  await insertAndSee(owning);
  const stolen = await wire.stream(server, { query: `channels=${theirs}&token=${await alice()}` });
  const welcome = await stolen.next('welcome');
  await insertAndSee(owning);
  const { frame, lastEventId } = await stolen.next('message');
  const token = await mallory();
  const { epoch } = welcome.frame.channels?.[0] ?? {};

  const socket = await spy(token);
  for (const since of [
    { epoch, offset: 0 },
    { epoch, offset: frame.offset },
  ]) {
    seen.push(JSON.stringify(await socket.request({ type: 'history', channel: ours, since, limit: 1_000 })));
    seen.push(JSON.stringify(await socket.request({ type: 'subscribe', channel: ours, since })));
    await socket.request({ type: 'unsubscribe', channel: ours });
    expect(await socket.request({ type: 'subscribe', channel: theirs, since })).toMatchObject({ code: 'forbidden' });
    expect(await socket.request({ type: 'history', channel: theirs, since })).toMatchObject({ code: 'forbidden' });
  }
  await readAll(socket);
  for (const cursor of [welcome.lastEventId, lastEventId]) {
    const query = `channels=${ours}&token=${token}`;
    for (const options of [{ query, lastEventId: cursor }, { query: `${query}&since=${encodeURIComponent(cursor)}` }]) {
      const stream = await openStream(options);
      if (typeof stream === 'number') throw new Error(`one's own stream was refused with ${stream}`);
      seen.push(JSON.stringify([await stream.next('welcome'), ...stream.drain()]));
    }
  }
  const history = `/realtime/channels/${encodeURIComponent(ours)}/history`;
  expect(await get(`${history}?limit=1000&epoch=${epoch ?? ''}&offset=0`, token)).toBe(200);
  expectNothingSeen();
});

test('no token of another makes one the owner, whatever its claims look like', async () => {
  const owning = await owner();
  await insertAndSee(owning);
  const claims: readonly Record<string, unknown>[] = [
    ...[
      ['a'],
      { 0: 'a' },
      { toString: 'a' },
      'A',
      'a ',
      ' a',
      'a\u0000',
      '\u0430',
      '*',
      '.*',
      '{tenant}',
      'a:orders',
    ].map((tenant) => ({ sub: 'm', tenant })),
    ...['a/', '', null, true, 0, [], {}].map((tenant) => ({ sub: 'm', tenant })),
    ...[
      '*',
      'a:b',
      '{sub}',
      'alice ',
      'Alice',
      'alice\u0000',
      ' alice',
      'alic\u0435',
      '__proto__',
      'alice:orders',
      '../alice',
    ].map((sub) => ({ sub, tenant: 'b' })),
    { sub: 'm', Tenant: 'a', TENANT: 'a', tenants: ['a'] },
    { sub: 'm', user: 'alice', id: 'alice', claims: { tenant: 'a', sub: 'alice' } },
    JSON.parse('{"sub": "m", "__proto__": {"tenant": "a"}}') as Record<string, unknown>,
    JSON.parse('{"sub": "m", "constructor": {"prototype": {"tenant": "a"}}}') as Record<string, unknown>,
    { sub: 'm', tenant: 'b', channels: { [theirs]: all, 'user:alice': all, '*': all } },
    { sub: 'm', channels: {} },
  ];
  for (const each of claims) {
    const token = await tokenOf(each);
    const socket = await wire.socket(server, { query: `token=${token}` });
    const first = await Promise.race([socket.next('welcome').catch(() => undefined), socket.closed]);
    // Some are no good tokens at all.
    if (first === undefined || 'reason' in first) continue;
    for (const channel of [theirs, 'user:alice']) {
      for (const type of ['subscribe', 'history', 'publish']) {
        const reply = await socket.request({ type, channel, data: 1 });
        expect([each, channel, type, reply.code]).toEqual([each, channel, type, 'forbidden']);
      }
    }
    await readAll(socket);
    expect(await get(`/realtime/channels/${encodeURIComponent(theirs)}/history`, token)).toBe(403);
  }
  await insertAndSee(owning);
  expectNothingSeen();
}, 20_000);

test('a claim of channels of another shape opens no connection', async () => {
  for (const channels of [
    [],
    'tenant:a:*',
    5,
    null,
    true,
    [theirs],
    { [theirs]: 'subscribe' },
    { [theirs]: { subscribe: true } },
    { [theirs]: ['read'] },
    { 'a b': [] },
    { '{x}': all },
  ]) {
    const token = await mallory({ channels });
    const socket = await wire.socket(server, { query: `token=${token}` });
    expect([channels, await socket.closed]).toEqual([
      channels,
      expect.objectContaining({ code: 1008, reason: 'unauthorized' }),
    ]);
    expect(await openStream({ query: `channels=${theirs}&token=${token}` })).toBe(401);
  }
  expectNothingSeen();
});

test('nobody without a token, with a used ticket, or on a backend’s calls gets any further', async () => {
  const owning = await owner();
  await insertAndSee(owning);
  const stranger = await wire.socket(server);
  await stranger.next('welcome');
  for (const channel of [theirs, 'user:alice', 'user:null', 'tenant:undefined:orders']) {
    for (const type of ['subscribe', 'history']) {
      expect(await stranger.request({ type, channel })).toMatchObject({ code: 'forbidden' });
    }
  }
  const issued = await post(server, '/realtime/ticket', {}, { authorization: `Bearer ${await alice()}` });
  const { ticket } = issued.body as { ticket: string };
  const first = await wire.socket(server, { query: `token=${ticket}` });
  expect(await first.next('welcome')).toMatchObject({ user: 'alice' });
  const second = await wire.socket(server, { query: `token=${ticket}&channels=${theirs}` });
  expect(await second.closed).toMatchObject({ code: 1008, reason: 'unauthorized' });
  expect(await openStream({ query: `token=${ticket}&channels=${theirs}` })).toBe(401);

  const bearer = { authorization: `Bearer ${await mallory()}` };
  for (const path of [
    '/realtime/users/alice/notify',
    '/realtime/users/alice/disconnect',
    '/realtime/users/alice/reauthorize',
    '/realtime/reload',
  ]) {
    expect([path, (await post(server, path, { data: 1 }, bearer)).status]).toEqual([path, 401]);
  }
  for (const channel of [theirs, 'user:alice']) {
    const answer = await post(server, '/realtime/publish', { channel, data: 1 }, bearer);
    expect([answer.status, errorOf(answer.text).code]).toEqual([403, 'forbidden']);
    const among = await post(server, '/realtime/publish', { channels: [ours, channel], data: 1 }, bearer);
    expect(among.status).toBe(403);
  }
  await insertAndSee(owning);
  await readAll(stranger);
  expectNothingSeen();
});

test('a token of another for the same connection changes nothing', async () => {
  const owning = await owner();
  const socket = await spy(await mallory());
  expect(await socket.request({ type: 'refresh', token: await alice() })).toMatchObject({ code: 'unauthorized' });
  const fresh = await tokenOf({ sub: 'mallory', tenant: 'c' });
  expect(await socket.request({ type: 'subscribe', channel: ours })).toMatchObject({ type: 'subscribed' });
  expect(await socket.request({ type: 'refresh', token: fresh })).toMatchObject({ type: 'refreshed' });
  expect(await socket.next('unsubscribed')).toMatchObject({ channel: ours, reason: 'forbidden' });
  await insertAndSee(owning);
  await readAll(socket);
  expectNothingSeen();
});

test('a column that the list does not name leaves the database in no kind of change', async () => {
  const owning = await owner();
  const id = await insertAndSee(owning);
  await sql`UPDATE orders SET secret = ${`${hidden}-2`}, body = ${`${mark} 2`} WHERE id = ${id}`;
  await sql`UPDATE orders SET id = ${(ids = id + 1)} WHERE id = ${id}`;
  await sql`DELETE FROM orders WHERE id = ${ids}`;
  const texts: string[] = [];
  for (const action of ['UPDATE', 'UPDATE', 'DELETE']) {
    const message = await owning.next('message');
    expect(message.data).toMatchObject({ action });
    texts.push(JSON.stringify(message));
  }
  const history = await owning.request({ type: 'history', channel: theirs, limit: 1_000 });
  texts.push(JSON.stringify(history));
  expect(texts.filter((text) => text.includes(hidden) || text.includes('"secret"'))).toEqual([]);
});

test('a row that moves leaves its old channel, and comes back without what happened elsewhere', async () => {
  const owning = await owner();
  const other = await spy(await mallory());
  await other.request({ type: 'subscribe', channel: ours });
  const id = await insertAndSee(owning);
  await sql`UPDATE orders SET tenant = 'b', body = 'moved' WHERE id = ${id}`;
  expect((await owning.next('message')).data).toMatchObject({ action: 'DELETE', data: null, old: { id }, moved: true });
  const came = await other.next('message');
  expect(came.data).toMatchObject({ action: 'INSERT', data: { id, body: 'moved' }, old: null, moved: true });
  seen.push(JSON.stringify(came));
  await sql`UPDATE orders SET body = 'only b' WHERE id = ${id}`;
  expect((await other.next('message')).data).toMatchObject({ action: 'UPDATE', data: { body: 'only b' } });
  await insertAndSee(owning);
  const left = await owning.settle();
  expect(JSON.stringify(left)).not.toContain('only b');
  await readAll(other);
  expectNothingSeen();
});

test('a row whose owner is odd reaches its owner alone, and one without an owner is counted', async () => {
  const authors = ['*', 'al ice', 'x'.repeat(200), '\u0430lice', 'alice\n', '{sub}', `';--`, '%61lice', '$system'];
  const [everyUser, stranger] = [
    await spy(await mallory({ channels: { '*': all, 'user:*': all } })),
    await wire.socket(server),
  ];
  await stranger.next('welcome');
  for (const channel of ['user:*', 'user:', 'user:null', 'user:alice', 'user', '$system']) {
    for (const socket of [everyUser, stranger]) await socket.request({ type: 'subscribe', channel });
  }
  const counted = async () => (await samples(server)).get('sobranie_errors_total{code="bad_channel"}') ?? 0;
  await until(async () => (await sample(server, 'sobranie_relay_leader')) === 1, 'the relay', 10_000, 50);
  const before = await counted();
  const owners = [...authors, '', 'a:b'];
  for (const author of [null, ...owners]) {
    await sql`INSERT INTO orders VALUES (${++ids}, 'quiet', ${author}, ${mark}, ${hidden})`;
  }
  await until(async () => (await counted()) > before, 'the count of rows that go nowhere', 10_000, 50);
  const written = async () => {
    const rows =
      await sql`SELECT DISTINCT channel FROM realtime.publications WHERE channel LIKE 'user:%' AND data LIKE ${`%"tenant":"quiet"%`}`;
    return rows.map(({ channel }) => channel as string).sort();
  };
  // Each value is one part of a name, and its owner's alone.
  const channels = owners.map((owner) => `user:${channelPart(owner)}`).sort();
  await until(async () => (await written()).length >= channels.length, 'the rows with an owner', 10_000, 50);
  expect(await written()).toEqual(channels);
  expect(await counted()).toBe(before + 1);
  for (const socket of [everyUser, stranger]) {
    for (const channel of channels) {
      expect(await socket.request({ type: 'history', channel })).toMatchObject({ code: 'forbidden' });
    }
    await readAll(socket);
  }
  expectNothingSeen();
}, 20_000);
