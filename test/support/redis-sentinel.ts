// A real Redis with two replicas, watched by three Sentinels, all on loopback and with nothing kept on disk. The name of
// the master is `main`. Ends with the test process.

import { Redis } from 'ioredis';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { endAfterTests, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';
import type { TestCertificates } from './redis-certificates.ts';
import { redisBinary, tlsArguments } from './redis.ts';
import { until } from './tcp-client.ts';

export interface TestSentinels {
  /** Of all Sentinels. */
  readonly url: string;
  /** The port of the master, as the Sentinels have it. */
  master(): Promise<number>;
  /** Whether all Sentinels see a living replica that could take over. */
  hasReplica(): Promise<boolean>;
  /** SIGKILL; resolves when the process is gone. */
  kill9(port: number): Promise<void>;
  /** SIGSTOP: connections stand, and nobody answers. */
  pause(port: number): void;
  resume(): void;
  /** Starts one that was killed. It comes back as what it was, until Sentinels tell it otherwise. */
  start(port: number): void;
  close(): Promise<void>;
}

export interface TestSentinelsOptions {
  /** Of the servers. */
  readonly password?: string;
  /** Of the Sentinels themselves. */
  readonly sentinelPassword?: string;
  /** All of them speak TLS alone. */
  readonly tls?: TestCertificates;
}

const downAfterMs = 1_000;

export async function startSentinels(options: TestSentinelsOptions = {}): Promise<TestSentinels> {
  const { password, sentinelPassword, tls } = options;
  const secure = tls === undefined ? {} : { tls: { ca: readFileSync(tls.authority) } };
  const ports = await freePorts(6);
  const [master = 0, ...replicas] = ports.slice(0, 3);
  const sentinels = ports.slice(3);
  const running = new Map<number, Bun.Subprocess>();

  const start = (port: number): void => {
    const role = replicas.includes(port) ? ['--replicaof', '127.0.0.1', String(master)] : [];
    const secured = password === undefined ? [] : ['--requirepass', password, '--masterauth', password];
    const kept = ['--save', '', '--appendonly', 'no', '--repl-diskless-sync-delay', '0'];
    running.set(port, run([redisBinary, ...listenOn(port, tls), ...localhost('redis'), ...kept, ...role, ...secured]));
  };
  start(master);
  for (const port of replicas) start(port);
  const server = new Redis(master, '127.0.0.1', {
    ...secure,
    ...(password === undefined ? {} : { password }),
    retryStrategy: () => 20,
    maxRetriesPerRequest: null,
  });
  server.on('error', () => undefined);
  const inSync = async (): Promise<boolean> => {
    const states = (await server.info('replication')).match(/state=online/g) ?? [];
    return states.length === replicas.length;
  };
  await until(inSync, 'the replicas have what the master has', 20_000);
  server.disconnect();

  for (const port of sentinels) {
    const folder = temporaryFolder('sentinel');
    // A Sentinel writes what it learns into its configuration.
    const file = join(folder, 'sentinel.conf');
    const lines = [
      ...pairsOf(listenOn(port, tls)),
      'bind 127.0.0.1',
      `dir ${folder}`,
      `sentinel monitor main 127.0.0.1 ${master} 2`,
      `sentinel down-after-milliseconds main ${downAfterMs}`,
      'sentinel failover-timeout main 5000',
      ...(password === undefined ? [] : [`sentinel auth-pass main ${password}`]),
      ...(sentinelPassword === undefined ? [] : [`requirepass ${sentinelPassword}`]),
    ];
    await Bun.write(file, `${lines.join('\n')}\n`);
    running.set(port, run([redisBinary, file, '--sentinel']));
  }
  const watchers = sentinels.map((port) => {
    const watcher = new Redis(port, '127.0.0.1', {
      ...secure,
      ...(sentinelPassword === undefined ? {} : { password: sentinelPassword }),
      retryStrategy: () => 20,
      maxRetriesPerRequest: null,
      enableReadyCheck: false,
    });
    watcher.on('error', () => undefined);
    return watcher;
  });
  // A failover needs to be agreed on, and somebody to be promoted.
  const knowEachOther = async (): Promise<boolean> => {
    const known = await Promise.all(
      watchers.map(async (watcher) => factsOf((await watcher.call('SENTINEL', 'MASTER', 'main')) as string[])),
    );
    return known.every(
      (facts) => facts.get('num-other-sentinels') === '2' && facts.get('num-slaves') === String(replicas.length),
    );
  };
  await until(knowEachOther, 'the Sentinels know each other', 30_000);

  const account = password === undefined ? '' : `:${password}@`;
  const query = sentinelPassword === undefined ? '' : `?sentinelPassword=${sentinelPassword}`;
  return {
    url: `${tls === undefined ? 'redis' : 'rediss'}+sentinel://${account}${sentinels.map((port) => `127.0.0.1:${port}`).join(',')}/main${query}`,
    master: async () => {
      const address = (await watchers[0]?.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'main')) as string[];
      return Number(address[1]);
    },
    hasReplica: async () => {
      const replicas = await Promise.all(
        watchers.map(async (watcher) => (await watcher.call('SENTINEL', 'REPLICAS', 'main')) as string[][]),
      );
      return replicas.every((list) => list.some((reply) => isInSync(factsOf(reply))));
    },
    kill9: async (port) => {
      running.get(port)?.kill('SIGKILL');
      await running.get(port)?.exited;
    },
    pause: (port) => running.get(port)?.kill('SIGSTOP'),
    resume: () => {
      for (const child of running.values()) child.kill('SIGCONT');
    },
    start,
    close: async () => {
      for (const watcher of watchers) watcher.disconnect();
      for (const child of running.values()) child.kill('SIGKILL');
      await Promise.all([...running.values()].map(({ exited }) => exited));
    },
  };
}

async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) ports.add(await freePort());
  return [...ports];
}

function listenOn(port: number, tls: TestCertificates | undefined): string[] {
  return tls === undefined ? ['--port', String(port)] : ['--port', '0', ...tlsArguments(port, tls)];
}

/** Arguments as the lines of a configuration. */
function pairsOf(args: readonly string[]): string[] {
  return args.flatMap((name, index) => (index % 2 === 0 ? [`${name.slice(2)} ${args[index + 1] ?? ''}`] : []));
}

function localhost(purpose: string): string[] {
  return ['--bind', '127.0.0.1', '--dir', temporaryFolder(purpose)];
}

function run(command: string[]): Bun.Subprocess {
  const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' });
  endAfterTests(child);
  return child;
}

function isInSync(facts: Map<string, string>): boolean {
  return facts.get('flags') === 'slave' && facts.get('master-link-status') === 'ok';
}

/** From the flat list in which names and values follow each other; RESP3 gives the same as a map already flattened. */
function factsOf(reply: readonly string[]): Map<string, string> {
  const facts = new Map<string, string>();
  for (let index = 0; index + 1 < reply.length; index += 2) facts.set(reply[index] ?? '', reply[index + 1] ?? '');
  return facts;
}
