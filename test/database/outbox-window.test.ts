// Where live rows can be: the window against a model that knows which transactions are open.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { OutboxWindow } from '../../src/changes/outbox-window.ts';

const top = Number.MAX_SAFE_INTEGER;

function read(window: OutboxWindow, ids: number[], oldest: number, next: number): number[] {
  window.read({ ids, dropped: 0, horizon: { oldest, next } });
  return window.ranges();
}

test('a new window reads everything, then only above the highest id', () => {
  const window = new OutboxWindow();
  expect(window.ranges()).toEqual([1, top]);
  expect(read(window, [1, 2, 3], 10, 10)).toEqual([4, top]);
});

test('an id that was skipped stays in sight while a transaction of that time is open', () => {
  const window = new OutboxWindow();
  expect(read(window, [1, 4, 5], 8, 10)).toEqual([2, 3, 6, top]);
  expect(read(window, [], 9, 20)).toEqual([2, 3, 6, top]);
  expect(read(window, [2], 9, 20)).toEqual([3, 3, 6, top]);
  expect(read(window, [], 10, 20)).toEqual([6, top]);
});

test('a batch that was cut short closes no gap above its last id', () => {
  const window = new OutboxWindow();
  read(window, [1, 100], 8, 10);
  expect(read(window, [2, 3], 30, 30)).toEqual([4, 99, 101, top]);
  expect(read(window, [50], 30, 30)).toEqual([51, 99, 101, top]);
  expect(read(window, [], 30, 30)).toEqual([101, top]);
});

test('very many gaps are joined, never forgotten', () => {
  const window = new OutboxWindow();
  const odd = Array.from({ length: 5_000 }, (_, index) => index * 2 + 1);
  const ranges = read(window, odd, 1, 5);
  // Two ids for each gap, and two for what lies above the highest id.
  expect(window.ranges().length).toBeLessThanOrEqual(2 * 2_500 + 2);
  expect(ranges[0]).toBe(2);
  expect(ranges.at(-3)).toBe(9_998);
});

test('whatever the order of commits and the size of batches, each row is in sight when it is visible', () => {
  // Transactions take ids while open, and end by commit or rollback; in between, the relay reads batches.
  const step = fc.oneof(
    fc.record({ kind: fc.constant('insert' as const), slot: fc.nat(5) }),
    fc.record({ kind: fc.constant('commit' as const), slot: fc.nat(5) }),
    fc.record({ kind: fc.constant('rollback' as const), slot: fc.nat(5) }),
    fc.record({ kind: fc.constant('read' as const), slot: fc.nat(5) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const window = new OutboxWindow();
      const open = new Map<number, { xid: number; ids: number[] }>();
      const visible = new Set<number>();
      let [nextId, nextXid, committed, taken] = [1, 100, 0, 0];
      const relay = (limit: number): number => {
        const ranges = window.ranges();
        const within = (id: number): boolean =>
          ranges.some((first, index) => index % 2 === 0 && id >= first && id <= ranges[index + 1]!);
        for (const id of visible) if (!within(id)) throw new Error(`row ${id} is out of sight`);
        const ids = [...visible].sort((a, b) => a - b).slice(0, limit);
        for (const id of ids) visible.delete(id);
        const oldest = Math.min(nextXid, ...[...open.values()].map(({ xid }) => xid));
        window.read({ ids, dropped: 0, horizon: { oldest, next: nextXid } });
        taken += ids.length;
        return ids.length;
      };
      for (const { kind, slot } of steps) {
        if (kind === 'insert') {
          const transaction = open.get(slot) ?? { xid: nextXid++, ids: [] };
          transaction.ids.push(nextId++);
          open.set(slot, transaction);
        } else if (kind === 'read') {
          relay(slot + 1);
        } else {
          const ids = kind === 'commit' ? (open.get(slot)?.ids ?? []) : [];
          for (const id of ids) visible.add(id);
          committed += ids.length;
          open.delete(slot);
        }
      }
      while (relay(3) > 0);
      expect(taken).toBe(committed);
    }),
    { numRuns: 500 },
  );
});
