// Presence: how long until all members of a channel have seen who joined, how long a list of them takes beside Socket.IO's
// `fetchSockets`, and what idle members cost what the nodes share. What they cost in memory is `bench memory`.
import { Redis } from 'ioredis';
import { join } from 'node:path';
import { oursInMemory, startOurs } from './contenders.ts';
import { buildLoadClient } from './load-client.ts';
import type { BenchOptions } from './options.ts';
import { startDatabase, until } from './postgres.ts';
import { BenchError, endWithBench, repositoryRoot, startServer, type ServerProcess } from './server-process.ts';
import { startNodes, startRedis, stopNodes, type Nodes } from './sync-nodes.ts';
import { percentile, printTable, ratio } from './table.ts';

const channel = 'bench';
const apiKey = 'bench';
const enter = (presence: unknown, to = channel): string =>
  JSON.stringify({ type: 'subscribe', id: 1, channel: to, presence });

interface Joins {
  readonly members: number;
  readonly joins: number;
  readonly expected: number;
  readonly seen: number;
  readonly repeated: number;
  readonly errors: number;
  readonly closed: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly serverCpuSeconds: number;
  readonly seconds: number;
}

export async function presence(options: BenchOptions): Promise<void> {
  if (!options.baselinesOnly) await seen(options);
  await lists(options);
  if (!options.baselinesOnly) await idle(options);
}

// Joins, seen by all

async function seen({ quick }: BenchOptions): Promise<void> {
  const rows: string[][] = [];
  const measure = async (name: string, members: number, nodes: readonly ServerProcess[]): Promise<void> => {
    const joins = await join200(members, quick ? 2 : 10, nodes);
    const { p50Ms, p99Ms, maxMs, serverCpuSeconds, seconds } = joins;
    const times = [p50Ms, p99Ms, maxMs].map((value) => value.toFixed(1));
    rows.push([name, String(members), ...times, ratio(serverCpuSeconds / seconds)]);
  };
  for (const members of quick ? [1_000] : [200, 1_000, 5_000]) {
    const server = await oursInMemory.start();
    try {
      await measure('one process', members, [server]);
    } finally {
      await server.stop();
    }
  }
  const redis = await startRedis();
  const database = await startDatabase();
  try {
    for (const [name, env] of [
      ['two nodes over Redis', { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: database.url }],
      ['two nodes over PostgreSQL', { SYNC: 'postgres', DATABASE_URL: database.url }],
    ] as const) {
      const nodes = await startNodes({ ...env, ROLE: 'ws,api,relay' });
      try {
        await measure(name, 1_000, nodes);
      } finally {
        await stopNodes(nodes);
      }
    }
  } finally {
    await Promise.all([redis.close(), database.close()]);
  }
  printTable(
    '200 joins a second, each seen by all members of the channel',
    ['', 'members', 'p50 ms', 'p99 ms', 'max ms', 'CPUs of the servers'],
    rows,
  );
}

