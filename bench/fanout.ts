// One publication to 1,000 WebSocket subscribers: ours, ephemeral and recoverable, beside the bare native topic and the
// `ws` package's loop of send, with 1, 8 and 32 publications in flight.
import { bareWebSocket, oursEphemeral, oursRecoverable, wsLoop } from './contenders.ts';
import type { BenchOptions } from './options.ts';
import { runRace } from './race.ts';

export function fanout(options: BenchOptions): Promise<void> {
  const all = [bareWebSocket, wsLoop, oursEphemeral, oursRecoverable];
  return runRace({
    title: '1,000 WebSocket subscribers, data of 120 bytes',
    contenders: all.filter((contender) => options.takes(contender)),
    reference: bareWebSocket,
    windows: [1, 8, 32],
    connections: 1000,
    rounds: options.quick ? 2 : 7,
    seconds: options.quick ? 0.7 : 1.5,
  });
}
