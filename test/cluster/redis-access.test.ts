// How nodes get into Redis: with TLS and a private authority, as a user with no more rights than needed, and into a
// database of their own. Who is not let in is told why, and no password is ever printed.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { Redis } from 'ioredis';
import { WebSocketClient } from '../support/clients.ts';
import { createDatabase } from '../support/postgres.ts';
import { spawnServer, type Environment } from '../support/process.ts';
import { makeCertificates, type TestCertificates } from '../support/redis-certificates.ts';
import { RedisStage } from '../support/redis-stage.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';
import { patient } from '../support/patience.ts';

patient();

const long = process.env['LONG'] === '1';
const password = 'hunter-2';

/** A server that cannot start; answers all that it printed. */
async function refusal(environment: Environment): Promise<string> {
  const { url } = await createDatabase();
  const server = spawnServer({ LOG_FORMAT: 'json', DATABASE_URL: url, ...environment });
  expect(await server.waitForExit(40_000)).not.toBe(0);
  return server.stdout() + server.stderr();
}

describe('TLS', () => {
  let certificates: TestCertificates;
  let stage: RedisStage;
  beforeAll(async () => {
    certificates = makeCertificates();
    const redis = await startRedis({ tls: certificates });
    stage = await RedisStage.on(redis, { nodes: 0 });
  }, 60_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  test('with a private authority, given as a file or as text: nobody misses anything', async () => {
    await stage.startNode({ REDIS_TLS_CA: certificates.authority });
    const pem = readFileSync(certificates.authority, 'utf8');
    await stage.startNode({ REDIS_TLS_CA: pem.replaceAll('\n', String.raw`\n`) });
    const load = await stage.load();
    await stage.redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await load.arrives(20);
    await stage.redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await load.arrives(20);
    await load.finish();
  }, 60_000);

  test('a certificate that the authority did not sign ends the start, and why is told', async () => {
    const { url } = stage.redis;
    const [another, none, misnamed] = await Promise.all([
      refusal({ REDIS_URL: url, REDIS_TLS_CA: makeCertificates().authority }),
      refusal({ REDIS_URL: url }),
      refusal({ REDIS_URL: url.replace('127.0.0.1', 'localhost'), REDIS_TLS_CA: certificates.authority }),
    ]);
    expect(another).toMatch(/Redis at \S+ \(REDIS_URL\): its certificate is not trusted/);
    expect(none).toMatch(/Redis at \S+ \(REDIS_URL\): its certificate is not trusted/);
    expect(misnamed).toMatch(/Redis at localhost:\d+ \(REDIS_URL\): its certificate is for another host/);
  }, 60_000);

  if (long) {
    test('an address without TLS, and TLS to one that has none, end the start', async () => {
      const bare = await startRedis();
      try {
        const [plain, secured] = await Promise.all([
          refusal({ REDIS_URL: stage.redis.url.replace('rediss:', 'redis:') }),
          refusal({ REDIS_URL: bare.url.replace('redis:', 'rediss:') }),
        ]);
        expect(plain).toContain('(REDIS_URL)');
        expect(secured).toContain('(REDIS_URL)');
      } finally {
        await bare.close();
      }
    }, 60_000);
  }
});

describe('a user of Redis', () => {
  let redis: TestRedis;
  let stage: RedisStage;
  const rights = [
    'resetchannels',
    '~sobranie:*',
    '&sobranie:*',
    '-@all',
    ...['+eval', '+evalsha', '+publish', '+subscribe', '+unsubscribe', '+info', '+time', '+del', '+pexpire'],
    ...['+get', '+set', '+hmget', '+hset', '+hincrby', '+xadd', '+xrange', '+xrevrange'],
    // For limits and tickets.
    ...['+incrby', '+pttl', '+getdel'],
    // For presence.
    ...['+exists', '+mget', '+hget', '+hdel', '+hlen', '+hscan', '+sadd', '+srem', '+scard', '+spop', '+srandmember'],
    ...['+zadd', '+zrem', '+zscore', '+zrangebyscore'],
  ];
  const urlOf = (user: string, secret: string): string =>
    redis.url.replace('//', `//${user}:${encodeURIComponent(secret)}@`);
  const ready = async (): Promise<boolean> => (await fetch(`${stage.nodes[0]?.url}/health/ready`)).status === 200;

  beforeAll(async () => {
    redis = await startRedis();
    await redis.admin.call('ACL', 'SETUSER', 'app', 'on', `>${password}`, ...rights);
    stage = await RedisStage.on(redis, {
      environment: { REDIS_URL: urlOf('app', password), RATE_LIMIT_PER_MINUTE: '100000' },
    });
  }, 60_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  test('needs these rights and no others', async () => {
    const load = await stage.load();
    await redis.admin.call('CLIENT', 'KILL', 'USER', 'app');
    await load.arrives(20);
    await load.finish();
    const member = await WebSocketClient.open(stage.nodes[0]?.url ?? '');
    const listed = await member.request({ type: 'subscribe', channel: 'posts', presence: { with: 'data' } });
    expect(listed.type).toBe('subscribed');
    const compared = async (): Promise<boolean> => (await redis.admin.info('commandstats')).includes('cmdstat_mget:');
    await until(compared, 'its list was compared with Redis', 20_000);
    await member.request({ type: 'unsubscribe', channel: 'posts' });
    await member.close();
    // What is asked once, to know more, may be refused.
    const denied = JSON.stringify(await redis.admin.call('ACL', 'LOG'));
    const objects = [...denied.matchAll(/"object","([^"]+)"/g)].map(([, object]) => object);
    expect(objects.filter((object) => object !== 'config|get')).toEqual([]);
  }, 60_000);

  // Nothing told of it: a list that had missed a change stayed wrong, for as long as nobody joined or left.
  test('without the right to compare lists of members: told once, shown by health, and traffic goes on', async () => {
    const [node] = stage.nodes;
    const member = await WebSocketClient.open(node?.url ?? '');
    await member.request({ type: 'subscribe', channel: 'posts', presence: true });
    const health = async (): Promise<string> => {
      const answer = await fetch(`${node?.url}/health/ready`);
      const { checks } = (await answer.json()) as { checks: Record<string, { ok: boolean; lastError?: object }> };
      return `${answer.status} ${checks['presence']?.ok} ${JSON.stringify(checks['presence']?.lastError ?? {})}`;
    };
    const refused = async (): Promise<number> => {
      const log = (await redis.admin.call('ACL', 'LOG')) as string[][];
      const counts = log.map((entry) => (entry.includes('mget') ? Number(entry[entry.indexOf('count') + 1]) : 0));
      return counts.reduce((sum, count) => sum + count, 0);
    };
    await until(async () => (await health()).startsWith('200 true'), 'compared', 20_000);
    await redis.admin.call('ACL', 'SETUSER', 'app', '-mget');
    await until(async () => (await health()).startsWith('200 false'), 'health shows it', 20_000);
    expect(await health()).toContain('a right is missing');
    await until(async () => (await refused()) >= 3, 'refused time and again', 20_000);
    const told = node?.stdout().match(/presence: a right is missing/g) ?? [];
    expect(told).toHaveLength(1);
    expect(node?.stdout()).toMatch(/NOPERM[^"]*mget/);
    await redis.admin.call('ACL', 'SETUSER', 'app', '+mget');
    await redis.admin.call('ACL', 'LOG', 'RESET');
    await until(async () => (await health()).startsWith('200 true'), 'compared again', 20_000);
    await member.close();
  }, 90_000);

  test('whose password is changed is let in again with the right one, and no password is printed', async () => {
    const load = await stage.load();
    await redis.admin.call('ACL', 'SETUSER', 'app', 'resetpass', '>another');
    await redis.admin.call('CLIENT', 'KILL', 'USER', 'app');
    await until(async () => !(await ready()), 'not ready', 20_000);
    await until(() => stage.nodes.every((node) => /WRONGPASS/.test(node.stdout())), 'told why', 20_000);
    await redis.admin.call('ACL', 'SETUSER', 'app', `>${password}`);
    await until(ready, 'ready again', 20_000);
    await load.arrives(20);
    await load.finish();
    for (const node of stage.nodes) expect(node.stdout() + node.stderr()).not.toContain(password);
  }, 60_000);

  test('who is not let in is told why, without the password', async () => {
    await redis.admin.call('ACL', 'SETUSER', 'mute', 'on', '>mute', ...rights, 'resetchannels');
    const [wrong, unknown, mute] = await Promise.all([
      refusal({ REDIS_URL: urlOf('app', `${password}-wrong`) }),
      refusal({ REDIS_URL: urlOf('nobody', password) }),
      refusal({ REDIS_URL: urlOf('mute', 'mute') }),
    ]);
    expect(wrong).toContain('(REDIS_URL): the password or user name is wrong');
    expect(unknown).toContain('(REDIS_URL): the password or user name is wrong');
    expect(mute).toMatch(/give the user \S+mute\S+ the commands, keys and channels/);
    expect(wrong + unknown).not.toContain(password);
  }, 60_000);
});

describe('a database of Redis', () => {
  let redis: TestRedis;
  let stage: RedisStage;
  beforeAll(async () => {
    redis = await startRedis();
    stage = await RedisStage.on(redis);
  }, 60_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  // Pub/Sub knows no databases: what is published in one is heard in all of them.
  test('is a server of its own: the same channels in another one are others', async () => {
    const [here] = stage.nodes;
    const there = await stage.startNode({ REDIS_URL: `${redis.url}/3` });
    const clients = await Promise.all([here, there].map((node) => WebSocketClient.open(node?.url ?? '')));
    for (const client of clients) {
      for (const channel of ['posts', 'ephemeral:x']) await client.request({ type: 'subscribe', channel });
    }
    for (const [index, client] of clients.entries()) {
      for (const channel of ['posts', 'ephemeral:x']) await client.request({ type: 'publish', channel, data: index });
    }
    for (const [index, client] of clients.entries()) {
      // Publications of two channels may come in any order: an ephemeral one does not wait for Redis.
      const heard = [await client.next('message'), await client.next('message')];
      expect(heard.find(({ channel }) => channel === 'posts')).toMatchObject({ data: index, offset: 1 });
      expect(heard.find(({ channel }) => channel === 'ephemeral:x')).toMatchObject({ data: index });
      await client.request({ type: 'publish', channel: 'posts', data: 'last' });
      expect(await client.next('message')).toMatchObject({ channel: 'posts', data: 'last', offset: 2 });
      await client.close();
    }
    const third = new Redis(redis.port, '127.0.0.1', { db: 3 });
    expect(await third.exists('sobranie:s:{posts}')).toBe(1);
    third.disconnect();
  }, 60_000);

  test('that is not there ends the start, and why is told', async () => {
    expect(await refusal({ REDIS_URL: `${redis.url}/99` })).toMatch(/Redis could not be reached: [^"]*DB index/);
  }, 60_000);
});
