// A real Redis Cluster of three masters on loopback, with nothing kept on disk. Ends with the test process.

import { endAfterTests, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';

export interface TestRedisCluster {
  /** Leads to the first node. */
  readonly url: string;
  readonly ports: readonly number[];
  close(): Promise<void>;
}

export async function startRedisCluster(): Promise<TestRedisCluster> {
  const ports = await Promise.all([freePort(), freePort(), freePort()]);
  const nodes = await Promise.all(
    ports.map(async (port) => {
      const bus = await freePort();
      const folder = temporaryFolder('redis-cluster');
      const listen = ['--port', String(port), '--cluster-port', String(bus), '--bind', '127.0.0.1', '--dir', folder];
      const cluster = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000'];
      const nothingKept = ['--save', '', '--appendonly', 'no'];
      const child = Bun.spawn(['redis-server', ...listen, ...cluster, ...nothingKept], {
        stdin: 'ignore',
        stdout: 'ignore',
        stderr: 'ignore',
      });
      endAfterTests(child);
      return child;
    }),
  );
  for (const port of ports) await untilAnswered(port, ['PING'], /PONG/);
  const addresses = ports.map((port) => `127.0.0.1:${port}`);
  const created = cli(['--cluster', 'create', ...addresses, '--cluster-yes']);
  if (!/All 16384 slots covered/.test(created)) throw new Error(`no cluster was created:\n${created}`);
  for (const port of ports) await untilAnswered(port, ['CLUSTER', 'INFO'], /cluster_state:ok/);
  return {
    url: `redis://127.0.0.1:${ports[0] ?? 0}`,
    ports,
    close: async () => {
      for (const node of nodes) node.kill('SIGKILL');
      await Promise.all(nodes.map(({ exited }) => exited));
    },
  };
}

function cli(args: readonly string[]): string {
  return Bun.spawnSync(['redis-cli', ...args], { timeout: 20_000 }).stdout.toString();
}

async function untilAnswered(port: number, command: readonly string[], pattern: RegExp): Promise<void> {
  const deadline = performance.now() + 15_000;
  while (!pattern.test(cli(['-p', String(port), ...command]))) {
    if (performance.now() > deadline) throw new Error(`the Redis on port ${port} is not ready in time`);
    await Bun.sleep(50);
  }
}
