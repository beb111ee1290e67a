// One publication to 1,000 event streams: ours, ephemeral and recoverable, beside the two ways of writing bare streams
// on Bun, with 8 and 32 publications in flight.
import { eventsEach, eventsJoined, oursEventsEphemeral, oursEventsRecoverable } from './contenders.ts';
import type { BenchOptions } from './options.ts';
import { runRace } from './race.ts';

export function sse(options: BenchOptions): Promise<void> {
  const all = [eventsJoined, eventsEach, oursEventsEphemeral, oursEventsRecoverable];
  return runRace({
    title: '1,000 event streams, data of 120 bytes',
    contenders: all.filter((contender) => options.takes(contender)),
    reference: eventsJoined,
    windows: [8, 32],
    connections: 1000,
    rounds: options.quick ? 2 : 7,
    seconds: options.quick ? 0.7 : 1.5,
  });
}
