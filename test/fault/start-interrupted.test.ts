// A start that a signal ends. A node that waited for its database or its Redis heeded no signal before it gave up: it
// ended with 1, half a minute later where several parts were away, and whoever stopped it killed it at last.

import { afterEach, expect, test } from 'bun:test';
import { join } from 'node:path';
import { findPostgres } from '../../src/embedded/process.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { spawnServer, type Environment, type RunningProcess } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';

patient();

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

function start(settings: Environment): RunningProcess {
  return spawnServer({ SHUTDOWN_TIMEOUT: '0', LOG_FORMAT: 'json', LOG_LEVEL: 'debug', ...settings });
}

/** In order, whatever it waited for; a start that fails ends with 1. */
async function endsAtSignal(server: RunningProcess): Promise<void> {
  expect(await server.stop('SIGTERM', 60_000)).toBe(0);
  expect(server.stdout()).toContain('shut down before the start was complete');
  expect(server.stdout()).not.toMatch(/listening on|was not handled|was not caught|"level":"fatal"/);
}

test('a start that waits for the database or for Redis ends at a signal, also that of workers', async () => {
  const { url } = await createDatabase({ migrated: true });
  const port = Number(new URL(url).port);
  const waiting = async (settingsFor: (silent: string) => Environment): Promise<void> => {
    const proxy = await startProxy({ port });
    closers.push(() => proxy.close());
    proxy.mode = 'blackhole';
    const server = start({ SYNC: 'redis', ...settingsFor(`127.0.0.1:${proxy.port}`) });
    await until(() => proxy.accepted > 0);
    // At once: it gives up by itself after a while.
    await endsAtSignal(server);
  };
  await Promise.all([
    waiting((silent) => ({ DATABASE_URL: `postgres://app@${silent}/any`, REDIS_URL: `redis://${silent}` })),
    waiting((silent) => ({ DATABASE_URL: url, REDIS_URL: `redis://${silent}` })),
    waiting((silent) => ({ DATABASE_URL: url, REDIS_URL: `redis://${silent}`, WORKERS: '2' })),
  ]);
}, 120_000);

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(10);
}

test('an embedded database that was starting ends with it', async () => {
  const folder = temporaryFolder('interrupted');
  const server = start({ DATA_DIR: folder });
  const cluster = join(folder, 'postgres');
  await until(() => findPostgres(cluster).length > 0);
  expect(await server.stop('SIGTERM', 60_000)).toBe(0);
  expect(findPostgres(cluster)).toEqual([]);
}, 120_000);
