// Secrets never leave the process: every one is set to a marker, everything that can go wrong is made to, and neither
// the log, the answers, the metrics nor the documentation may hold one. The same for tokens that clients bring.

import { afterAll, describe, expect, test } from 'bun:test';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { SignJWT } from 'jose';
import postgres from 'postgres';
import { Refused, EventClient, WebSocketClient } from '../support/clients.ts';
import { startCluster, type TestCluster } from '../support/postgres.ts';
import { spawnServer, startServer, type Environment, type RunningServer } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';
import { call, post } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

/** Letters alone, so that no encoding changes them; each is looked for in any case. */
const markers = {
  jwtSecret: 'qjwtsecretqqqqqqqqqqqqqqqqqqqqqqqqqqqq',
  apiKey: 'qapikeyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq',
  adminKey: 'qadminkeyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq',
  databasePassword: 'qdatabasepasswordqqqqqqq',
  redisPassword: 'qredispasswordqqqqqqqqqq',
  clientToken: 'qclienttokenqqqqqqqqqqqq',
};

/** What every line of output and every answer of a test came to. */
class Said {
  #text = '';

  add(...texts: readonly string[]): void {
    this.#text += `${texts.join('\n')}\n`;
  }

  async answer(answer: Promise<{ readonly text: string; readonly headers: Headers }>): Promise<void> {
    const { text, headers } = await answer;
    this.add(text, JSON.stringify([...headers]));
  }

  async refusal(opening: Promise<{ cut(): Promise<void> }>): Promise<void> {
    try {
      await (await opening).cut();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.add(error.body, JSON.stringify([...error.headers]));
    }
  }

