// Those who leave: with a time of grace, which ends with the node, and at once only as often as others can bear to hear it.

import { expect, test } from 'bun:test';
import { Departures } from '../../../src/presence/departures.ts';
import { Fidgeting } from '../../../src/presence/fidgeting.ts';
import { HandClock, idle } from '../../support/hub.ts';

test('nobody’s time is over on a node that has ended', async () => {
  const clock = new HandClock();
  const over: string[] = [];
  const departures = new Departures(5_000, clock, ({ connection }) => over.push(connection));
  const part = (connection: string): void => departures.add({ channel: 'a', connection, parting: 1 });
  part('before');
  clock.advance(5_000);
  await idle();
  expect(over).toEqual(['before']);
  part('early');
  departures.close();
  part('late');
  clock.advance(10_000);
  await idle();
  expect(over).toEqual(['before']);
});

test('so many are remembered who left, and past that everyone is given the time of grace', () => {
  const clock = new HandClock();
  const fidgeting = new Fidgeting(clock);
  for (let user = 0; user < 20_000; user++) expect(fidgeting.isEndless(`user ${user}`, 'a')).toBe(false);
  expect(fidgeting.isEndless('one more', 'a')).toBe(true);
  clock.advance(60_000);
  fidgeting.sweep();
  expect(fidgeting.isEndless('one more', 'a')).toBe(false);
});
