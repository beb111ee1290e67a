// What hooks are told of members: one that has left while it was entered never was one, and what is told while it changes is
// told again.

import { expect, test } from 'bun:test';
import type { Entrant, Presence } from '../../src/core/presence.ts';
import { HookedPresence } from '../../src/hooks/hooked-presence.ts';
import { Subjects } from '../../src/hooks/subjects.ts';
import { HandClock } from '../support/hub.ts';

const graceMs = 1_000;

function due(subjects: Subjects): (readonly [string, boolean])[] {
  return subjects.due(100).map(({ subject, isHere }) => [`${subject.kind} ${subject.channel} ${subject.who}`, isHere]);
}

test('one that has left while it was entered is no member', async () => {
  const clock = new HandClock();
  const subjects = new Subjects(graceMs, clock);
  const entered = Promise.withResolvers<void>();
  const members = new Set<string>();
  const presence = {
    // It comes in and goes before whoever waits for it hears of that.
    enter: () => entered.promise,
    has: (connection: string) => members.has(connection),
  } as unknown as Presence;
  const hooked = new HookedPresence(presence, subjects);
  const ann = { id: 'c', identity: { user: 'ann' } } as unknown as Entrant;
  const entering = hooked.enter(ann, 'a', '1', 9);
  entered.resolve();
  await entering;
  expect(due(subjects)).toEqual([]);
});

test('what changes while it is told is told again, and what was told in vain too', () => {
  const clock = new HandClock();
  const subjects = new Subjects(graceMs, clock);
  subjects.user('ann', true);
  const first = subjects.due(100);
  expect(first.map(({ isHere }) => isHere)).toEqual([true]);
  // The database did not answer: it may know of ann, and she is gone for good.
  subjects.user('ann', false);
  clock.advance(graceMs);
  expect(due(subjects)).toEqual([['user  u:ann', false]]);
  // She comes back while her end is told.
  const end = subjects.due(100);
  subjects.user('ann', true);
  subjects.told(end);
  expect(due(subjects)).toEqual([['user  u:ann', true]]);
  expect(subjects.size).toBe(1);
});
