// Publications over Redis with and without compression, side by side on two pairs of nodes and two servers: bytes that pass
// Redis and stay in it, and the processor time of both nodes and of Redis, by the size of the data. What is published at one
// node is heard at the other.
import { Redis } from 'ioredis';
import { cpuMicrosOf } from './connect.ts';
import type { BenchOptions } from './options.ts';
import { startDatabase } from './postgres.ts';
import { BenchError, type ServerProcess } from './server-process.ts';
import { startNodes, startRedis, stopNodes, type BenchRedis, type Nodes } from './sync-nodes.ts';
import { median, printTable, ratio } from './table.ts';

const sizes = [1_024, 2_048, 8_192, 16_384, 32_768];
const atOnce = 16;
const words = 'order customer status shipped pending note street city amount currency created updated priority'.split(
  ' ',
);

interface Lane {
  readonly redis: BenchRedis;
  readonly admin: Redis;
  readonly nodes: Nodes;
}

interface Round {
  /** Of a publication. */
  readonly wireBytes: number;
  readonly nodesMicros: number;
  readonly redisMicros: number;
}

export async function redisCompress(options: BenchOptions): Promise<void> {
  const rounds = options.quick ? 2 : 7;
  const databases = [await startDatabase(), await startDatabase()];
  const lanes: Lane[] = [];
  try {
    for (const [index, compressFrom] of ['0', '1'].entries()) {
      const redis = await startRedis();
      const url = databases[index]?.url ?? '';
      const env = { SYNC: 'redis', REDIS_URL: redis.url, DATABASE_URL: url, REDIS_COMPRESS_FROM: compressFrom };
      lanes.push({ redis, admin: new Redis(redis.url), nodes: await startNodes(env) });
    }
    const [plain, packed] = lanes as [Lane, Lane];
    const rows: (string | number)[][] = [];
    for (const size of sizes) {
      const found: [Round[], Round[]] = [[], []];
      for (let round = 0; round < rounds; round++) {
        // Each first in turn, so that neither always meets a warmer machine.
        for (const index of round % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
          found[index].push(await run(index === 0 ? plain : packed, size, options.quick ? 200 : 500));
        }
      }
      const of = (each: keyof Round): [number, number] => [
        median(found[0].map((round) => round[each])),
        median(found[1].map((round) => round[each])),
      ];
      // Of the same round, so that both have met the same machine.
      const ratioOf = (each: keyof Round): number =>
        median(found[0].map((round, at) => (found[1][at]?.[each] ?? NaN) / round[each]));
      const [wire, nodes, inRedis] = [of('wireBytes'), of('nodesMicros'), of('redisMicros')];
      rows.push([
        size,
        Math.round(wire[0]),
        ratio(ratioOf('wireBytes')),
        nodes[0].toFixed(1),
        nodes[1].toFixed(1),
        ratio(ratioOf('nodesMicros')),
        ratio(ratioOf('redisMicros')),
        `${inRedis[0].toFixed(1)} → ${inRedis[1].toFixed(1)}`,
      ]);
    }
    printTable(
      `Publications from one node to another over Redis, ${atOnce} under way`,
      ['data, bytes', 'on the wire', 'ratio', 'nodes µs', 'compressed', 'ratio', 'Redis ratio', 'Redis µs'],
      rows,
    );
  } finally {
    for (const { redis, admin, nodes } of lanes) {
      admin.disconnect();
      await stopNodes(nodes);
      await redis.close();
    }
    for (const database of databases) await database.close();
  }
}

async function run({ redis, admin, nodes: [a, b] }: Lane, size: number, count: number): Promise<Round> {
  const channel = `bench:${size}`;
  const listener = await listen(b, channel);
  const publisher = await connect(a);
  const before = { wire: await wireBytes(admin), nodes: await cpuOf([a, b]), redis: await cpuMicrosOf(redis.pid) };
  let sent = 0;
  const publishMore = (): void => {
    if (sent >= count) return;
    publisher.send(JSON.stringify({ type: 'publish', channel, data: row(size, sent++) }));
  };
  publisher.onmessage = ({ data }) => {
    if (String(data).includes('"type":"error"')) throw new BenchError(String(data));
    publishMore();
  };
  for (let index = 0; index < atOnce; index++) publishMore();
  await listener.heard(count);
  const result = {
    wireBytes: ((await wireBytes(admin)) - before.wire) / count,
    nodesMicros: ((await cpuOf([a, b])) - before.nodes) / count,
    redisMicros: ((await cpuMicrosOf(redis.pid)) - before.redis) / count,
  };
  publisher.close();
  listener.close();
  return result;
}

async function cpuOf(nodes: readonly ServerProcess[]): Promise<number> {
  const micros = await Promise.all(nodes.map(({ pid }) => cpuMicrosOf(pid)));
  return micros.reduce((sum, each) => sum + each, 0);
}

/** Into Redis and out of it. */
async function wireBytes(admin: Redis): Promise<number> {
  const info = await admin.info('stats');
  const of = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1]);
  return of('total_net_input_bytes') + of('total_net_output_bytes');
}

async function connect(node: ServerProcess): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${node.port}/realtime/ws`, 'sobranie');
  const opened = Promise.withResolvers<void>();
  socket.onmessage = () => opened.resolve();
  socket.onclose = () => opened.reject(new BenchError('the connection was closed'));
  await opened.promise;
  return socket;
}

async function listen(
  node: ServerProcess,
  channel: string,
): Promise<{ heard(count: number): Promise<void>; close(): void }> {
  const socket = await connect(node);
  const subscribed = Promise.withResolvers<void>();
  let heard = 0;
  let wanted = Infinity;
  let done = (): void => undefined;
  socket.onmessage = ({ data }) => {
    if (String(data).includes('"type":"subscribed"')) subscribed.resolve();
    else if (++heard >= wanted) done();
  };
  socket.send(JSON.stringify({ type: 'subscribe', channel }));
  await subscribed.promise;
  return {
    heard(count) {
      const all = Promise.withResolvers<void>();
      wanted = count;
      done = () => all.resolve();
      if (heard >= count) done();
      return all.promise;
    },
    close: () => socket.close(),
  };
}

/** As a change of a table is: names that repeat, numbers, ids and a little text. */
function row(size: number, seed: number): object {
  let state = seed * 2_654_435_761 + 1;
  const random = (): number => (state = (state * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648;
  const data: Record<string, unknown> = {};
  let length = 80;
  for (let column = 0; length < size; column++) {
    const text = Array.from({ length: 1 + Math.floor(random() * 8) }, () => words[Math.floor(random() * words.length)]);
    const value = random() < 0.4 ? Math.floor(random() * 1e9) : random() < 0.3 ? random().toString(36) : text.join(' ');
    data[`column_${column}`] = value;
    length += JSON.stringify(value).length + 14;
  }
  return { action: 'UPDATE', schema: 'public', table: 'orders', data, old: null };
}
