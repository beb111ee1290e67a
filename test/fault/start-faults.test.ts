// A start that fails says why and what mends it, in words: an operator got a stack of the driver's, or a wait of ten
// seconds and "The server cannot do this right now".

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { chmodSync, chownSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import postgres from 'postgres';
import { bunFault } from '../../src/app/bun-version.ts';
import { engines } from '../../src/app/engines.ts';
import { versionFault } from '../../src/database/migrate.ts';
import { readSettings } from '../../src/settings/settings.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { freePort, startCluster, type TestCluster } from '../support/postgres.ts';
import { spawnCommand, spawnProgram, spawnServer, type Environment } from '../support/process.ts';
import { startRedis } from '../support/redis.ts';
import { makeCertificates } from '../support/redis-certificates.ts';

patient();

let cluster: TestCluster;
let database: URL;
const certificates = makeCertificates();

beforeAll(async () => {
  cluster = await startCluster();
  database = new URL((await cluster.createDatabase()).url);
}, 200_000);

afterAll(() => cluster.close(), 60_000);

/** What a start that fails prints; none shows a password. */
async function failure(environment: Environment): Promise<string> {
  const server = spawnServer({ LOG_FORMAT: 'pretty', ...environment });
  expect(await server.waitForExit(150_000)).toBe(1);
  const printed = server.stderr() + server.stdout();
  expect(printed).not.toMatch(/pass-word|\n\s+at /);
  return server.stderr();
}

function messageOf(run: () => unknown): string {
  try {
    return JSON.stringify(run());
  } catch (error) {
    return (error as Error).message;
  }
}

function at(change: (url: URL) => void): string {
  const url = new URL(database);
  change(url);
  return url.href;
}

/** Answers what the last one did. */
async function asSuperuser(...statements: string[]): Promise<readonly Record<string, string>[]> {
  const sql = postgres({ host: '127.0.0.1', port: cluster.port, user: 'postgres', database: 'postgres', max: 1 });
  let rows: readonly Record<string, string>[] = [];
  for (const statement of statements) rows = await sql.unsafe(statement);
  await sql.end();
  return rows;
}

test('what does not pass by itself: wrong password, no such database, a missing right', async () => {
  await asSuperuser(`create role locked login password 'pass-word'`, `create role guest login`, `create database bare`);
  const [{ hba_file: file = '' } = {}] = await asSuperuser('show hba_file');
  writeFileSync(file, `host all locked 127.0.0.1/32 scram-sha-256\n${readFileSync(file, 'utf8')}`);
  await asSuperuser('select pg_reload_conf()');
  const absent = failure({ DATABASE_URL: at((url) => (url.pathname = '/there-is-none')) });
  const wrongPassword = failure({
    DATABASE_URL: at((url) => ((url.username = 'locked'), (url.password = 'pass-word-not'))),
  });
  const guest = failure({ DATABASE_URL: at((url) => ((url.username = 'guest'), (url.pathname = '/bare'))) });
  expect(await wrongPassword).toContain('the password is wrong');
  expect(await wrongPassword).toContain('What to do: correct the password of "locked" in DATABASE_URL');
  expect(await absent).toBe(
    `The server could not start.\n  PostgreSQL at 127.0.0.1:${cluster.port} (DATABASE_URL): the database does not exist.\n` +
      `  PostgreSQL said: database "there-is-none" does not exist\n` +
      `  What to do: create it: CREATE DATABASE "there-is-none"\n`,
  );
  expect(await guest).toContain(
    'What to do: run as a superuser, connected to "bare": GRANT CREATE ON DATABASE "bare" TO "guest"; ' +
      'GRANT CREATE ON SCHEMA public TO "guest";',
  );
  // The advice is what helps.
  await asSuperuser(`grant create on database bare to guest`);
  const bare = postgres({ host: '127.0.0.1', port: cluster.port, user: 'postgres', database: 'bare', max: 1 });
  await bare.unsafe('grant create on schema public to guest');
  await bare.end();
  const url = at((change) => ((change.username = 'guest'), (change.pathname = '/bare')));
  const server = spawnServer({ LOG_FORMAT: 'json', DATABASE_URL: url });
  await server.waitForOutput(/listening on/, 20_000);
  expect(await server.stop()).toBe(0);
});

// Nothing was said: rows stayed in the outbox of one database while another was relayed. A role that does not own the
// schema got a stack, or the advice to grant what it does not lack.
test('two URLs that lead to different databases, and a role that is not the owner of the schema', async () => {
  const [own, other] = await Promise.all([
    cluster.createDatabase({ migrated: true }),
    cluster.createDatabase({ migrated: true }),
  ]);
  const bare = await cluster.createDatabase();
  await asSuperuser(`create role stranger login password 'pass-word'`);
  const asStranger = new URL(own.url);
  asStranger.username = 'stranger';
  const direct = { DATABASE_URL_DIRECT: own.url };
  const [another, none, pool, alone] = await Promise.all([
    failure({ DATABASE_URL: other.url, ...direct }),
    failure({ DATABASE_URL: bare.url, ...direct }),
    failure({ DATABASE_URL: asStranger.href, ...direct }),
    failure({ DATABASE_URL: asStranger.href }),
  ]);
  for (const said of [another, none]) {
    expect(said).toContain(`(DATABASE_URL): this is another database than the one that DATABASE_URL_DIRECT leads to`);
    expect(said).toContain('What to do: correct host, port and name of the database in DATABASE_URL or in');
  }
  const owner = new URL(own.url).username;
  for (const said of [pool, alone]) {
    expect(said).toContain(`The schema "realtime" belongs to the role "${owner}", and this server runs as "stranger"`);
    expect(said).not.toContain('GRANT CREATE');
  }
  await asSuperuser(`grant "${owner}" to stranger`);
  const server = spawnServer({ LOG_FORMAT: 'json', DATABASE_URL: asStranger.href, ...direct });
  await server.waitForOutput(/listening on/, 20_000);
  expect(await server.stop()).toBe(0);
});

test('a Unix socket is reached, and parameters of other clients are no fault; what the database does not know is', async () => {
  const folder = temporaryFolder('socket');
  chmodSync(folder, 0o777);
  const socket = (query: string): string => `postgres://app@/${database.pathname.slice(1)}?${query}`;
  const refused = Promise.all([
    failure({ DATABASE_URL: at((url) => (url.search = 'shema=public')) }),
    failure({ DATABASE_URL: at((url) => (url.search = 'sslmode=require')) }),
    failure({ DATABASE_URL: socket(`host=${folder}/none`) }),
  ]);
  const [unknown, noTls, noSocket] = await refused;
  expect(unknown).toContain('PostgreSQL said: unrecognized configuration parameter "shema"');
  expect(unknown).toContain('What to do: leave out of DATABASE_URL the parameter that is no setting of PostgreSQL');
  expect(noTls).toContain('it offers no TLS');
  expect(noTls).toContain('What to do: turn TLS on there (ssl = on), or leave sslmode out of DATABASE_URL');
  expect(noSocket).toContain(`PostgreSQL at ${folder}/none/.s.PGSQL.5432 (DATABASE_URL): the socket file is not there`);
  await asSuperuser(`alter system set unix_socket_directories = '${folder}'`);
  await cluster.restart();
  const prisma = `host=${folder}&port=${cluster.port}&schema=public&connection_limit=5&pool_timeout=10&sslmode=prefer`;
  const server = spawnServer({ LOG_FORMAT: 'json', DATABASE_URL: socket(prisma) });
  await server.waitForOutput(/listening on/, 20_000);
  const encoded = `postgres://app@${encodeURIComponent(folder)}:${cluster.port}${database.pathname}`;
  const watches = spawnCommand(['watches'], { DATABASE_URL: encoded });
  expect(await watches.waitForExit(20_000)).toBe(0);
  expect(await server.stop()).toBe(0);
}, 200_000);

test('what TLS and passwords need', async () => {
  const folder = temporaryFolder('tls');
  // PostgreSQL wants its key to be readable by nobody else.
  const key = join(folder, 'server.key');
  const certificate = join(folder, 'server.pem');
  copyFileSync(certificates.key, key);
  copyFileSync(certificates.certificate, certificate);
  chmodSync(folder, 0o755);
  const { uid, gid } = await Bun.file(`/proc/${cluster.pid}/status`)
    .text()
    .then((status) => ({
      uid: Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]),
      gid: Number(/^Gid:\s+(\d+)/m.exec(status)?.[1]),
    }));
  if (process.getuid?.() === 0) for (const file of [key, certificate]) chownSync(file, uid, gid);
  chmodSync(key, 0o600);
  await asSuperuser(
    `alter system set ssl_cert_file = '${certificate}'`,
    `alter system set ssl_key_file = '${key}'`,
    `alter system set ssl = on`,
    `select pg_reload_conf()`,
  );
  const secure = at((url) => url.searchParams.set('sslmode', 'verify-full'));
  const untrusted = await failure({ DATABASE_URL: secure });
  expect(untrusted).toContain('its certificate is not trusted');
  expect(untrusted).toContain('What to do: name the authority that signed it: NODE_EXTRA_CA_CERTS=/path/to/ca.pem');
  expect(untrusted).toContain('or ?sslrootcert=/path/to/ca.pem in DATABASE_URL');
  const server = spawnServer({ LOG_FORMAT: 'json', DATABASE_URL: secure, NODE_EXTRA_CA_CERTS: certificates.authority });
  await server.waitForOutput(/listening on/, 20_000);
  expect(await server.stop()).toBe(0);

  for (const password of ['a#b', 'a/b', 'a?b', '1#b', '1/b', '1?b', 'a%b']) {
    const said = messageOf(() => readSettings({ DATABASE_URL: `postgres://app:${password}@127.0.0.1/db` }, engines));
    expect([password, said]).toEqual([password, expect.stringContaining('write # as %23, / as %2F')]);
    expect(said).not.toContain(password);
  }
}, 200_000);

