// From a row to a browser, ours beside the plain row trigger in the same database, in three parts: how long a row takes
// at a steady rate, what 16 writers at full speed get through, and one statement of 100,000 rows. Loss, repeats,
// disorder or a `gap` end the bench.
import type { BenchOptions } from './options.ts';
import { runPgbench, startDatabase, until, type BenchDatabase } from './postgres.ts';
import { oursPath, plainPath, type RowPath } from './row-paths.ts';
import { RowSubscriber } from './row-subscriber.ts';
import { BenchError, endWithBench, repositoryRoot, type ServerProcess } from './server-process.ts';
import { median, percentile, printTable, ratio, ratios, thousands } from './table.ts';
import { wallClockMs } from './wall-clock.ts';

export interface Lane {
  readonly path: RowPath;
  readonly database: BenchDatabase;
  readonly server: ServerProcess;
  readonly subscriber: RowSubscriber;
}

interface Bench {
  readonly lanes: readonly Lane[];
  readonly rounds: number;
  readonly seconds: number;
}

const steadyRates = [
  { perSecond: 50, connections: 1 },
  { perSecond: 2000, connections: 8 },
];
const bulkRows = 100_000;
let run = 0;

export async function rows(options: BenchOptions): Promise<void> {
  const database = await startDatabase();
  const lanes: Lane[] = [];
  try {
    for (const path of options.baselinesOnly ? [plainPath] : [plainPath, oursPath])
      lanes.push(await openLane(path, database));
    await raceRows(lanes, options);
  } finally {
    await closeLanes(lanes);
    await database.close();
  }
}

export async function openLane(path: RowPath, database: BenchDatabase): Promise<Lane> {
  const server = await path.start(database);
  const subscriber = await RowSubscriber.open(path, server).catch(async (error: unknown) => {
    await server.stop();
    throw error;
  });
  return { path, database, server, subscriber };
}

// The first lane is what the others are divided by.
export async function raceRows(lanes: readonly Lane[], { quick }: BenchOptions): Promise<void> {
  const bench = { lanes, rounds: quick ? 1 : 3, seconds: quick ? 3 : 10 };
  await steady(bench);
  await fullSpeed(bench);
  await bulk(bench);
}

export async function closeLanes(lanes: readonly Lane[]): Promise<void> {
  for (const lane of lanes) {
    lane.subscriber.close();
    await lane.server.stop();
  }
}

// Runs every lane once per round, alternating, and hands back each lane's figures in the order of the rounds.
async function alternate<Figure>(bench: Bench, once: (lane: Lane) => Promise<Figure>): Promise<Map<Lane, Figure[]>> {
  const figures = new Map<Lane, Figure[]>(bench.lanes.map((lane) => [lane, []]));
  for (let round = 0; round < bench.rounds; round++) {
    for (const lane of bench.lanes) {
      lane.subscriber.begin(++run);
      figures.get(lane)?.push(await once(lane));
      await until(`${lane.path.name}: settled`, 60, () => lane.path.settled(lane.database));
    }
  }
  return figures;
}

async function arrivedWhole(lane: Lane, committed: number): Promise<void> {
  await lane.subscriber.received(committed);
  const fault = lane.subscriber.fault(committed);
  if (fault) throw new BenchError(`${lane.path.name}: ${fault}`);
}