  /** Also in base64, as headers and keys travel. */
  expectNoSecret(more: readonly string[] = []): void {
    const found: string[] = [];
    for (const secret of [...Object.values(markers), ...more]) {
      for (const form of [secret, Buffer.from(secret).toString('base64').slice(0, 24)]) {
        const at = this.#text.toLowerCase().indexOf(form.toLowerCase());
        if (at !== -1) found.push(this.#text.slice(Math.max(0, at - 300), at + form.length + 50));
      }
    }
    expect(found).toEqual([]);
  }

  expectToContain(text: string | RegExp): void {
    expect(this.#text).toMatch(text);
  }
}

/** PostgreSQL that asks the role `app` for its password. */
async function clusterWithPassword(password: string): Promise<{ cluster: TestCluster; url: string }> {
  const cluster = await startCluster();
  const database = await cluster.createDatabase({ migrated: true });
  const sql = postgres(database.superUrl, { max: 1, onnotice: () => undefined });
  await sql.unsafe(`ALTER ROLE app PASSWORD '${password.replaceAll("'", "''")}'`);
  const [row] = await sql<{ hba: string }[]>`SELECT current_setting('hba_file') AS hba`;
  const rules = 'host all app 127.0.0.1/32 scram-sha-256\\nhost all postgres 127.0.0.1/32 trust';
  await sql.unsafe(`COPY (SELECT unnest(string_to_array(E'${rules}', E'\\n'))) TO '${row?.hba}'`);
  await sql`SELECT pg_reload_conf()`;
  await sql.end({ timeout: 1 });
  const url = new URL(database.url);
  url.password = encodeURIComponent(password);
  return { cluster, url: url.href };
}

function withPassword(url: string, password: string): string {
  const changed = new URL(url);
  changed.password = encodeURIComponent(password);
  return changed.href;
}

const keys = { JWT_SECRET: markers.jwtSecret, API_KEY: markers.apiKey, ADMIN_KEY: markers.adminKey };
const loud = {
  LOG_LEVEL: 'trace',
  BROADCAST_INTERVAL: '1',
  SHUTDOWN_TIMEOUT: '0',
  RATE_LIMIT_PER_MINUTE: '0',
  SUBSCRIBES_PER_MINUTE: '0',
};

let postgresCluster: Promise<{ cluster: TestCluster; url: string }> | undefined;
const database = () => (postgresCluster ??= clusterWithPassword(markers.databasePassword));
const redises: TestRedis[] = [];

async function redisWithPassword(password: string): Promise<{ redis: TestRedis; url: string }> {
  const redis = await startRedis();
  redises.push(redis);
  await redis.admin.config('SET', 'requirepass', password);
  return { redis, url: withPassword(redis.url, password) };
}

afterAll(async () => {
  for (const redis of redises) await redis.close();
  if (postgresCluster !== undefined) await (await postgresCluster).cluster.close();
}, 30_000);

async function token(claims: Record<string, unknown>, key = markers.jwtSecret): Promise<string> {
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('5m')
    .sign(new TextEncoder().encode(key));
}

/** Every door, with the right keys and with wrong ones. Answers the tokens that were brought. */
async function knock(server: RunningServer, said: Said): Promise<string[]> {
  const good = await token({ sub: 'ann', channels: { '*': ['subscribe', 'publish', 'history'] } });
  const forged = await token({ sub: 'ann' }, 'another secret that is also long enough');
  const tokens = [good, forged, markers.clientToken, `${markers.clientToken}.${markers.clientToken}.x`];
  for (const each of tokens) {
    const encoded = encodeURIComponent(each);
    for (const query of [`channels=a&token=${encoded}`, `channels=no%20name&token=${encoded}`]) {
      await said.refusal(EventClient.open(server.url, { query }));
      await said.refusal(WebSocketClient.open(server.url, { query }));
    }
    await said.refusal(
      WebSocketClient.open(server.url, { headers: { 'Sec-WebSocket-Protocol': `sobranie, bearer.${each}` } }),
    );
    await said.refusal(WebSocketClient.open(server.url, { headers: { Cookie: `sobranie_token=${each}` } }));
    for (const path of [
      '/realtime/channels',
      `/nowhere?token=${encoded}`,
      `/realtime/channels/a/history?token=${encoded}`,
    ]) {
      await said.answer(call(server, path, { headers: { authorization: `Bearer ${each}` } }));
    }
    await said.answer(
      post(server, '/realtime/publish', { channel: 'a', data: 1 }, { authorization: `Bearer ${each}` }),
    );
    await said.answer(post(server, '/realtime/publish', `{"channel": ${each}`, { authorization: `Bearer ${each}` }));
  }
  const socket = await WebSocketClient.open(server.url, { query: `token=${good}` });
  await socket.next('welcome');
  for (const each of [...tokens, markers.apiKey, { x: 1 }]) {
    said.add(JSON.stringify(await socket.request({ type: 'refresh', token: each })));
  }
  said.add(JSON.stringify(await socket.request({ type: `${markers.clientToken}` })).replace(markers.clientToken, ''));
  said.add(JSON.stringify(await socket.request({ type: 'publish', channel: 'a', data: 1 })));
  await socket.cut();
  for (const key of [markers.apiKey, markers.adminKey, 'wrong']) {
    const headers = { authorization: `Bearer ${key}` };
    for (const path of [
      '/realtime/channels',
      '/realtime/channels/a/history',
      '/metrics',
      '/swagger/json',
      '/health/ready',
    ]) {
      await said.answer(call(server, path, { headers }));
    }
    await said.answer(post(server, '/realtime/publish', { channel: 'a', data: 1 }, headers));
    await said.answer(post(server, '/realtime/users/7/disconnect', {}, headers));
  }
  for (const path of ['/', '/demo/info', '/demo/posts', '/swagger', '/swagger/json', '/metrics', '/health/live']) {
    await said.answer(call(server, path));
  }
  return [good, forged];
}

describe('Secrets', () => {
  test.each(['json', 'pretty'])(
    'stay inside while Redis and the database go away and come back, logging %s and everything',
    async (format) => {
      const [{ url: databaseUrl }, { redis, url: redisUrl }] = await Promise.all([
        database(),
        redisWithPassword(markers.redisPassword),
      ]);
      const [toDatabase, toRedis] = await Promise.all([
        startProxy({ port: Number(new URL(databaseUrl).port) }),
        startProxy({ port: redis.port }),
      ]);
      const said = new Said();
      const server = await startServer({
        ...keys,
        ...loud,
        LOG_FORMAT: format,
        SYNC: 'redis',
        REDIS_URL: toRedis.through(redisUrl),
        DATABASE_URL: toDatabase.through(databaseUrl),
      });
      try {
        const tokens = await knock(server, said);
        const ready = async (): Promise<number> => (await call(server, '/health/ready')).status;
        toDatabase.mode = 'refuse';
        toDatabase.cut();
        toRedis.mode = 'refuse';
        toRedis.cut();
        await until(async () => (await ready()) === 503, 'the server knows that all is away', 20_000);
        tokens.push(...(await knock(server, said)));
        toDatabase.mode = 'forward';
        toRedis.mode = 'forward';
        // Its password is another one now, as after a rotation that forgot this server.
        await redis.admin.config('SET', 'requirepass', 'another');
        await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
        await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
        await until(() => /WRONGPASS|NOAUTH/.test(server.stdout()), 'a refused password is logged', 20_000);
        await said.answer(call(server, '/health/ready'));
        await server.stop();
        said.add(server.stdout(), server.stderr());
        said.expectNoSecret(tokens.map((each) => each.slice(-20)));
      } finally {
        await server.kill9();
        await Promise.all([toDatabase.close(), toRedis.close()]);
      }
    },
    120_000,
  );

  test('stay inside when the server cannot start', async () => {
    const { url } = await database();
    const { redis } = await redisWithPassword('the right one');
    const closedPort = 'postgres://app:PASSWORD@127.0.0.1:9/nowhere'.replace('PASSWORD', markers.databasePassword);
    const privateKey = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const environments: Environment[] = [
      { DATABASE_URL: closedPort },
      { DATABASE_URL: withPassword(url, `${markers.databasePassword}-wrong`) },
      { DATABASE_URL: `postgres://app:${markers.databasePassword}@127.0.0.1:none/x` },
      { DATABASE_URL: `postgres//app:${markers.databasePassword}@127.0.0.1` },
      { DATABASE_URL: `mysql://app:${markers.databasePassword}@127.0.0.1/x` },
      { DATABASE_URL: `postgres://app:${markers.databasePassword}@/@127.0.0.1:9/x` },
      { DATABASE_URL: `postgres://127.0.0.1:9/x?user=app&password=${markers.databasePassword}` },
      { DATABASE_URL: `postgres://${markers.databasePassword}@` },
      { DATABASE_URL: url, SYNC: 'redis', REDIS_URL: withPassword(redis.url, markers.redisPassword) },
      { DATABASE_URL: url, SYNC: 'redis', REDIS_URL: `redis://:${markers.redisPassword}@127.0.0.1:9` },
      { DATABASE_URL: url, REDIS_URL: `redis//:${markers.redisPassword}@127.0.0.1` },
      { DATABASE_URL: url, REDIS_URL: `:${markers.redisPassword}@127.0.0.1:6379` },
      { JWT_SECRETT: markers.jwtSecret, API_KEYS: markers.apiKey, ADMINKEY: markers.adminKey },
      { API_KEY: `${markers.apiKey} with a space`, ADMIN_KEY: `${markers.adminKey}\u00e9` },
      { JWT_SECRET: undefined, JWT_PUBLIC_KEY: markers.jwtSecret },
      { JWT_SECRET: undefined, JWT_PUBLIC_KEY: privateKey },
      { JWT_SECRET: undefined, JWKS_URL: `https//ann:${markers.jwtSecret}@keys.example` },
      { JWT_PUBLIC_KEY: markers.jwtSecret },
      { PORT: 'x', JWT_SECRET: markers.jwtSecret },
    ];
    const queue = environments.entries();
    const tryAll = async (): Promise<void> => {
      for (const [index, environment] of queue) {
        const said = new Said();
        const format = { LOG_FORMAT: index % 2 === 0 ? 'json' : 'pretty' };
        const server = spawnServer({ ...keys, ...loud, ...format, SYNC: 'postgres', ...environment });
        await server.waitForExit(60_000);
        said.add(server.stdout(), server.stderr());
        said.expectToContain(/\S{3}/);
        said.expectNoSecret(privateKey.split('\n').slice(1, 2));
      }
    };
    await Promise.all([tryAll(), tryAll(), tryAll()]);
  }, 90_000);

  test('of any characters stay inside', async () => {
    const passwords = ['p@ss:/wo?rd#qqq', 'back\\slash"quote\'qqq', 'пароль qqq', '%41%qqq', 'a b&c=qqq'];
    // Most of a start that fails is waiting.
    const tryWith = async (password: string): Promise<void> => {
      const said = new Said();
      const encoded = encodeURIComponent(password);
      const server = spawnServer({
        ...loud,
        DATABASE_URL: `postgres://app:${encoded}@127.0.0.1:9/x`,
        SYNC: 'postgres',
      });
      await server.waitForExit(60_000);
      said.add(server.stdout(), server.stderr());
      said.expectToContain(/127\.0\.0\.1|ECONNREFUSED/);
      said.expectNoSecret([password, encoded]);
    };
    await Promise.all(passwords.map(tryWith));
  }, 90_000);

  test('stand in no command line of the processes that WORKERS starts', async () => {
    const { url } = await database();
    const server = await startServer({ ...keys, ...loud, SYNC: 'postgres', DATABASE_URL: url, WORKERS: '2' });
    const commands = readdirSync('/proc').flatMap((pid) => {
      if (!/^\d+$/.test(pid)) return [];
      try {
        return [readFileSync(`/proc/${pid}/cmdline`, 'latin1')];
      } catch {
        // It has ended since.
        return [];
      }
    });
    const said = new Said();
    said.add(...commands, server.stdout(), server.stderr());
    await knock(server, said);
    await server.stop();
    said.add(server.stdout(), server.stderr());
    said.expectNoSecret();
  }, 60_000);
});
