// Whether a change costs anything: the server of this checkout beside that of another one, in turns and by one load client.
// Two runs of a benchmark differ by more than most changes do, as a machine has its moods. Here both meet the same ones.
import { connect } from './connect.ts';
import {
  oursEphemeral,
  oursEventsEphemeral,
  oursEventsRecoverable,
  oursRecoverable,
  otherOf,
  type Contender,
} from './contenders.ts';
import { heldMemory, type PerConnection } from './member-memory.ts';
import type { BenchOptions } from './options.ts';
import { startDatabase, type BenchDatabase } from './postgres.ts';
import { runRace } from './race.ts';
import { oursPath, pathOf } from './row-paths.ts';
import { closeLanes, openLane, raceRows, type Lane } from './rows.ts';
import { contendersOf } from './rules.ts';
import { repositoryRoot } from './server-process.ts';
import { median, printTable, ratio, ratios } from './table.ts';

const wideRounds = 15;
/** Few would be lost in what else the process takes and gives back. */
const heldConnections = { websocket: 10_000, events: 6_000 };

async function races(
  pairs: readonly { readonly title: string; readonly other: Contender; readonly ours: Contender }[],
  windows: readonly number[],
  { quick }: BenchOptions,
): Promise<void> {
  for (const { title, other, ours } of pairs) {
    await runRace({
      title,
      contenders: [other, ours],
      reference: other,
      windows,
      connections: 1000,
      rounds: quick ? 5 : wideRounds,
      seconds: quick ? 0.7 : 1.5,
    });
  }
}

function fanout(root: string, options: BenchOptions): Promise<void> {
  const pairs = [oursEphemeral, oursRecoverable].map((ours) => ({
    title: '1,000 WebSocket subscribers, data of 120 bytes',
    other: otherOf(ours, root),
    ours,
  }));
  return races(pairs, [1, 8, 32], options);
}

function sse(root: string, options: BenchOptions): Promise<void> {
  const pairs = [oursEventsEphemeral, oursEventsRecoverable].map((ours) => ({
    title: '1,000 event streams, data of 120 bytes',
    other: otherOf(ours, root),
    ours,
  }));
  return races(pairs, [8, 32], options);
}

async function rules(root: string, options: BenchOptions): Promise<void> {
  const others = await contendersOf(root);
  const pairs = (await contendersOf()).flatMap((ours, index) => {
    const other = others[index];
    if (other === undefined) return [];
    const name = `${other.name}, of the other checkout`;
    const server = { ...other.server, name: `${other.server.name}, the other` };
    return [{ title: '1,000 WebSocket subscribers, by rules', other: { ...other, name, server }, ours }];
  });
  await races(pairs, [8], options);
}

/** Without garbage: how much of it there is depends on when it was collected last, and says nothing of either. */
async function memory(root: string, { quick }: BenchOptions): Promise<void> {
  const rows: string[][] = [];
  for (const transport of ['websocket', 'events'] as const) {
    const connections = heldConnections[transport];
    const held = { transport, connections, roomSize: connections, isPresent: false };
    const others: PerConnection[] = [];
    const ours: PerConnection[] = [];
    for (let round = 0; round < (quick ? 1 : 5); round++) {
      const [other, own] = await Promise.all([
        heldMemory({ ...held, root }),
        heldMemory({ ...held, root: repositoryRoot }),
      ]);
      others.push(other);
      ours.push(own);
    }
    const name = transport === 'events' ? 'event stream' : 'WebSocket';
    rows.push(memoryRow(`${name}, of the other checkout`, others, others), memoryRow(name, ours, others));
  }
  printTable(
    'Idle connections, one subscription each, garbage collected',
    ['', 'kB per connection', 'of it living objects', 'ratio', 'each round'],
    rows,
  );
}

function memoryRow(name: string, rounds: readonly PerConnection[], reference: readonly PerConnection[]): string[] {
  const resident = rounds.map((round) => round.resident);
  const perRound = resident.map((value, round) => value / (reference[round]?.resident ?? Number.NaN));
  const heap = median(rounds.map((round) => round.heap));
  return [name, ratio(median(resident)), ratio(heap), ratio(median(perRound)), ratios(resident)];
}

/** Each with a database of its own. */
async function rows(root: string, options: BenchOptions): Promise<void> {
  const databases: BenchDatabase[] = [];
  const lanes: Lane[] = [];
  try {
    for (const path of [pathOf('the other checkout', root), oursPath]) {
      const database = await startDatabase();
      databases.push(database);
      lanes.push(await openLane(path, database));
    }
    await raceRows(lanes, options);
  } finally {
    await closeLanes(lanes);
    for (const database of databases) await database.close();
  }
}

/** `root` is the folder of the other checkout, with its packages installed. */
export const beside: Readonly<Record<string, (root: string, options: BenchOptions) => Promise<void>>> = {
  fanout,
  sse,
  memory,
  connect: (root, options) => connect(options, root),
  rules,
  rows,
};
