// Publications of one channel that must not overtake each other over NATS.

import { expect, test } from 'bun:test';
import type { Outgoing } from '../../../src/core/sync-adapter.ts';
import { Turns } from '../../../src/sync/nats/turns.ts';

function outgoing(batch: number, channel = 'a'): Outgoing {
  const carried = { source: 's', term: 1, batch, place: 1, id: '1', ids: ['1'], clean: false };
  return { channel, carried, data: '1', at: 0 } as unknown as Outgoing;
}

test('what follows a failure in its batch is not stored; another batch, and another channel, go on', async () => {
  const turns = new Turns();
  const stored: string[] = [];
  const fails = turns.take(outgoing(1), false, () => Promise.reject(new Error('away')));
  const store = (text: string) => (): Promise<number> => Promise.resolve(stored.push(text));
  const others = [
    turns.take(outgoing(1), false, store('follows')),
    turns.take(outgoing(1), false, store('follows too')),
    turns.take(outgoing(2), false, store('next batch')),
    turns.take(outgoing(1, 'b'), false, store('other channel')),
  ];
  await expect(fails).rejects.toThrow('away');
  const outcomes = await Promise.allSettled(others);
  expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'fulfilled', 'fulfilled']);
  expect(stored.toSorted()).toEqual(['next batch', 'other channel']);
});
