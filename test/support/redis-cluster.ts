// A real Redis Cluster of three masters on loopback, with nothing kept on disk. Ends with the test process.

import { endAfterTests, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';
import type { TestCertificates } from './redis-certificates.ts';
import { redisBinary, tlsArguments } from './redis.ts';
import { until } from './tcp-client.ts';

export interface TestRedisCluster {
  /** Leads to the first node. */
  readonly url: string;
  /** The masters first, as they were created. */
  readonly ports: readonly number[];
  /** SIGKILL; resolves when the process is gone. */
  kill9(port: number): Promise<void>;
  /** The port of the master that serves this key; undefined while none does. */
  masterOf(key: string): number | undefined;
  /** Moves the slot of this key to another master; `half` is called when all that is in it is there, and it is not. */
  moveSlot(key: string, half?: () => Promise<void>): Promise<void>;
  /** Moves so many slots of one master to another, as its operator does. */
  reshard(slots: number): Promise<void>;
  close(): Promise<void>;
}

export interface TestRedisClusterOptions {
  /** Of each master. */
  readonly replicas?: number;
  /** All of them speak TLS alone. */
  readonly tls?: TestCertificates;
}

const masters = 3;

export async function startRedisCluster(options: TestRedisClusterOptions = {}): Promise<TestRedisCluster> {
  const { replicas = 0, tls } = options;
  const asking = tls === undefined ? [] : ['--tls', '--cacert', tls.authority];
  const ask = (port: number, ...command: readonly string[]): string =>
    Bun.spawnSync(['redis-cli', ...asking, '-p', String(port), ...command], { timeout: 20_000 })
      .stdout.toString()
      .trim();
  const ports: number[] = [];
  while (ports.length < masters * (1 + replicas)) ports.push(await clusterPort(ports));
  const nodes = new Map(ports.map((port) => [port, startNode(port, tls)]));
  for (const port of ports) await untilMatches(() => ask(port, 'PING'), /PONG/);
  const addresses = ports.map((port) => `127.0.0.1:${port}`);
  await manage(asking, 'create', ...addresses, '--cluster-replicas', String(replicas), '--cluster-yes');
  for (const port of ports) await untilMatches(() => ask(port, 'CLUSTER', 'INFO'), /cluster_state:ok/);
  // A replica that has not had everything once is no candidate when its master dies.
  for (const port of ports.slice(masters))
    await untilMatches(() => ask(port, 'INFO', 'replication'), /master_link_status:up/);
  const listed = (): readonly ClusterMaster[] => mastersIn(ask([...nodes.keys()][0] ?? 0, 'CLUSTER', 'NODES'));
  const masterOfSlot = (slot: number): ClusterMaster | undefined =>
    listed().find(({ stretches }) => stretches.some(([from, to]) => slot >= from && slot <= to));
  const slotOf = (key: string): number => Number(ask([...nodes.keys()][0] ?? 0, 'CLUSTER', 'KEYSLOT', key));
  const another = (than: ClusterMaster): ClusterMaster => {
    const found = listed().find(({ id, stretches }) => id !== than.id && stretches.length > 0);
    if (found === undefined) throw new Error('there is no other master');
    return found;
  };
  return {
    url: `${tls === undefined ? 'redis' : 'rediss'}://127.0.0.1:${ports[0] ?? 0}`,
    ports,
    kill9: async (port) => {
      const node = nodes.get(port);
      nodes.delete(port);
      node?.kill('SIGKILL');
      await node?.exited;
    },
    masterOf: (key) => masterOfSlot(slotOf(key))?.port,
    moveSlot: async (key, half) => {
      const slot = String(slotOf(key));
      const from = masterOfSlot(Number(slot));
      if (from === undefined) throw new Error(`no master serves slot ${slot}`);
      const to = another(from);
      ask(to.port, 'CLUSTER', 'SETSLOT', slot, 'IMPORTING', from.id);
      ask(from.port, 'CLUSTER', 'SETSLOT', slot, 'MIGRATING', to.id);
      for (;;) {
        const keys = ask(from.port, 'CLUSTER', 'GETKEYSINSLOT', slot, '100')
          .split('\n')
          .filter((name) => name !== '');
        if (keys.length === 0) break;
        ask(from.port, 'MIGRATE', '127.0.0.1', String(to.port), '', '0', '5000', 'KEYS', ...keys);
      }
      await half?.();
      for (const { port } of [to, from]) ask(port, 'CLUSTER', 'SETSLOT', slot, 'NODE', to.id);
    },
    reshard: async (slots) => {
      const [from] = listed();
      if (from === undefined) throw new Error('there is no master');
      const way = ['--cluster-from', from.id, '--cluster-to', another(from).id, '--cluster-slots', String(slots)];
      await manage(asking, 'reshard', `127.0.0.1:${from.port}`, ...way, '--cluster-yes');
    },
    close: async () => {
      for (const node of nodes.values()) node.kill('SIGKILL');
      await Promise.all([...nodes.values()].map(({ exited }) => exited));
    },
  };
}

interface ClusterMaster {
  readonly id: string;
  readonly port: number;
  readonly stretches: readonly (readonly [from: number, to: number])[];
}

/** Those that live, in the answer to CLUSTER NODES. */
function mastersIn(text: string): ClusterMaster[] {
  return text.split('\n').flatMap((line) => {
    const [id = '', address = '', flags = '', , , , , , ...rest] = line.trim().split(' ');
    if (!flags.includes('master') || flags.includes('fail')) return [];
    const stretches = rest
      .filter((part) => !part.startsWith('['))
      .map((part) => part.split('-').map(Number))
      .map(([from = 0, to = from]) => [from, to] as const);
    return [{ id, port: Number(/:(\d+)@/.exec(address)?.[1]), stretches }];
  });
}

function startNode(port: number, tls: TestCertificates | undefined): Bun.Subprocess {
  const way =
    tls === undefined ? ['--port', String(port)] : ['--port', '0', ...tlsArguments(port, tls), '--tls-cluster', 'yes'];
  const listen = [...way, '--bind', '127.0.0.1', '--dir', temporaryFolder('redis-cluster')];
  const cluster = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000'];
  const nothingKept = ['--save', '', '--appendonly', 'no', '--repl-diskless-sync-delay', '0'];
  const child = Bun.spawn([redisBinary, ...listen, ...cluster, ...nothingKept], {
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'ignore',
  });
  endAfterTests(child);
  return child;
}

/** One that leaves room for the bus that nodes talk over, at 10,000 above. */
async function clusterPort(taken: readonly number[]): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (port <= 55_535 && !taken.includes(port) && (await isFree(port + 10_000))) return port;
  }
}

async function isFree(port: number): Promise<boolean> {
  try {
    const listener = Bun.listen({ hostname: '127.0.0.1', port, socket: { data: () => undefined } });
    listener.stop(true);
    return true;
  } catch {
    return false;
  }
}

async function manage(asking: readonly string[], ...args: readonly string[]): Promise<void> {
  const command = ['redis-cli', ...asking, '--cluster', ...args];
  const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'pipe', stderr: 'ignore' });
  endAfterTests(child);
  const [printed, code] = await Promise.all([child.stdout.text(), child.exited]);
  if (code !== 0) throw new Error(`redis-cli --cluster ${args[0] ?? ''} failed:\n${printed}`);
}

async function untilMatches(answer: () => string, pattern: RegExp): Promise<void> {
  await until(() => pattern.test(answer()), `a node of the cluster answers ${pattern}`, 20_000);
}
