// What a soak runs on: three nodes with a proxy between them and what they share, and the faults that it suffers. A fault
// resolves when what it broke is whole again; whether the nodes have recovered is for the soak to see.

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Redis } from 'ioredis';
import postgres from 'postgres';
import { temporaryFolder } from '../support/janitor.ts';
import { startNode } from '../support/nodes.ts';
import { startCluster } from '../support/postgres.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';
import { startRedis } from '../support/redis.ts';
import type { Sample } from './slope.ts';

export type Layer = 'redis' | 'postgres';
export const layers: readonly Layer[] = ['redis', 'postgres'];

export interface Fault {
  readonly name: string;
  happen(): Promise<void>;
}

export interface Stage {
  /** Nodes that live now. The first one is never killed: its memory is watched. */
  nodes(): readonly RunningServer[];
  /** Of the first node's heap, so far. */
  heap(): readonly Sample[];
  /** Past every proxy. */
  readonly databaseUrl: string;
  /** In the order in which they happen, again and again. */
  readonly faults: readonly Fault[];
  /** Where messages with these ids stand: in the outbox, parked, in the log. A line for each place and each node's health. */
  autopsy(ids: readonly string[]): Promise<string[]>;
  /** Resolves with the outputs of all nodes that ever lived. */
  close(): Promise<string[]>;
}

const awayMs = 5_000;
const pausedMs = 12_000;
/** Of a start, beside whatever else the machine does. */
const startMs = 120_000;
const startsMax = 5;
const heapWatch = resolve(import.meta.dir, 'heap-watch.ts');

export async function openStage(layer: Layer): Promise<Stage> {
  const cluster = await startCluster();
  const { url: databaseUrl } = await cluster.createDatabase({ migrated: true });
  const toPostgres = await startProxy({ port: cluster.port });
  const redis = layer === 'redis' ? await startRedis({ persist: true }) : undefined;
  const toRedis = redis && (await startProxy({ port: redis.port }));
  const settings: Environment = {
    DATABASE_URL: toPostgres.through(databaseUrl),
    ...(redis && toRedis ? { SYNC: 'redis', REDIS_URL: toRedis.through(redis.url) } : { SYNC: 'postgres' }),
  };
  const heapFile = join(temporaryFolder('heap'), 'samples');
  // Its code is not compiled: what the compiler keeps comes and goes by megabytes with what is called how often, for as long
  // as the machine leaves the node little time. It would be most of what the heap gains or loses.
  const watched: Environment = {
    BUN_OPTIONS: `--preload=${heapWatch}`,
    BUN_JSC_useJIT: '0',
    HEAP_FILE: heapFile,
  };
  const start = async (index: number, port?: number): Promise<RunningServer> => {
    const own = {
      ...settings,
      ...(index === 0 && watched),
      NODE_ID: `node-${index + 1}`,
      ...(port !== undefined && { PORT: String(port) }),
    };
    // As whatever supervises it would: a start that finds the database away for more than ten seconds ends the process.
    for (let attempt = 1; ; attempt++) {
      try {
        return await startNode(own, startMs);
      } catch (error) {
        if (attempt === startsMax) throw error;
        await Bun.sleep(1_000);
      }
    }
  };
  const all = await Promise.all([0, 1, 2].map((index) => start(index)));
  const living = new Set(all);
  const gone: RunningServer[] = [];
  const killNode = async (index: number): Promise<void> => {
    const node = all[index]!;
    living.delete(node);
    gone.push(node);
    await node.kill9();
    await Bun.sleep(awayMs);
    const next = await start(index, node.port);
    all[index] = next;
    living.add(next);
  };
  const pauseNode = async (index: number): Promise<void> => {
    const { pid } = all[index]!;
    process.kill(pid, 'SIGSTOP');
    await Bun.sleep(pausedMs);
    process.kill(pid, 'SIGCONT');
  };
  const awayFrom = async (proxy: typeof toPostgres): Promise<void> => {
    proxy.mode = 'refuse';
    proxy.cut();
    await Bun.sleep(awayMs);
    proxy.mode = 'forward';
  };
  const killPostgres = async (): Promise<void> => {
    await cluster.kill9();
    await Bun.sleep(awayMs);
    await cluster.startServer();
  };
  const killRedis = async (server: NonNullable<typeof redis>): Promise<void> => {
    await server.kill9();
    await Bun.sleep(awayMs);
    await server.start();
  };
  const faults: Fault[] = [
    ...(redis ? [{ name: 'Redis killed -9', happen: () => killRedis(redis) }] : []),
    { name: 'PostgreSQL restarted', happen: () => cluster.restart() },
    { name: 'node 2 killed -9', happen: () => killNode(1) },
    toRedis
      ? { name: 'connections to Redis cut', happen: () => awayFrom(toRedis) }
      : { name: 'connections to PostgreSQL cut', happen: () => awayFrom(toPostgres) },
    { name: 'node 1 paused', happen: () => pauseNode(0) },
    { name: 'node 3 killed -9', happen: () => killNode(2) },
    { name: 'PostgreSQL killed -9', happen: killPostgres },
    { name: 'node 2 paused', happen: () => pauseNode(1) },
  ];
  return {
    nodes: () => [...living],
    heap: () => readSamples(heapFile),
    databaseUrl,
    faults,
    autopsy: async (ids) => [
      ...(await findInDatabase(databaseUrl, ids)),
      ...(redis ? await findInRedis(redis.url, ids) : []),
      ...(await Promise.all([...living].map(healthOf))),
    ],
    close: async () => {
      for (const node of living) process.kill(node.pid, 'SIGCONT');
      await Promise.allSettled([...living].map((node) => node.stop()));
      await Promise.all([toPostgres.close(), toRedis?.close()]);
      await redis?.close();
      await cluster.close();
      return [...gone, ...living].map((node) => node.stdout() + node.stderr());
    },
  };
}

