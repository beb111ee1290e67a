// `realtime.send` from 8 writers at full speed, delivered to a subscriber of a node that does not relay, beside bare
// inserts of the same rows by 8 writers into a table that nobody watches. Loss, repeats or disorder end the bench.
import { runPgbench, until, type BenchDatabase } from './postgres.ts';
import { oursPath } from './row-paths.ts';
import { RowSubscriber } from './row-subscriber.ts';
import { BenchError } from './server-process.ts';
import type { Bar } from './options.ts';
import { relays, type Nodes } from './sync-nodes.ts';
import { median, printTable, ratio, ratios, thousands } from './table.ts';
import { wallClockMs } from './wall-clock.ts';

const writers = 8;
const ratioMin = 0.4;
const table = 'public.bench_bare_sends';
const rowSql = (run: number): string =>
  `jsonb_build_object('run', ${run}, 'writer', :client_id, 'number', :number,
    'sent_at', extract(epoch from clock_timestamp()) * 1000, 'body', repeat('x', 100))`;
let run = 1_000_000;

export interface SendRace {
  readonly database: BenchDatabase;
  readonly nodes: Nodes | undefined;
  readonly rounds: number;
  readonly seconds: number;
}

interface Speed {
  readonly committed: number;
  readonly delivered: number;
  readonly lagMs: number;
}

export async function raceSend({ database, nodes, rounds, seconds }: SendRace): Promise<Bar[]> {
  await database.sql.unsafe(
    `create table ${table} (id bigint generated always as identity primary key, channel text not null,
       data text not null, key text, at timestamptz not null default clock_timestamp())`,
  );
  const lanes = [{ name: 'bare inserts of the same rows', once: (length: number) => bare(database, length) }];
  const subscriber = nodes ? await subscribeBeyondRelay(nodes) : undefined;
  try {
    if (subscriber) {
      lanes.push({ name: 'realtime.send', once: (length: number) => ours(database, subscriber, length) });
    }
    for (const { once } of lanes) await once(1);
    const figures = lanes.map(({ name }) => ({ name, speeds: [] as Speed[] }));
    for (let round = 0; round < rounds; round++) {
      for (const [index, { once }] of lanes.entries()) figures[index]?.speeds.push(await once(seconds));
    }
    return report(figures);
  } finally {
    subscriber?.close();
  }
}

async function subscribeBeyondRelay(nodes: Nodes): Promise<RowSubscriber> {
  const [a, b] = nodes;
  if (!(await relays(a)) || (await relays(b))) throw new BenchError('node A was to relay, and node B was not');
  return RowSubscriber.open({ ...oursPath, channel: 'bench_sends' }, b);
}

async function bare(database: BenchDatabase, seconds: number): Promise<Speed> {
  const script = `\\set number :number + 1
insert into ${table} (channel, data, key) values ('bench_sends', (${rowSql(0)})::text, null);
`;
  const { perSecond } = await runPgbench(database, { script, clients: writers, seconds, variables: { number: 0 } });
  return { committed: perSecond, delivered: perSecond, lagMs: 0 };
}

async function ours(database: BenchDatabase, subscriber: RowSubscriber, seconds: number): Promise<Speed> {
  subscriber.begin(++run);
  const script = `\\set number :number + 1
select realtime.send('bench_sends', ${rowSql(run)});
`;
  const began = wallClockMs();
  const options = { script, clients: writers, seconds, variables: { number: 0 } };
  const { transactions, perSecond } = await runPgbench(database, options);
  await subscriber.received(transactions);
  const fault = subscriber.fault(transactions);
  if (fault) throw new BenchError(`realtime.send: ${fault}`);
  await until('the outbox is empty', 30, () => oursPath.settled(database));
  const { lastReceivedAt, lastSentAt } = subscriber;
  const delivered = (transactions * 1000) / (lastReceivedAt - began);
  return { committed: perSecond, delivered, lagMs: lastReceivedAt - lastSentAt };
}

function report(figures: readonly { name: string; speeds: readonly Speed[] }[]): Bar[] {
  const reference = figures[0]?.speeds ?? [];
  const perRound = figures.map(({ speeds }) =>
    speeds.map(({ delivered }, round) => delivered / (reference[round]?.delivered ?? Number.NaN)),
  );
  printTable(
    `${writers} writers at full speed, delivered on a node that does not relay`,
    ['', 'rows/s committed', 'rows/s delivered', 'ratio', 'each round', 'lag after the last commit, ms'],
    figures.map(({ name, speeds }, index) => [
      name,
      thousands(median(speeds.map(({ committed }) => committed))),
      index === 0 ? '' : thousands(median(speeds.map(({ delivered }) => delivered))),
      ratio(median(perRound[index] ?? [])),
      ratios(perRound[index] ?? []),
      index === 0 ? '' : speeds.map(({ lagMs }) => Math.round(lagMs)).join(' '),
    ]),
  );
  if (figures.length < 2) return [];
  return [
    { name: 'postgres: rows/s delivered of bare inserts', measured: median(perRound[1] ?? []), atLeast: ratioMin },
  ];
}
