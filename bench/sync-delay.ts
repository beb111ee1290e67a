// How long a publication takes from a client of node A to a client of node B at a steady rate, beside the bare hop
// between two processes over the same Redis, PostgreSQL or broker; where the log is in a database beside the broker, also
// beside the hop of a message that was committed to it first. Ours includes what the bare hop has not: the WebSocket to
// node A, the way through the server, and the WebSocket from node B. So the same is measured with both clients on node A,
// and what the way to node B takes beyond that is told: it is the hop alone. A load client at both ends reads one clock.
import { onNodes, type Contender } from './contenders.ts';
import { runLoad } from './load-client.ts';
import type { Bar } from './options.ts';
import { BareHop, type HopKind } from './sync-hop.ts';
import type { Nodes } from './sync-nodes.ts';
import { median, percentile, printTable, ratio, ratios } from './table.ts';

const rate = 200;
const dataBytes = 120;

interface Delay {
  readonly p50: number;
  readonly p99: number;
}

type Layer = 'redis' | 'postgres' | 'nats' | 'rabbitmq' | 'kafka';

export interface DelayRace {
  readonly layer: Layer;
  readonly url: string;
  /** Of the log, where that is beside the layer. */
  readonly logUrl?: string;
  readonly nodes: Nodes | undefined;
  readonly rounds: number;
  readonly seconds: number;
}

const bareHops: Readonly<Record<Layer, readonly { name: string; kind: HopKind; isKept?: boolean }[]>> = {
  redis: [{ name: 'bare ioredis, PUBLISH to message', kind: 'redis' }],
  postgres: [
    { name: 'bare NOTIFY to LISTEN', kind: 'postgres' },
    { name: 'the same, the message kept in a table', kind: 'row' },
  ],
  nats: [{ name: 'bare publish to subscription', kind: 'nats' }],
  rabbitmq: [
    { name: 'bare publish to queue', kind: 'rabbitmq' },
    { name: 'the same, the message committed before', kind: 'rabbitmq', isKept: true },
  ],
  kafka: [
    { name: 'bare send to stream', kind: 'kafka' },
    { name: 'the same, the message committed before', kind: 'kafka', isKept: true },
  ],
};
const ratioMax = { redis: 2, postgres: 2, nats: 3, rabbitmq: 3, kafka: 3 };

interface Lane {
  readonly name: string;
  readonly ours: boolean;
  // The same publications, received on the node that took them.
  readonly atHome?: Lane;
  readonly delays: Delay[];
  readonly once: (seconds: number) => Promise<Delay>;
}

export async function raceDelay({ layer, url, logUrl, nodes, rounds, seconds }: DelayRace): Promise<Bar[]> {
  const hops: BareHop[] = [];
  try {
    const lanes: Lane[] = [];
    for (const { name, kind, isKept = false } of bareHops[layer]) {
      const hop = await BareHop.open(kind, url, isKept ? logUrl : undefined);
      hops.push(hop);
      lanes.push({ name, ours: false, delays: [], once: (length) => bare(hop, length) });
    }
    for (const contender of nodes ? contenders(layer) : []) {
      const { name } = contender;
      const atHome: Lane = {
        name: `${name}, both clients on one node`,
        ours: true,
        delays: [],
        once: (length) => ours(contender, nodes, length, 'one node'),
      };
      lanes.push(
        { name, ours: true, atHome, delays: [], once: (length) => ours(contender, nodes, length, 'two nodes') },
        atHome,
      );
    }
    for (const { once } of lanes) await once(1);
    for (let round = 0; round < rounds; round++) {
      for (const { once, delays } of lanes) delays.push(await once(seconds));
    }
    return report(layer, lanes);
  } finally {
    await Promise.all(hops.map((hop) => hop.close()));
  }
}

async function bare(hop: BareHop, seconds: number): Promise<Delay> {
  const delays = await hop.run(rate, seconds, dataBytes);
  return { p50: percentile(delays, 0.5), p99: percentile(delays, 0.99) };
}

async function ours(
  contender: Contender,
  nodes: Nodes | undefined,
  seconds: number,
  over: 'one node' | 'two nodes',
): Promise<Delay> {
  if (!nodes) throw new Error('there are no nodes to measure');
  const [a, b] = nodes;
  const load = { connections: 1, rate, seconds };
  const { p50Ms, p99Ms } =
    over === 'one node' ? await runLoad(contender, a, load) : await runLoad(contender, b, { ...load, publishTo: a });
  return { p50: p50Ms, p99: p99Ms };
}

// Ephemeral publications travel over PostgreSQL on several sessions at once and may overtake one another, which the
// load client cannot tell from loss.
function contenders(layer: string): readonly Contender[] {
  return layer !== 'postgres' ? onNodes : onNodes.filter(({ channel }) => !channel.startsWith('ephemeral:'));
}

function report(layer: Layer, lanes: readonly Lane[]): Bar[] {
  const [first, second] = lanes;
  const kept = second?.ours === false ? second : undefined;
  const homes = new Set(lanes.map(({ atHome }) => atHome));
  const bars: Bar[] = [];
  const rows = lanes.map((lane) => {
    const { name, delays, atHome } = lane;
    const p50 = delays.map((delay) => delay.p50);
    const beside = (reference: Lane | undefined, beyond?: Lane): number =>
      median(
        p50.map((value, round) => {
          const hop = value - (beyond?.delays[round]?.p50 ?? 0);
          return hop / (reference?.delays[round]?.p50 ?? Number.NaN);
        }),
      );
    const p99 = median(delays.map((delay) => delay.p99));
    const figures = [name, ratio(median(p50)), ratio(p99)];
    if (homes.has(lane)) return [...figures, '', ...(kept === undefined ? [] : ['']), '', ratios(p50)];
    const measured = beside(first);
    const besideKept = kept === undefined ? [] : [ratio(beside(kept))];
    const hop = atHome === undefined ? undefined : beside(first, atHome);
    if (lane.ours) bars.push({ name: `${layer}: delay of ${name}`, measured, atMost: ratioMax[layer] });
    if (hop !== undefined)
      bars.push({ name: `${layer}: hop alone of ${name}`, measured: hop, atMost: ratioMax[layer] });
    return [...figures, ratio(measured), ...besideKept, hop === undefined ? '' : ratio(hop), ratios(p50)];
  });
  printTable(
    `Node A to node B over ${layer}, ${rate} messages/s`,
    [
      ...['', 'p50 ms', 'p99 ms', 'p50 ratio'],
      ...(kept === undefined ? [] : ['beside the kept one']),
      ...['hop alone, ratio', 'each round p50'],
    ],
    rows,
  );
  return bars;
}