async function findInDatabase(url: string, ids: readonly string[]): Promise<string[]> {
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  try {
    const texts = ids.map((id) => `%"id":"${id}"%`);
    const found = await sql<{ place: string }[]>`
      select format('table: %s written by transaction %s', id, xmin) as place from load_rows where id = any (${[...ids]}::text[])
      union all select format('outbox: %s %s %s %s', xid, lsn, at, left(data, 200)) from realtime.outbox where data like any (${texts}::text[])
      union all select format('log: %s %s %s', channel, "offset", left(data, 200)) from realtime.publications where data like any (${texts}::text[])
      union all select format('parked: %s %s', channel, error) from realtime.parked`;
    const [waiting] = await sql<{ count: number }[]>`select count(*)::int as count from realtime.outbox`;
    return [...found.map(({ place }) => place), `rows in the outbox: ${waiting?.count}`];
  } finally {
    await sql.end();
  }
}

async function findInRedis(url: string, ids: readonly string[]): Promise<string[]> {
  const redis = new Redis(url);
  try {
    const found: string[] = [];
    for (const key of await redis.keys('*')) {
      const type = await redis.type(key);
      if (type === 'hash' && key.includes('{rows:')) found.push(`${key}: ${JSON.stringify(await redis.hgetall(key))}`);
      if (type !== 'stream') continue;
      for (const [place, fields] of await redis.xrange(key, '-', '+'))
        if (ids.some((id) => fields.some((field) => field.includes(`"id":"${id}"`))))
          found.push(`${key} ${place}: ${fields.join(' ')}`);
    }
    return found;
  } finally {
    redis.disconnect();
  }
}

async function healthOf({ url }: RunningServer): Promise<string> {
  const answer = await fetch(`${url}/health/ready`).catch(String);
  return `${url}: ${typeof answer === 'string' ? answer : await answer.text()}`;
}

function readSamples(file: string): Sample[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Sample);
}
