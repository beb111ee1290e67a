// What membership in a channel's presence adds to an idle WebSocket. The same connections subscribe with presence and
// without, to two fresh servers at the same time. All figures are of a server that has collected its garbage, and are the
// growth from the first 8,000 connections on. What is paid once is left out so: compiled code, arenas, and above all the
// room that garbage takes until it is collected. That is some 30 MB, however many are connected. Those that stay are spread
// over it, so it is not given back, but the next ones fill it.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { oursEventsRecoverable, oursRecoverable, startOurs } from './contenders.ts';
import { buildLoadClient } from './load-client.ts';
import type { BenchOptions } from './options.ts';
import { until } from './postgres.ts';
import { BenchError, endWithBench, repositoryRoot, type ServerProcess } from './server-process.ts';
import { median, printTable, ratio, ratios } from './table.ts';

/** In bytes. */
export interface HeldMemory {
  readonly rss: number;
  /** Living objects. */
  readonly heap: number;
  /** What the heap has taken for them from the system. */
  readonly heapCapacity: number;
  /** Buffers and long texts that living objects hold. */
  readonly extra: number;
}

/** kB per connection. */
export interface PerConnection {
  readonly resident: number;
  readonly heap: number;
  /** Resident, and not of the heap: sockets, topics, buffers. */
  readonly outside: number;
}

/** As many as make the server collect garbage. Streams take more, and take longer to open. */
const warmConnections = { websocket: 8_000, events: 4_000 };
/** Pairs of each size of room. */
const roundsOf = new Map([
  [10, 3],
  [2, 2],
  [1, 2],
]);
/** Of a machine that does much else, too. */
const connectSeconds = 600;

export async function memberMemory({ quick }: BenchOptions): Promise<void> {
  const connections = quick ? 4_000 : 10_000;
  const rows: string[][] = [];
  for (const [roomSize, rounds] of quick ? [[10, 1] as const] : roundsOf) {
    const added: PerConnection[] = [];
    const room = { root: repositoryRoot, transport: 'websocket', connections, roomSize } as const;
    for (let round = 0; round < rounds; round++) {
      const [without, present] = await Promise.all([
        heldMemory({ ...room, isPresent: false }),
        heldMemory({ ...room, isPresent: true }),
      ]);
      added.push({
        resident: present.resident - without.resident,
        heap: present.heap - without.heap,
        outside: present.outside - without.outside,
      });
    }
    const columns = (['resident', 'heap', 'outside'] as const).map((name) => added.map((each) => each[name]));
    rows.push([
      roomSize === 1 ? 'each in a room of its own' : `in rooms of ${roomSize}`,
      ...columns.map((values) => ratio(median(values))),
      ratios(columns[0] ?? []),
    ]);
  }
  printTable(
    `What presence adds to each of ${connections.toLocaleString('en')} idle WebSockets, kB, medians of pairs`,
    ['', 'resident', 'of it living objects', 'outside the heap', 'resident, each pair'],
    rows,
  );
}

export interface HeldCase {
  /** The checkout whose server it is. */
  readonly root: string;
  readonly transport: 'websocket' | 'events';
  readonly connections: number;
  /** So many subscribe to one channel. Streams subscribe to one of their own kind, all of them. */
  readonly roomSize: number;
  readonly isPresent: boolean;
}

/** What an idle connection takes of a fresh server that has collected its garbage. */
export async function heldMemory(given: HeldCase): Promise<PerConnection> {
  const { root, connections } = given;
  const warm = warmConnections[given.transport];
  const directory = await mkdtemp(join(tmpdir(), 'sobranie-bench-probe-'));
  const unix = join(directory, 'probe');
  const flags = ['--preload', join(repositoryRoot, 'bench/memory-probe.ts')];
  const server = await startOurs({ SYNC: 'memory', ROLE: 'ws,sse,api', MEMORY_PROBE: unix }, { root, flags });
  const clients: Bun.Subprocess[] = [];
  const open = async (kind: string, count: number): Promise<HeldMemory> => {
    clients.push(await startSubscribers(server, given, kind, count));
    const all = kind === 'warm' ? count : warm + count;
    await until(`${all} are subscribed`, connectSeconds, async () => {
      if (clients.some(({ exitCode }) => exitCode !== null)) throw new BenchError('a load client ended');
      // What the metrics cost would be the server's garbage as well.
      await Bun.sleep(100);
      return (await subscriptions(server)) === all;
    });
    let held: HeldMemory | undefined;
    await until('the server has collected its garbage', connectSeconds, async () => {
      const response = await fetch('http://probe/', { unix });
      if (response.status === 200) held = (await response.json()) as HeldMemory;
      else await Bun.sleep(200);
      return held !== undefined;
    });
    if (held === undefined) throw new BenchError('the server did not say what it holds');
    return held;
  };
  try {
    const before = await open('warm', warm);
    const after = await open('room', connections);
    const perConnection = (bytes: (held: HeldMemory) => number): number =>
      (bytes(after) - bytes(before)) / connections / 1_024;
    return {
      resident: perConnection(({ rss }) => rss),
      heap: perConnection(({ heap, extra }) => heap + extra),
      outside: perConnection(({ rss, heapCapacity }) => rss - heapCapacity),
    };
  } finally {
    for (const client of clients) client.kill('SIGKILL');
    await Promise.all(clients.map(({ exited }) => exited));
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

async function startSubscribers(
  { port }: ServerProcess,
  { transport, roomSize, isPresent }: HeldCase,
  kind: string,
  count: number,
): Promise<Bun.Subprocess> {
  const { path, ready } = transport === 'events' ? oursEventsRecoverable : oursRecoverable;
  const channel = `${kind}:@@00000000`;
  const hello = JSON.stringify({ type: 'subscribe', channel, id: 1, ...(isPresent ? { presence: true } : {}) });
  const child = Bun.spawn(
    [
      await buildLoadClient(),
      ...['--port', port, '--path', path, '--connections', count, '--spread', roomSize].map(String),
      ...['--hello', hello, '--ready', ready, '--seconds', '0', '--settle', '3600'],
      ...(transport === 'events' ? ['--events'] : []),
    ],
    { stdin: 'ignore', stdout: 'ignore', stderr: 'inherit' },
  );
  endWithBench(child);
  return child;
}

async function subscriptions({ port }: ServerProcess): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${port}/metrics`);
  return Number(/^sobranie_subscriptions_active(?:\{[^}]*\})? (\d+)$/m.exec(await response.text())?.[1]);
}
