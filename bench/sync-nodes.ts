// What the sync benches run on: a redis-server of the bench's own, and two of our nodes over one sync layer.
import { Redis } from 'ioredis';
import { startOurs } from './contenders.ts';
import { BenchError, endWithBench, freePort, type ServerProcess } from './server-process.ts';
import { until } from './postgres.ts';

export interface BenchRedis {
  readonly url: string;
  readonly pid: number;
  close(): Promise<void>;
}

export type Nodes = readonly [a: ServerProcess, b: ServerProcess];

// Nothing is written to disk: what is measured is the way through Redis, for us and for the baselines alike.
export async function startRedis(): Promise<BenchRedis> {
  const command = Bun.which('redis-server');
  if (!command) throw new BenchError('this bench needs redis-server: apt-get install redis-server');
  const port = String(await freePort());
  const url = `redis://127.0.0.1:${port}`;
  const child = Bun.spawn(
    [command, '--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--daemonize', 'no'],
    { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' },
  );
  endWithBench(child);
  const close = async (): Promise<void> => {
    child.kill('SIGKILL');
    await child.exited;
  };
  const client = new Redis(url, { retryStrategy: () => 50, maxRetriesPerRequest: null });
  // Refused connections before it listens are expected; that it never does is told by the time limit.
  client.on('error', () => undefined);
  try {
    await until('redis-server answers', 10, () => client.status === 'ready');
    return { url, pid: child.pid, close };
  } catch (error) {
    await close();
    throw error;
  } finally {
    client.disconnect();
  }
}

// The first one is up, and relays if anyone does, before the second one starts.
export async function startNodes(env: Record<string, string>): Promise<Nodes> {
  const a = await startOurs(env);
  try {
    if (['postgres', 'rabbitmq', 'kafka'].includes(env['SYNC'] ?? ''))
      await until('node A relays', 15, () => relays(a));
    return [a, await startOurs(env)];
  } catch (error) {
    await a.stop();
    throw error;
  }
}

export async function relays(node: ServerProcess): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${node.port}/metrics`);
  return /^sobranie_relay_leader(\{[^}]*\})? 1$/m.test(await response.text());
}

export async function stopNodes(nodes: Nodes): Promise<void> {
  await Promise.all(nodes.map((node) => node.stop()));
}