async function steady(bench: Bench): Promise<void> {
  for (const { perSecond, connections } of steadyRates) {
    const once = async (lane: Lane): Promise<{ p50: number; p99: number }> => {
      const args = [lane.database.url, lane.path.table, run, perSecond, bench.seconds, connections];
      const writer = Bun.spawn([process.execPath, 'bench/row-writer.ts', ...args.map(String)], {
        cwd: repositoryRoot,
        stdout: 'pipe',
      });
      endWithBench(writer);
      const [text, code] = await Promise.all([writer.stdout.text(), writer.exited]);
      if (code !== 0) throw new BenchError(`${lane.path.name}: the writer ended with ${code}`);
      await arrivedWhole(lane, (JSON.parse(text) as { rows: number }).rows);
      const { latencies } = lane.subscriber;
      return { p50: percentile(latencies, 0.5), p99: percentile(latencies, 0.99) };
    };
    const figures = await alternate(bench, once);
    const reference = [...figures.values()][0] ?? [];
    printTable(
      `${perSecond.toLocaleString('en')} rows/s on ${connections} connection(s): INSERT sent to message received`,
      ['', 'p50 ms', 'p99 ms', 'p50 ratio', 'each round p50', 'each round p99'],
      [...figures].map(([lane, rounds]) => {
        const p50 = rounds.map((round) => round.p50);
        const p99 = rounds.map((round) => round.p99);
        const perRound = p50.map((value, round) => value / (reference[round]?.p50 ?? Number.NaN));
        return [
          lane.path.name,
          ratio(median(p50)),
          ratio(median(p99)),
          ratio(median(perRound)),
          ratios(p50),
          ratios(p99),
        ];
      }),
    );
  }
}

async function fullSpeed(bench: Bench): Promise<void> {
  const once = async (lane: Lane): Promise<{ committed: number; delivered: number; lagMs: number }> => {
    const began = wallClockMs();
    const script = `\\set number :number + 1
insert into ${lane.path.table} (run, writer, number, sent_at, body)
  values (${run}, :client_id, :number, extract(epoch from clock_timestamp()) * 1000, repeat('x', 100));
`;
    const variables = { number: 0 };
    const options = { script, clients: 16, seconds: bench.seconds, variables };
    const { transactions, perSecond } = await runPgbench(lane.database, options);
    await arrivedWhole(lane, transactions);
    const { lastReceivedAt, lastSentAt } = lane.subscriber;
    return {
      committed: perSecond,
      delivered: (transactions * 1000) / (lastReceivedAt - began),
      lagMs: lastReceivedAt - lastSentAt,
    };
  };
  const figures = await alternate(bench, once);
  const reference = [...figures.values()][0] ?? [];
  printTable(
    `16 writers at full speed for ${bench.seconds} s`,
    ['', 'rows/s committed', 'rows/s delivered', 'ratio', 'each round', 'lag after the last commit, ms'],
    [...figures].map(([lane, rounds]) => {
      const perRound = rounds.map((round, i) => round.delivered / (reference[i]?.delivered ?? Number.NaN));
      return [
        lane.path.name,
        thousands(median(rounds.map((round) => round.committed))),
        thousands(median(rounds.map((round) => round.delivered))),
        ratio(median(perRound)),
        ratios(perRound),
        rounds.map((round) => Math.round(round.lagMs)).join(' '),
      ];
    }),
  );
}

async function bulk(bench: Bench): Promise<void> {
  const once = async (lane: Lane): Promise<{ statementMs: number; allMs: number }> => {
    const began = wallClockMs();
    await lane.database.sql.unsafe(
      `insert into ${lane.path.table} (run, writer, number, sent_at, body)
       select ${run}, 0, n, ${began}, repeat('x', 100) from generate_series(1, ${bulkRows}) n`,
    );
    const statementMs = wallClockMs() - began;
    await arrivedWhole(lane, bulkRows);
    return { statementMs, allMs: lane.subscriber.lastReceivedAt - began };
  };
  const figures = await alternate(bench, once);
  printTable(
    `One statement of ${bulkRows.toLocaleString('en')} rows`,
    ['', 'statement ms', 'until all received ms', 'rows/s', 'each round ms'],
    [...figures].map(([lane, rounds]) => {
      const all = rounds.map((round) => round.allMs);
      return [
        lane.path.name,
        Math.round(median(rounds.map((round) => round.statementMs))),
        Math.round(median(all)),
        thousands((bulkRows * 1000) / median(all)),
        all.map(Math.round).join(' '),
      ];
    }),
  );
}
