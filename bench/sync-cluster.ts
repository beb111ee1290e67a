// One publication on node A to the subscribers of both nodes over Redis: ours beside Socket.IO 4.8 with its Redis
// adapter, two processes each. What counts is delivered messages per CPU-second of the two processes together: on a
// machine that the load client, Redis and both nodes share, deliveries/s say little.
import { join } from 'node:path';
import { onNodes, type Contender } from './contenders.ts';
import { runLoad, type LoadResult } from './load-client.ts';
import { BenchError, repositoryRoot, startServer } from './server-process.ts';
import type { Bar } from './options.ts';
import { stopNodes, type BenchRedis, type Nodes } from './sync-nodes.ts';
import { median, printTable, ratio, ratios, thousands } from './table.ts';

const ratioMin = 3;

export interface ClusterRace {
  readonly redis: BenchRedis;
  readonly nodes: Nodes | undefined;
  readonly windows: readonly number[];
  // Over both nodes.
  readonly connections: number;
  readonly rounds: number;
  readonly seconds: number;
}

// Engine.IO's packets over a bare WebSocket: `40` connects, `42` is an event. Its pings come after 25 s, and a run is
// over long before that.
const socketIo: Contender = {
  name: 'Socket.IO with its Redis adapter',
  transport: 'websocket',
  path: '/socket.io/?EIO=4&transport=websocket&room=bench',
  channel: 'bench',
  publishPath: '/socket.io/?EIO=4&transport=websocket',
  hello: '40',
  ready: '42["subscribed"',
  publishFrame: (data) => `42${JSON.stringify(['publish', data])}`,
  server: { name: 'socket.io', start: () => Promise.reject(new BenchError('it is started in pairs')) },
};

async function startSocketIo(redis: BenchRedis): Promise<Nodes> {
  const node = Bun.which('node');
  if (!node) throw new BenchError('Socket.IO is measured on Node: `node` is not on the PATH');
  const command = [node, join(repositoryRoot, 'bench/baselines/sync-socketio.mjs'), redis.url];
  const a = await startServer(command, { NODE_ENV: 'production' });
  try {
    return [a, await startServer(command, { NODE_ENV: 'production' })];
  } catch (error) {
    await a.stop();
    throw error;
  }
}

export async function raceCluster(race: ClusterRace): Promise<Bar[]> {
  const theirs = await startSocketIo(race.redis);
  try {
    const lanes: { contender: Contender; nodes: Nodes }[] = [{ contender: socketIo, nodes: theirs }];
    for (const contender of race.nodes ? onNodes : []) {
      if (race.nodes) lanes.push({ contender, nodes: race.nodes });
    }
    const once = (lane: (typeof lanes)[number], window: number, seconds: number): Promise<LoadResult> => {
      const [a, b] = lane.nodes;
      return runLoad(lane.contender, a, { connections: race.connections, window, seconds, peer: b });
    };
    for (const lane of lanes) await once(lane, race.windows.at(-1) ?? 1, 1);
    const bars: Bar[] = [];
    for (const window of race.windows) {
      const figures = lanes.map(({ contender }) => ({ contender, results: [] as LoadResult[] }));
      for (let round = 0; round < race.rounds; round++) {
        for (const [index, lane] of lanes.entries()) {
          figures[index]?.results.push(await once(lane, window, race.seconds));
        }
      }
      bars.push(...report(race, window, figures));
    }
    return bars;
  } finally {
    await stopNodes(theirs);
  }
}

interface Figures {
  readonly contender: Contender;
  readonly results: readonly LoadResult[];
}

const perCpuSecond = (result: LoadResult): number => result.deliveries / result.serverCpuSeconds;

function report(race: ClusterRace, window: number, figures: readonly Figures[]): Bar[] {
  const reference = figures[0]?.results ?? [];
  const bars: Bar[] = [];
  const rows = figures.map(({ contender, results }, index) => {
    const perRound = results.map((result, round) => perCpuSecond(result) / perCpuSecond(reference[round] ?? result));
    if (index > 0) {
      const name = `redis: deliveries per CPU-second of Socket.IO, ${contender.name}, ${window} in flight`;
      bars.push({ name, measured: median(perRound), atLeast: ratioMin });
    }
    return [
      contender.name,
      thousands(median(results.map(perCpuSecond))),
      ratio(median(perRound)),
      ratios(perRound),
      thousands(median(results.map((result) => result.deliveriesPerSecond))),
      ratio(median(results.map((result) => result.p50Ms))),
      `${Math.round(median(results.map((result) => result.serverCpuSeconds / result.seconds)) * 100)} %`,
    ];
  });
  printTable(
    `Two nodes over Redis, ${race.connections / 2} subscribers on each, published on one, ${window} in flight`,
    ['', 'deliveries per CPU-s', 'ratio', 'each round', 'deliveries/s', 'p50 ms', 'CPU of both'],
    rows,
  );
  return bars;
}
