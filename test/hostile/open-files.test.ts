// The limit on open files, and an attacker who opens connections and sends nothing. At the limit the runtime tried to
// take the next connection again and again: one core did nothing else, and nobody got in for 20 s.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { WebSocketClient } from '../support/clients.ts';
import { createDatabase, freePort } from '../support/postgres.ts';
import { spawnShell, type RunningProcess } from '../support/process.ts';
import { TcpClient, until } from '../support/tcp-client.ts';
import { patient } from '../support/patience.ts';

patient();

const limit = 400;
let port: number;
let url: string;
let server: RunningProcess;

beforeAll(async () => {
  port = await freePort();
  url = `http://127.0.0.1:${port}`;
  server = spawnShell(`ulimit -n ${limit}; exec bun src/main.ts`, {
    SYNC: 'memory',
    DATABASE_URL: (await createDatabase({ migrated: true })).url,
    PORT: String(port),
    SHUTDOWN_TIMEOUT: '0',
    BROADCAST_INTERVAL: '0',
    LOG_FORMAT: 'json',
  });
  await server.waitForOutput(/listening on/, 30_000);
}, 60_000);
afterAll(async () => {
  expect(await server.stop()).toBe(0);
}, 60_000);

/** Milliseconds of processor time that the server has used; the kernel counts in hundredths of a second. */
function processorMs(): number {
  const fields = readFileSync(`/proc/${server.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

test('the start tells that the limit has no room for MAX_CONNECTIONS, and lowers it', async () => {
  const [, lowered] = await server.waitForOutput(/"maxConnections":15000,"lowered":(\d+)/);
  expect(Number(lowered)).toBeGreaterThan(100);
  expect(Number(lowered)).toBeLessThan(limit - 100);
});

test('800 silent connections: the server stops listening in time, idles, serves on, and listens again', async () => {
  const socket = await WebSocketClient.open(url);
  await socket.next('welcome');
  const silent = await Promise.allSettled(Array.from({ length: 800 }, () => TcpClient.connect(url)));
  await server.waitForOutput(/open files are running out/, 5_000);
  const [before, startedAt] = [processorMs(), performance.now()];
  await until(() => performance.now() - startedAt > 2_000, 'two seconds');
  expect(processorMs() - before).toBeLessThan(500);
  await socket.request({ type: 'subscribe', channel: 'a' });
  expect(await socket.request({ type: 'publish', channel: 'a', data: 1 })).toMatchObject({ type: 'published' });
  // Refused at once, and not left waiting: a proxy tries another node.
  await expect(TcpClient.connect(url)).rejects.toThrow();
  // A connection without a request is cut after 12 s.
  await server.waitForOutput(/new connections are accepted again/, 30_000);
  expect((await fetch(`${url}/health/ready`)).status).toBe(200);
  expect(await socket.request({ type: 'ping' })).toMatchObject({ type: 'pong' });
  for (const outcome of silent) if (outcome.status === 'fulfilled') outcome.value.cut();
  await socket.close();
}, 60_000);
