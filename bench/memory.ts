// What an idle connection with one subscription costs in resident memory. Every figure comes from a fresh process, and
// is the growth from the first 4,000 connections to the last, so that compiled code and arenas, which are paid for once,
// are left out. Then what membership in presence adds to it.
import { bareWebSocket, eventsJoined, oursEventsRecoverable, oursRecoverable, wsLoop } from './contenders.ts';
import { runLoad } from './load-client.ts';
import { memberMemory } from './member-memory.ts';
import type { BenchOptions } from './options.ts';
import { median, printTable, ratio, ratios } from './table.ts';
import { twoAtOnce } from './two-at-once.ts';

const warmConnections = 4_000;
const settleSeconds = 2;

export async function memory(options: BenchOptions): Promise<void> {
  const connections = options.quick ? 8_000 : 15_000;
  const rounds = options.quick ? 1 : 2;
  const pairs = [
    { reference: bareWebSocket, others: [wsLoop, oursRecoverable] },
    { reference: eventsJoined, others: [oursEventsRecoverable] },
  ];
  const rows: string[][] = [];
  for (const { reference, others } of pairs) {
    const contenders = [reference, ...others].filter((contender) => options.takes(contender));
    const figures = new Map(contenders.map((contender) => [contender, [] as number[]]));
    await twoAtOnce(Array.from({ length: rounds }, () => contenders).flat(), async (contender) => {
      const server = await contender.server.start();
      try {
        const load = { connections, seconds: 0, settleSeconds, warmConnections };
        figures.get(contender)?.push((await runLoad(contender, server, load)).kbPerConnection);
      } finally {
        await server.stop();
      }
    });
    const bare = figures.get(reference) ?? [];
    for (const [contender, values] of figures) {
      const perRound = values.map((value, round) => value / (bare[round] ?? Number.NaN));
      rows.push([
        `${contender.transport === 'events' ? 'event stream' : 'WebSocket'}: ${contender.name}`,
        ratio(median(values)),
        ratios(values),
        ratio(median(perRound)),
      ]);
    }
  }
  printTable(
    `${connections.toLocaleString('en')} idle connections, one subscription each`,
    ['', 'kB per connection', 'each round', 'ratio'],
    rows,
  );
  if (!options.baselinesOnly) await memberMemory(options);
}
