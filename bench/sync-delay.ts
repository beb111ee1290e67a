// How long a publication takes from a client of node A to a client of node B at a steady rate, beside the bare hop
// between two processes over the same Redis or PostgreSQL. Ours includes what the bare hop has not: the WebSocket to
// node A, the way through the server, and the WebSocket from node B. A load client at both ends reads one clock.
import { onNodes, type Contender } from './contenders.ts';
import { runLoad } from './load-client.ts';
import type { Bar } from './sync.ts';
import { BareHop } from './sync-hop.ts';
import type { Nodes } from './sync-nodes.ts';
import { median, percentile, printTable, ratio, ratios } from './table.ts';

const rate = 200;
const dataBytes = 120;

interface Delay {
  readonly p50: number;
  readonly p99: number;
}

export interface DelayRace {
  readonly layer: 'redis' | 'postgres';
  readonly url: string;
  readonly nodes: Nodes | undefined;
  readonly rounds: number;
  readonly seconds: number;
}

const bareNames = { redis: 'bare ioredis, PUBLISH to message', postgres: 'bare NOTIFY to LISTEN' };
const ratioMax = 2;

export async function raceDelay({ layer, url, nodes, rounds, seconds }: DelayRace): Promise<Bar[]> {
  const hop = await BareHop.open(layer, url);
  try {
    const bare = async (length: number): Promise<Delay> => {
      const delays = await hop.run(rate, length, dataBytes);
      return { p50: percentile(delays, 0.5), p99: percentile(delays, 0.99) };
    };
    const ours = (contender: Contender) => async (length: number) => {
      if (!nodes) throw new Error('there are no nodes to measure');
      const load = { connections: 1, rate, seconds: length, publishTo: nodes[0] };
      const { p50Ms, p99Ms } = await runLoad(contender, nodes[1], load);
      return { p50: p50Ms, p99: p99Ms };
    };
    const lanes = [{ name: bareNames[layer], once: bare }];
    if (nodes) for (const contender of onNodes) lanes.push({ name: contender.name, once: ours(contender) });
    for (const { once } of lanes) await once(1);
    const figures = lanes.map(({ name }) => ({ name, delays: [] as Delay[] }));
    for (let round = 0; round < rounds; round++) {
      for (const [index, { once }] of lanes.entries()) figures[index]?.delays.push(await once(seconds));
    }
    return report(layer, figures);
  } finally {
    await hop.close();
  }
}

function report(layer: string, figures: readonly { name: string; delays: readonly Delay[] }[]): Bar[] {
  const reference = figures[0]?.delays ?? [];
  const bars: Bar[] = [];
  const rows = figures.map(({ name, delays }, index) => {
    const p50 = delays.map((delay) => delay.p50);
    const perRound = p50.map((value, round) => value / (reference[round]?.p50 ?? Number.NaN));
    if (index > 0) bars.push({ name: `${layer}: delay of ${name}`, measured: median(perRound), atMost: ratioMax });
    const p99 = median(delays.map((delay) => delay.p99));
    return [name, ratio(median(p50)), ratio(p99), ratio(median(perRound)), ratios(p50)];
  });
  printTable(
    `Node A to node B over ${layer}, ${rate} messages/s`,
    ['', 'p50 ms', 'p99 ms', 'p50 ratio', 'each round p50'],
    rows,
  );
  return bars;
}