async function join200(members: number, seconds: number, [server, peer]: readonly ServerProcess[]): Promise<Joins> {
  if (server === undefined) throw new BenchError('there is no server');
  const path = '/realtime/ws';
  const child = await startClient('presence', [
    ...['--port', server.port, '--pid', server.pid, '--path', path, '--connections', members],
    ...(peer === undefined ? [] : ['--peer-port', peer.port, '--peer-pid', peer.pid]),
    ...['--hello', enter(true), '--ready', '"type":"subscribed"', '--settle', 1],
    ...['--publish-path', path, '--publish', enter({ mark: '@@00000000' }), '--rate', 200, '--seconds', seconds],
  ]);
  const [text, complaint, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new BenchError(`the load client ended with ${code}: ${complaint.trim()}`);
  const joins = JSON.parse(text.trim().split('\n').at(-1) ?? '') as Joins;
  if (joins.seen !== joins.expected || joins.repeated + joins.errors + joins.closed > 0) {
    throw new BenchError(`the counts do not come out: ${text} ${complaint}`);
  }
  return joins;
}

// Lists

async function lists({ quick, baselinesOnly }: BenchOptions): Promise<void> {
  const members = quick ? 1_000 : 5_000;
  const redis = await startRedis();
  const database = await startDatabase();
  const rows: string[][] = [];
  const settings = { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: database.url, ROLE: 'ws,api', API_KEY: apiKey };
  const script = join(repositoryRoot, 'bench/baselines/presence-socketio.mjs');
  const socketIo = (): Promise<ServerProcess> => startServer([Bun.which('node') ?? 'node', script, redis.url]);
  const socketIoPath = '/socket.io/?EIO=4&transport=websocket';
  const contenders: readonly [string, () => Promise<Nodes>, string, string, string][] = [
    ['Socket.IO, fetchSockets', async () => [await socketIo(), await socketIo()], socketIoPath, '40', '/list'],
    ...(baselinesOnly
      ? []
      : ([
          [
            'sobranie, presence',
            () => startNodes(settings),
            '/realtime/ws',
            enter(true),
            `/realtime/channels/${channel}/presence?limit=10000`,
          ],
        ] as [string, () => Promise<Nodes>, string, string, string][])),
  ];
  try {
    for (const [name, start, path, hello, list] of contenders) {
      const nodes = await start();
      try {
        const times = await listTimes(nodes, { members, path, hello, list, count: quick ? 50 : 300 });
        rows.push([name, ...times.map((value) => value.toFixed(1))]);
      } finally {
        await stopNodes(nodes);
      }
    }
  } finally {
    await Promise.all([redis.close(), database.close()]);
  }
  printTable(
    `The whole list of ${members.toLocaleString('en')} members on two nodes, over HTTP`,
    ['', 'p50 ms', 'p99 ms', 'of 50 at once, the last ms'],
    rows,
  );
}

interface ListTimes {
  readonly members: number;
  readonly path: string;
  readonly hello: string;
  readonly list: string;
  readonly count: number;
}

async function listTimes([here, there]: Nodes, { members, path, hello, list, count }: ListTimes): Promise<number[]> {
  const url = `http://127.0.0.1:${there.port}${list}`;
  const ask = async (): Promise<number> => {
    const response = await fetch(url, { headers: { authorization: `Bearer ${apiKey}` } });
    const text = await response.text();
    return response.ok ? (JSON.parse(text) as { count: number }).count : -1;
  };
  const child = await startClient('load', [
    ...['--port', here.port, '--peer-port', there.port, '--connections', members, '--path', path, '--hello', hello],
    ...['--ready', 'subscribed', '--seconds', 0, '--settle', 120],
  ]);
  try {
    await until(`${members} members are listed`, 60, async () => (await ask()) === members);
    const times: number[] = [];
    for (let index = 0; index < count; index++) {
      const begun = performance.now();
      await ask();
      times.push(performance.now() - begun);
    }
    const begun = performance.now();
    await Promise.all(Array.from({ length: 50 }, ask));
    return [percentile(times, 0.5), percentile(times, 0.99), performance.now() - begun];
  } finally {
    child.kill('SIGKILL');
    await child.exited;
  }
}

// Idle members

async function idle({ quick }: BenchOptions): Promise<void> {
  const members = quick ? 500 : 2_000;
  const seconds = quick ? 10 : 30;
  const rows: string[][] = [];
  const redis = await startRedis();
  const database = await startDatabase();
  const admin = new Redis(redis.url);
  const commands = async (): Promise<number> => {
    const info = await admin.info('commandstats');
    // What scripts call counts too. The channels keep no history, of which each node looks at some heads.
    const calls = Array.from(info.matchAll(/cmdstat_(evalsha|get|mget|set|hmget|hget|sadd|srem)[^:]*:calls=(\d+)/g));
    return calls.reduce((sum, [, , count]) => sum + Number(count), 0);
  };
  const updates = async (): Promise<number> => {
    const [row] = await database.sql<{ sum: number }[]>`
      SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::int AS sum FROM pg_stat_user_tables
      WHERE relname LIKE 'presence%'`;
    return row?.sum ?? 0;
  };
  try {
    for (const [sync, count] of [
      ['redis', commands],
      ['postgres', updates],
    ] as const) {
      const server = await startOurs({
        ...{ SYNC: sync, DATABASE_URL: database.url, ROLE: 'ws,api' },
        ...(sync === 'redis' ? { REDIS_URL: redis.url } : {}),
      });
      try {
        for (const channels of [0, 1, members / 4, members]) {
          const sockets = await openMembers(server.port, channels === 0 ? 0 : members, channels);
          await Bun.sleep(8_000);
          const before = await count();
          await Bun.sleep(seconds * 1_000);
          const perMinute = ((await count()) - before) * (60 / seconds);
          rows.push([
            sync === 'redis' ? 'Redis commands a minute' : 'PostgreSQL rows a minute',
            `${channels === 0 ? 0 : members} in ${channels} channels`,
            perMinute.toFixed(0),
          ]);
          for (const socket of sockets) socket.close();
          await Bun.sleep(8_000);
        }
      } finally {
        await server.stop();
      }
    }
  } finally {
    admin.disconnect();
    await Promise.all([redis.close(), database.close()]);
  }
  printTable('Idle members of one node', ['', 'members', 'of presence'], rows);
}

async function openMembers(port: number, members: number, channels: number): Promise<WebSocket[]> {
  const sockets: WebSocket[] = [];
  const open = async (index: number): Promise<void> => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/realtime/ws`);
    sockets.push(socket);
    await new Promise<void>((resolve, reject) => {
      socket.onopen = () => socket.send(enter(true, `ephemeral:${index % channels}`));
      socket.onmessage = ({ data }) => (String(data).includes('"subscribed"') ? resolve() : undefined);
      socket.onclose = () => reject(new BenchError('a member was closed'));
    });
    socket.onmessage = null;
  };
  const indexes = Array.from({ length: members }, (_, index) => index).values();
  const opener = async (): Promise<void> => {
    for (const index of indexes) await open(index);
  };
  await Promise.all(Array.from({ length: 32 }, opener));
  return sockets;
}

async function startClient(
  program: string,
  args: readonly (string | number)[],
): Promise<Bun.Subprocess<'ignore', 'pipe', 'pipe'>> {
  const command = [await buildLoadClient(program), ...args.map(String)];
  const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
  endWithBench(child);
  return child;
}