test('what may pass, but does not: nobody listens, no such host', async () => {
  const port = await freePort();
  const redis = await startRedis();
  await redis.admin.config('SET', 'requirepass', 'pass-word');
  const { url } = await cluster.createDatabase();
  const over = { DATABASE_URL: url, SYNC: 'redis' };
  const [refused, unknown, noPassword, wrongPassword, noTls, noKafka] = await Promise.all([
    failure({ DATABASE_URL: `postgres://app:pass-word@127.0.0.1:${port}/db` }),
    failure({ DATABASE_URL: 'postgres://app@no-such-host.invalid/db' }),
    failure({ ...over, REDIS_URL: redis.url }),
    failure({ ...over, REDIS_URL: redis.url.replace('//', '//:pass-word-not@') }),
    failure({ ...over, REDIS_URL: redis.url.replace('redis:', 'rediss:') }),
    // The driver's errors are lists inside of lists; the reason stands at the bottom.
    failure({ ...over, SYNC: 'kafka', KAFKA_URL: `kafka://app:pass-word@127.0.0.1:${port}`, LOG_LEVEL: 'error' }),
  ]);
  await redis.close();
  expect(refused).toContain(`PostgreSQL at 127.0.0.1:${port} (DATABASE_URL): the connection is refused`);
  expect(refused).toContain(`What to do: start PostgreSQL, or correct host and port in DATABASE_URL`);
  expect(unknown).toMatch(
    /no-such-host\.invalid:5432 \(DATABASE_URL\): the host name (?:is not known|could not be looked up)/,
  );
  expect(unknown).toContain('What to do: correct the host name in DATABASE_URL');
  expect(noPassword).toContain(`Redis at 127.0.0.1:${redis.port} (REDIS_URL): it wants a password`);
  expect(noPassword).toContain('What to do: write the password into REDIS_URL');
  expect(wrongPassword).toContain('the password or user name is wrong');
  expect(noTls).toContain(`Redis at 127.0.0.1:${redis.port} (REDIS_URL): no answer in time`);
  expect(noTls).toContain('What to do: if it speaks no TLS at that port, begin REDIS_URL without TLS');
  expect(noKafka).toContain(`Kafka at 127.0.0.1:${port} (KAFKA_URL): the connection is refused`);
  expect(noKafka).toContain('What to do: start Kafka, or correct host and port in KAFKA_URL');
}, 200_000);

