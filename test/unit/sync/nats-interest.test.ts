// Who came while a question was under way waits for the next one. When the first one failed, the next was never asked: all
// who came during any later question got the old failure, for as long as the node lived.

import { expect, test } from 'bun:test';
import type { NatsConnection } from '@nats-io/transport-node';
import { NatsInterest } from '../../../src/sync/nats/interest.ts';
import { NatsNames } from '../../../src/sync/nats/names.ts';
import { systemClock } from '../../../src/time/clock.ts';

test('a question that fails takes no later one with it', async () => {
  let isAway = true;
  const flush = async (): Promise<void> => {
    await Promise.resolve();
    if (isAway) throw new Error('away');
  };
  const connection = { info: {}, flush } as unknown as NatsConnection;
  const interest = new NatsInterest({
    live: () => connection,
    names: new NatsNames('test'),
    nodeId: 'node',
    clock: systemClock,
  });
  const outcomes = async (): Promise<string[]> => {
    const settled = await Promise.allSettled([interest.known(), interest.known(), interest.known()]);
    return settled.map(({ status }) => status);
  };
  expect(await outcomes()).toEqual(['rejected', 'rejected', 'rejected']);
  isAway = false;
  expect(await outcomes()).toEqual(['fulfilled', 'fulfilled', 'fulfilled']);
});
