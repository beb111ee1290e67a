// Recoverable publications through one node at full speed: over Redis beside the same Lua script called bare and pipelined
// by ioredis in a process of its own, over a broker beside what its client confirms: as many in flight, the same data.
import { buildLoadClient } from './load-client.ts';
import { BenchError, endWithBench, repositoryRoot, type ServerProcess } from './server-process.ts';
import type { Bar } from './options.ts';
import type { Broker } from './sync-brokers.ts';
import type { BenchRedis } from './sync-nodes.ts';
import { median, printTable, ratio, ratios, thousands } from './table.ts';

const connections = 4;
const inFlight = 64;
const data = JSON.stringify({ text: 'x'.repeat(109) });
const ratioMin = 0.5;

interface Speed {
  readonly perSecond: number;
  // Of one core, of the process that talks to Redis.
  readonly cpuShare: number;
}

interface PublishRace {
  readonly node: ServerProcess | undefined;
  readonly rounds: number;
  readonly seconds: number;
}

export interface ScriptRace extends PublishRace {
  readonly redis: BenchRedis;
}

export interface BrokerRace extends PublishRace {
  readonly broker: Broker;
}

interface Reference {
  readonly layer: string;
  readonly name: string;
  readonly once: (seconds: number) => Promise<Speed>;
}

export function raceScript({ redis, ...rest }: ScriptRace): Promise<Bar[]> {
  const once = (length: number): Promise<Speed> => bare(redis, length);
  return race({ layer: 'redis', name: 'bare script, pipelined by ioredis', once }, rest);
}

export function raceBroker({ broker, ...rest }: BrokerRace): Promise<Bar[]> {
  const { layer } = broker;
  return race({ layer, name: 'its client, each confirmed', once: (length) => bareBroker(broker, length) }, rest);
}

async function race({ layer, ...bareLane }: Reference, { node, rounds, seconds }: PublishRace): Promise<Bar[]> {
  const lanes = [bareLane];
  if (node) lanes.push({ name: 'sobranie, recoverable', once: (length: number) => ours(node, length) });
  const figures = lanes.map(({ name }) => ({ name, speeds: [] as Speed[] }));
  for (const { once } of lanes) await once(1);
  for (let round = 0; round < rounds; round++) {
    for (const [index, { once }] of lanes.entries()) figures[index]?.speeds.push(await once(seconds));
  }
  const reference = figures[0]?.speeds ?? [];
  const perRound = figures.map(({ speeds }) =>
    speeds.map(({ perSecond }, round) => perSecond / (reference[round]?.perSecond ?? Number.NaN)),
  );
  printTable(
    `Recoverable publications over ${layer}, ${connections} channels, ${inFlight} in flight in each`,
    ['', 'publications/s', 'ratio', 'each round', 'its CPU'],
    figures.map(({ name, speeds }, index) => [
      name,
      thousands(median(speeds.map(({ perSecond }) => perSecond))),
      ratio(median(perRound[index] ?? [])),
      ratios(perRound[index] ?? []),
      `${Math.round(median(speeds.map(({ cpuShare }) => cpuShare)) * 100)} %`,
    ]),
  );
  if (!node) return [];
  return [
    { name: `${layer}: publications/s of ${bareLane.name}`, measured: median(perRound[1] ?? []), atLeast: ratioMin },
  ];
}

async function runToJson(what: string, command: readonly (string | number)[]): Promise<unknown> {
  const child = Bun.spawn(command.map(String), {
    cwd: repositoryRoot,
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  endWithBench(child);
  const [text, complaint, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new BenchError(`${what} ended with ${code}: ${complaint.trim()}`);
  return JSON.parse(text);
}

async function bare(redis: BenchRedis, seconds: number): Promise<Speed> {
  const args = [redis.url, 'bare', data, seconds, connections, inFlight];
  const command = [process.execPath, 'bench/baselines/sync-script.ts', ...args];
  const result = (await runToJson('the bare script', command)) as Speed & { misplaced: number };
  if (result.misplaced > 0) throw new BenchError(`the bare script: ${result.misplaced} offsets out of order`);
  return result;
}

async function bareBroker({ layer, url }: Broker, seconds: number): Promise<Speed> {
  const args = [layer, url, data, seconds, connections * inFlight];
  const command = [process.execPath, 'bench/baselines/sync-broker.ts', ...args];
  return (await runToJson('the bare client', command)) as Speed;
}

interface PublishResult {
  readonly published: number;
  readonly acknowledged: number;
  readonly misplaced: number;
  readonly errors: number;
  readonly seconds: number;
  readonly perSecond: number;
  readonly serverCpuSeconds: number;
}

async function ours(node: ServerProcess, seconds: number): Promise<Speed> {
  const frame = `{"type":"publish","channel":"bench:@@@@","data":${data}}`;
  const result = (await runToJson('the publishers', [
    await buildLoadClient('sync-publish'),
    ...['--port', node.port, '--pid', node.pid, '--publish-path', '/realtime/ws', '--publish', frame],
    ...['--connections', connections, '--window', inFlight, '--seconds', seconds],
  ])) as PublishResult;
  const { published, acknowledged, misplaced, errors, perSecond } = result;
  if (published === 0 || acknowledged !== published || misplaced + errors > 0) {
    throw new BenchError(
      `the publishers: ${published} sent, ${acknowledged} acknowledged, ${misplaced} out of order, ${errors} errors`,
    );
  }
  return { perSecond, cpuShare: result.serverCpuSeconds / result.seconds };
}
