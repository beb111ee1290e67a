// A few listeners are told at once, many in turns; nobody hears anything twice or in another order.
import { expect, test } from 'bun:test';
import { Announcer, manyListeners, shardsOf } from '../../../src/presence/announcer.ts';
import type { Told } from '../../../src/presence/store.ts';
import { HandClock, idle } from '../../support/hub.ts';

function stage(): {
  announcer: Announcer;
  clock: HandClock;
  heard: Map<number, string[]>;
  writes: number[];
  counted: number[];
  count: (listeners: number) => void;
} {
  const clock = new HandClock();
  const heard = new Map<number, string[]>();
  const writes: number[] = [];
  let listeners = 0;
  const counted: number[] = [];
  const announcer = new Announcer({
    listeners: () => listeners,
    clock,
    sent: (_type, _channel, count) => counted.push(count),
    log: () => undefined,
  });
  announcer.attach({
    transport: 'test',
    publication: () => 0,
    gap: () => undefined,
    presence: (_channel, shard, pushes) => {
      writes.push(shard);
      heard.set(shard, [...(heard.get(shard) ?? []), ...pushes.map(({ frame }) => frame)]);
      return shard === 0 ? listeners - 1 : 0;
    },
  });
  return { announcer, clock, heard, writes, counted, count: (value) => (listeners = value) };
}

/** Some hear by each shard. */
function deal(announcer: Announcer): void {
  for (const id of ['id0', 'id1', 'id2', 'id3']) announcer.shardFor('room', id);
}

const told = (version: number): Told => ({ kind: 'join', version, connection: `c${version}`, member: '{}' });
const frame = (version: number): string => `{"type":"join","channel":"room","member":{},"version":${version}}`;

test('a few are told at once, nobody is told nothing', async () => {
  const { announcer, heard, counted, count } = stage();
  announcer.changed('room', [told(1)]);
  expect(heard.size).toBe(0);
  count(manyListeners - 1);
  deal(announcer);
  announcer.changed('room', [told(2), told(3)]);
  for (const shard of [0, 1, 2, 3]) expect(heard.get(shard)).toEqual([frame(2), frame(3)]);
  // What connections got is counted, and not how many members there are: a user's own entering is not told to it.
  expect(counted).toEqual([manyListeners - 2, manyListeners - 2]);
  await idle();
});

test('of many, each shard is written to once in a round, in its own turn, with all that came meanwhile', async () => {
  const { announcer, clock, heard, writes, count } = stage();
  count(5_000);
  deal(announcer);
  for (let version = 1; version <= 24; version++) {
    announcer.changed('room', [told(version)]);
    clock.advance(5);
    await idle();
  }
  // Two rounds of 62 ms, in which no two shards were written to in one moment.
  expect(writes.length).toBeWithin(4, 10);
  expect(new Set(writes.slice(0, 4)).size).toBe(4);
  count(10);
  announcer.changed('room', [told(25)]);
  for (let passed = 0; passed < 100; passed += 5) {
    clock.advance(5);
    await idle();
  }
  const all = Array.from({ length: 25 }, (_, index) => frame(index + 1));
  for (const shard of [0, 1, 2, 3]) expect(heard.get(shard)).toEqual(all);
  expect(clock.sleeping).toBe(0);
});

test('connections are dealt about evenly, but the first few of a channel', () => {
  const ids = Array.from('0123456789abcdefghijklmnopqrstuvwxyz', (letter) => `id${letter}`);
  const { announcer, count } = stage();
  const dealt = (id: string, listeners: number): number => {
    count(listeners);
    return announcer.shardFor('room', id);
  };
  const counts = [0, 0, 0, 0];
  for (const id of ids) counts[dealt(id, 1_000)]!++;
  for (const each of counts) expect(each).toBeWithin(8, 11);
  expect(new Set(ids.map((id, index) => dealt(id, index + 1))).size).toBe(1);
  for (const id of ids) for (const listeners of [1, 1_000]) expect(shardsOf(id)).toContain(dealt(id, listeners));
});

test('a channel that never had more than a few is written to in one shard, until everyone has gone', () => {
  const { announcer, writes, count } = stage();
  const written = (version: number): number[] => {
    writes.length = 0;
    announcer.changed('room', [told(version)]);
    return [...writes];
  };
  count(3);
  announcer.shardFor('room', 'id3');
  expect(written(1)).toEqual([0]);
  count(60);
  announcer.shardFor('room', 'id3');
  count(2);
  announcer.sweep();
  // Whoever came when there were many hears where it was dealt to.
  expect(written(2)).toEqual([0, 1, 2, 3]);
  count(0);
  announcer.sweep();
  count(1);
  announcer.shardFor('room', 'id1');
  expect(written(3)).toEqual([0]);
});
