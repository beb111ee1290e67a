// A real redis-server of the tests' own, on a free port, with nothing kept on disk. Ends with the test process.

import { Redis } from 'ioredis';
import { readFileSync } from 'node:fs';
import { endAfterTests, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';
import type { TestCertificates } from './redis-certificates.ts';

/** Another version's, or another program that is one, such as Valkey. */
export const redisBinary = process.env['SOBRANIE_TEST_REDIS_BIN'] ?? 'redis-server';

/** Programs built for a test are often built without it. */
export const redisHasTls = redisBinary === 'redis-server';

export interface TestRedis {
  readonly url: string;
  readonly port: number;
  /** A client that administers; closed with the server. */
  readonly admin: Redis;
  readonly pid: () => number;
  start(): Promise<void>;
  /** SIGKILL; resolves when the process is gone. Data is lost, unless `persist` was asked for. */
  kill9(): Promise<void>;
  /** Ends it in order and starts it anew on what it has kept. */
  restart(): Promise<void>;
  /** SIGSTOP: connections stand, and nobody answers. */
  pause(): void;
  resume(): void;
  close(): Promise<void>;
}

export interface TestRedisOptions {
  /** Keeps an append-only file, so that data outlives a restart. */
  readonly persist?: boolean;
  /** Speaks TLS alone. */
  readonly tls?: TestCertificates;
  readonly args?: readonly string[];
}

export async function startRedis({ persist = false, tls, args = [] }: TestRedisOptions = {}): Promise<TestRedis> {
  const port = await freePort();
  const folder = await temporaryFolder('redis');
  const url = `${tls === undefined ? 'redis' : 'rediss'}://127.0.0.1:${port}`;
  let child: Bun.Subprocess | undefined;
  const admin = new Redis(url, {
    lazyConnect: true,
    retryStrategy: () => 20,
    maxRetriesPerRequest: null,
    ...(tls === undefined ? {} : { tls: { ca: readFileSync(tls.authority) } }),
  });
  admin.on('error', () => undefined);

  const start = async (): Promise<void> => {
    const durability = persist
      ? ['--appendonly', 'yes', '--appendfsync', 'always']
      : ['--save', '', '--appendonly', 'no'];
    const listen = tls === undefined ? ['--port', String(port)] : ['--port', '0', ...tlsArguments(port, tls)];
    const command = [redisBinary, ...listen, '--bind', '127.0.0.1', '--dir', folder, ...durability, ...args];
    child = Bun.spawn(command, { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' });
    endAfterTests(child);
    if (admin.status === 'wait') await admin.connect().catch(() => undefined);
    await admin.ping();
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    child?.kill(signal);
    await child?.exited;
    child = undefined;
  };
  await start();
  return {
    url,
    port,
    admin,
    pid: () => child?.pid ?? 0,
    start,
    kill9: () => end('SIGKILL'),
    restart: async () => {
      await end('SIGTERM');
      await start();
    },
    pause: () => child?.kill('SIGSTOP'),
    resume: () => child?.kill('SIGCONT'),
    close: async () => {
      admin.disconnect();
      // A stopped process takes no signal but this one, which needs no waking.
      await end('SIGKILL');
    },
  };
}

/** For a server, or a line each for a Sentinel, that speaks TLS alone, with its own kind as well. */
export function tlsArguments(port: number, { authority, certificate, key }: TestCertificates): string[] {
  const files = ['--tls-cert-file', certificate, '--tls-key-file', key, '--tls-ca-cert-file', authority];
  return ['--tls-port', String(port), '--tls-auth-clients', 'no', '--tls-replication', 'yes', ...files];
}
