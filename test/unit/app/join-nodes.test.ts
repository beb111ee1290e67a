// On a busy machine the first message to the other nodes was not taken in time, and the start ended with "Command timed
// out". A layer that is away for a moment is waited for; a name that is taken is not.

import { expect, test } from 'bun:test';
import { joinNodes, type JoinParts } from '../../../src/app/join-nodes.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { SettingsError } from '../../../src/settings/settings.ts';
import { unlimited } from '../../support/doubles.ts';
import { createHub, HandClock, idle, memoryAdapter } from '../../support/hub.ts';

/** `failures`: of the first calls that reach the layer. */
function partsOf(clock: HandClock, failures: number, said: string[]): JoinParts {
  const log = memoryAdapter(clock);
  let left = failures;
  const adapter = new Proxy(log, {
    get(target, key) {
      if (key === 'traits') return { shared: true, durable: false };
      if (key === 'publish' && left-- > 0) {
        return () =>
          Promise.reject(new RealtimeError('unavailable', undefined, { cause: new Error('Command timed out') }));
      }
      const value: unknown = Reflect.get(target, key);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  return {
    ...createHub({ clock, adapter, rules: [{ channels: '*' }] }),
    clock,
    limits: unlimited,
    incarnation: 'incarnation1',
    drain: () => undefined,
    rates: (after: number) => ({ from: after + 1, series: {} }),
    settings: { nodeId: 'a', nodeIdGiven: true },
    log: { warn: (_details: object, message?: string) => void said.push(message ?? '') },
    closing: { add: () => undefined },
  } as unknown as JoinParts;
}

async function passing<Value>(clock: HandClock, promise: Promise<Value>): Promise<Value> {
  let done = false;
  const settled = promise.finally(() => (done = true));
  settled.catch(() => undefined);
  for (let step = 0; !done && step < 200; step++) {
    clock.advance(100);
    await idle();
  }
  return settled;
}

test('a layer that is away for a moment is waited for, and the log says so once', async () => {
  const clock = new HandClock();
  const said: string[] = [];
  const nodes = await passing(clock, joinNodes(partsOf(clock, 3, said)));
  expect(nodes.nodes.map(({ node }) => node)).toEqual(['a']);
  expect(said).toEqual(['waiting for the other nodes']);
  await nodes.close();
});

test('one that stays away ends the start after a while', async () => {
  const clock = new HandClock();
  const startedAt = clock.now();
  const failed: unknown = await passing(clock, joinNodes(partsOf(clock, 1_000, []))).catch((error: unknown) => error);
  expect(failed).toMatchObject({ code: 'unavailable' });
  expect(failed).not.toBeInstanceOf(SettingsError);
  expect(clock.now() - startedAt).toBeGreaterThan(9_000);
});
