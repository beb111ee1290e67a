// Fan-out races: contenders run one after another, round by round (A B C, A B C, …), against processes that stay up.
// A machine's mood changes within minutes: a ratio is taken inside a round, and the median of these ratios counts.
// "server µs each" is the server's CPU time per delivery: on a busy machine it swings far less than deliveries/s do,
// though it too falls when a server that gets little time joins more messages into one write.
// Lifecycle: every server is started once and warmed up with a run that is thrown away; all are stopped at the end.
import type { Contender } from './contenders.ts';
import { runLoad, type LoadResult } from './load-client.ts';
import type { ServerProcess } from './server-process.ts';
import { median, printTable, ratio, ratios, thousands } from './table.ts';

// Above this share of one core, and busier than the server, the load client would be measuring itself.
const clientShareMax = 0.9;

export interface Race {
  readonly title: string;
  readonly contenders: readonly Contender[];
  // What the others are divided by.
  readonly reference: Contender;
  readonly windows: readonly number[];
  readonly connections: number;
  readonly rounds: number;
  readonly seconds: number;
}

export async function runRace(race: Race): Promise<void> {
  const servers = new Map<string, ServerProcess>();
  try {
    for (const { server } of race.contenders) {
      if (!servers.has(server.name)) servers.set(server.name, await server.start());
    }
    for (const contender of race.contenders) await runOne(race, contender, servers, race.windows[0] ?? 1, 1);
    for (const window of race.windows) {
      const results = new Map<Contender, LoadResult[]>(race.contenders.map((contender) => [contender, []]));
      for (let round = 0; round < race.rounds; round++) {
        for (const contender of race.contenders) {
          results.get(contender)?.push(await runOne(race, contender, servers, window, race.seconds));
        }
      }
      printWindow(race, window, results);
    }
  } finally {
    await Promise.all([...servers.values()].map((server) => server.stop()));
  }
}

function runOne(
  race: Race,
  contender: Contender,
  servers: ReadonlyMap<string, ServerProcess>,
  window: number,
  seconds: number,
): Promise<LoadResult> {
  const server = servers.get(contender.server.name);
  if (!server) throw new Error(`${contender.server.name} was not started`);
  return runLoad(contender, server, { connections: race.connections, window, seconds });
}

const clientShare = (result: LoadResult): number => result.clientCpuSeconds / result.seconds;
const serverShare = (result: LoadResult): number => result.serverCpuSeconds / result.seconds;
const percent = (shares: readonly number[]): string => `${Math.round(median(shares) * 100)} %`;
const serverMicros = (result: LoadResult): number => (result.serverCpuSeconds * 1e6) / result.deliveries;

function printWindow(race: Race, window: number, results: ReadonlyMap<Contender, readonly LoadResult[]>): void {
  const reference = results.get(race.reference) ?? [];
  const rows = [...results].map(([contender, rounds]) => {
    const speeds = rounds.map((result) => result.deliveriesPerSecond);
    const perRound = speeds.map((speed, round) => speed / (reference[round]?.deliveriesPerSecond ?? Number.NaN));
    const costs = rounds.map((result, round) => serverMicros(result) / serverMicros(reference[round] ?? result));
    return [
      contender.name,
      thousands(median(speeds)),
      ratio(median(perRound)),
      ratios(perRound),
      ratio(median(rounds.map((result) => result.p50Ms))),
      ratio(median(rounds.map((result) => result.p99Ms))),
      ratio(median(rounds.map(serverMicros))),
      ratio(median(costs)),
      percent(rounds.map(serverShare)),
      percent(rounds.map(clientShare)),
    ];
  });
  printTable(
    `${race.title}, ${window} in flight`,
    [
      '',
      'deliveries/s',
      'ratio',
      'each round',
      'p50 ms',
      'p99 ms',
      'server µs each',
      'ratio',
      'server CPU',
      'client CPU',
    ],
    rows,
  );
  for (const [contender, rounds] of results) {
    const share = median(rounds.map(clientShare));
    if (share < clientShareMax || share < median(rounds.map(serverShare))) continue;
    console.log(`note: the load client was the bottleneck for "${contender.name}": that figure is a lower bound`);
  }
}