test('versions that are too old are named', () => {
  expect(versionFault(120_018)).toContain('The database is PostgreSQL 12. This server needs 13 or newer');
  expect(versionFault(90_624)).toContain('PostgreSQL 9.6');
  expect([130_000, 180_001].map(versionFault)).toEqual([undefined, undefined]);
  expect(bunFault('1.3.99')).toBe(
    'This server needs Bun 1.4.0 or newer, and this is Bun 1.3.99. Upgrade it: bun upgrade',
  );
  expect(bunFault(Bun.version)).toBeUndefined();
});

// As root only: elsewhere there is no other account.
if (process.getuid?.() === 0) {
  test('a data folder that belongs to root is named, with the command that mends it', async () => {
    const folder = temporaryFolder('foreign');
    chmodSync(folder, 0o755);
    const bun = join(folder, 'bun');
    copyFileSync(process.execPath, bun);
    chmodSync(bun, 0o755);
    const data = join(folder, 'data');
    mkdirSync(join(data, 'postgres'), { recursive: true, mode: 0o700 });
    writeFileSync(join(data, 'postgres', 'PG_VERSION'), '18\n');
    const main = join(import.meta.dir, '../../src/main.ts');
    const command = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', bun, main];
    const server = spawnProgram(command, { LOG_FORMAT: 'pretty', DATA_DIR: data, HOME: folder }, '/');
    expect(await server.waitForExit(30_000)).toBe(1);
    expect(server.stderr()).toContain(data);
    expect(server.stderr()).toMatch(/belongs to root.*chown -R/);
    // The folder was given back, and not what is in it: only the path that was refused was said.
    writeFileSync(join(data, 'owner.pid'), '');
    chownSync(data, 65_534, 65_534);
    const again = spawnProgram(command, { LOG_FORMAT: 'pretty', DATA_DIR: data, HOME: folder }, '/');
    expect(await again.waitForExit(30_000)).toBe(1);
    expect(again.stderr()).toContain(`${join(data, 'owner.pid')}: it belongs to root`);
    expect(again.stderr()).toContain(`Give it back: chown -R 65534 ${data};`);
  });
}
