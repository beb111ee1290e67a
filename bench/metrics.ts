// What the metrics cost the fan-out: the server as shipped beside the same one whose counters count nothing, in turns. With
// 1,000 subscribers, and with one, where a publication costs least and counting most.
//
// On a busy machine a race swings by more than counting costs. What is counted for a publication is therefore timed in this
// process as well, and held against the server's CPU time of a publication.
import { join } from 'node:path';
import { createMetrics } from '../src/metrics/metrics.ts';
import { oursEphemeral, startOurs, type Contender } from './contenders.ts';
import { runLoad } from './load-client.ts';
import type { BenchOptions } from './options.ts';
import { runRace } from './race.ts';
import { repositoryRoot } from './server-process.ts';
import { median, printBars, printTable } from './table.ts';

const countedTimes = 500_000;
const shareMax = 0.03;
const settings = { SYNC: 'memory', ROLE: 'ws,sse,api' };

const contenders = {
  counting: contender('counting', {}),
  silent: contender('counting nothing', {
    BUN_OPTIONS: `--preload=${join(repositoryRoot, 'bench/without-metrics.ts')}`,
  }),
};

function contender(name: string, env: Record<string, string>): Contender {
  const server = { name: `sobranie ${name}`, start: () => startOurs({ ...settings, ...env }) };
  return { ...oursEphemeral, name, server };
}

export async function metrics(options: BenchOptions): Promise<void> {
  if (options.baselinesOnly) return;
  const rounds = options.quick ? 3 : 9;
  for (const connections of [1_000, 1]) {
    await runRace({
      title: `${connections.toLocaleString('en')} WebSocket subscriber${connections === 1 ? '' : 's'}, by what is counted`,
      contenders: [contenders.silent, contenders.counting],
      reference: contenders.silent,
      windows: [1, 32],
      connections,
      rounds,
      seconds: options.quick ? 0.7 : 1.5,
    });
  }
  await timeAlone(rounds);
}

async function timeAlone(rounds: number): Promise<void> {
  const counting = median(Array.from({ length: rounds }, countingMicros));
  const server = await contenders.counting.server.start();
  try {
    const rows: { readonly connections: number; readonly micros: number }[] = [];
    for (const connections of [1_000, 1])
      rows.push({ connections, micros: await publicationMicros(server, connections, rounds) });
    printTable(
      `counting a publication alone (${counting.toFixed(2)} µs), beside what one costs the server`,
      ['subscribers', 'µs of a publication', 'share'],
      rows.map(({ connections, micros }) => [
        connections,
        micros.toFixed(1),
        `${((counting / micros) * 100).toFixed(2)} %`,
      ]),
    );
    const [fanout] = rows;
    if (fanout !== undefined) {
      printBars([{ name: 'share of a fan-out to 1,000', measured: counting / fanout.micros, atMost: shareMax }]);
    }
  } finally {
    await server.stop();
  }
}

async function publicationMicros(
  server: Awaited<ReturnType<typeof startOurs>>,
  connections: number,
  rounds: number,
): Promise<number> {
  const micros: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const result = await runLoad(contenders.counting, server, { connections, window: 32, seconds: 0.7 });
    micros.push((result.serverCpuSeconds * 1e6) / result.published);
  }
  return median(micros);
}

/** Of all that is counted from a client's publish to its fan-out. */
function countingMicros(): number {
  const counted = createMetrics({ node: 'bench', version: '0', transports: [] });
  const before = process.cpuUsage();
  for (let time = 0; time < countedTimes; time++) {
    counted.received('publish');
    counted.published('client', 'ephemeral:bench');
    counted.delivered('ephemeral:bench', 1_000, 0.002);
  }
  const { user, system } = process.cpuUsage(before);
  const micros = (user + system) / countedTimes;
  counted.close();
  return micros;
}
