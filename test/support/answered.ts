// Asks again while the answer is `unavailable`: a busy machine may let an answer wait for longer than a node does.

import { RealtimeError } from '../../src/protocol/realtime-error.ts';

export async function answered<Value>(ask: () => Promise<Value>): Promise<Value> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof RealtimeError) || error.code !== 'unavailable' || tries === 100) throw error;
      await Bun.sleep(100);
    }
  }
}
