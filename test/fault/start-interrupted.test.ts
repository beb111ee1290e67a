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
  expect(server.stdout()).not.toMatch(/listening on|not handled|not caught|"level":"fatal"/);
}

test.each([undefined, '2'])(
  'a start that waits for the database or for Redis ends at a signal, WORKERS=%p',
  async (WORKERS) => {
    const { url } = await createDatabase({ migrated: true });
    const [database, nowhere] = await Promise.all([
      startProxy({ port: Number(new URL(url).port) }),
      startProxy({ port: Number(new URL(url).port) }),
    ]);
    closers.push(() => database.close());
    closers.push(() => nowhere.close());
    nowhere.mode = 'blackhole';
    const [silent, away] = [nowhere, database].map((proxy) =>
      start({
        WORKERS,
        SYNC: 'redis',
        DATABASE_URL: proxy.through(url),
        REDIS_URL: `redis://127.0.0.1:${nowhere.port}`,
      }),
    ) as [RunningProcess, RunningProcess];
    await until(() => nowhere.accepted > 0);
    await away.waitForOutput(/database is up to date/, 60_000);
    await Promise.all([endsAtSignal(silent), endsAtSignal(away)]);
    await until(() => database.open === 0);
  },
  120_000,
);

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
  // The next one finds all in order.
  const next = start({ DATA_DIR: folder });
  await next.waitForOutput(/listening on/, 60_000);
  expect(await next.stop('SIGTERM', 60_000)).toBe(0);
}, 180_000);
