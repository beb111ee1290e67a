// A list that was read in steps. A node with 20,000 members died while another read the list anew: the list lacked members
// whose leaves came after it, and clients that count were 974 off for good. What a list shows and what follows it must
// fit together exactly.

import { expect, test } from 'bun:test';
import { memberJson } from '../../../src/presence/member.ts';
import { Roster } from '../../../src/presence/roster.ts';
import type { PresenceStore, Snapshot, StoredMember, Told } from '../../../src/presence/store.ts';
import { systemClock } from '../../../src/time/clock.ts';
import { until } from '../../support/tcp-client.ts';

const epoch = 'e';

function stored(connection: string): StoredMember {
  return { connection, node: 'n', member: memberJson(connection, connection, '1', 1) };
}

function left(connection: string, version: number): Told {
  return { kind: 'leave', version, connection, member: stored(connection).member };
}

/** A roster over a store that answers what it is given, and what its listeners were told. */
function open(answers: Snapshot[]): { roster: Roster; heard: string[] } {
  const heard: string[] = [];
  const store: Pick<PresenceStore, 'watch' | 'read'> = {
    watch: () => Promise.resolve(),
    read: async () => answers.shift() ?? Promise.reject(new Error('read once too often')),
  };
  const roster = new Roster('room', {
    store: store as PresenceStore,
    clock: systemClock,
    listeners: () => 1,
    own: () => undefined,
    changed: (_roster, told) => void heard.push(...told.map(({ kind, version }) => `${kind} ${version}`)),
    read: (each) => {
      const { count, version } = each.list(10);
      heard.push(`${count} at ${version}`);
    },
    log: (message) => void heard.push(message),
  });
  return { roster, heard };
}

test('what was read in steps is told once all that it shows has arrived', async () => {
  // Three were there at 3; the second and the third left, at 4 and 5, before the last step.
  const { roster, heard } = open([{ epoch, version: 3, upTo: 5, members: [stored('a')] }]);
  const live = roster.read();
  await Bun.sleep(0);
  roster.take(epoch, [left('b', 4)]);
  await Bun.sleep(30);
  expect(heard).toEqual([]);
  roster.take(epoch, [left('c', 5), left('a', 6)]);
  await live;
  expect(heard).toEqual(['0 at 6']);
  roster.take(epoch, [{ ...left('d', 7), kind: 'join' }]);
  await until(() => heard.length === 2, 'the join');
  expect(heard).toEqual(['0 at 6', 'join 7']);
});

test('a change of that stretch that never arrives has the list read again', async () => {
  const { roster, heard } = open([
    { epoch, version: 3, upTo: 5, members: [stored('a')] },
    { epoch, version: 5, members: [stored('a')] },
  ]);
  await roster.read();
  expect(heard).toEqual(['1 at 5']);
});
