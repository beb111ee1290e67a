// The budget of what readers cost together: who is cut, in which order, and who is left in peace.

import { expect, test } from 'bun:test';
import { BufferBudget } from '../../src/core/buffer-budget.ts';
import type { Session } from '../../src/core/session.ts';

/** As much of a session as the budget asks for. */
class Reader {
  closed = false;
  bytes: number;
  readonly outlet = {
    bufferedBytes: (): number => this.bytes,
    terminate: (): void => {
      this.closed = true;
    },
  };

  constructor(bytes: number) {
    this.bytes = bytes;
  }
}

const kibibyte = 1_024;

function budgetOf(readers: readonly Reader[], bytesMax: number) {
  const sessions = new Map(readers.map((reader, index) => [String(index), reader as unknown as Session]));
  const cuts: { readers: number; bytes: number }[] = [];
  return { budget: new BufferBudget({ sessions, bytesMax, onCut: (cut) => cuts.push(cut) }), sessions, cuts };
}

test('below the budget nobody is cut, however unequal they are', () => {
  const readers = [new Reader(900 * kibibyte), new Reader(50 * kibibyte), new Reader(0)];
  const { budget, cuts } = budgetOf(readers, 1_000 * kibibyte);
  for (let tick = 0; tick < 30; tick++) budget.look();
  expect([readers.some(({ closed }) => closed), cuts]).toEqual([false, []]);
});

test('past it those that lag the furthest go first, until three quarters are left', () => {
  const readers = [400, 100, 300, 200, 0].map((size) => new Reader(size * kibibyte));
  const { budget, cuts } = budgetOf(readers, 900 * kibibyte);
  budget.look();
  expect(readers.map(({ closed }) => closed)).toEqual([true, false, false, false, false]);
  expect(cuts).toEqual([{ readers: 1, bytes: 400 * kibibyte }]);
});

test('who has read in the meantime no longer counts, nor who has gone', () => {
  const readers = [new Reader(600 * kibibyte), new Reader(300 * kibibyte), new Reader(0)];
  const { budget, sessions, cuts } = budgetOf(readers, 1_000 * kibibyte);
  budget.look();
  readers[0]!.bytes = 0;
  readers[1]!.closed = true;
  sessions.delete('1');
  readers[2]!.bytes = 950 * kibibyte;
  for (let tick = 0; tick < 20; tick++) budget.look();
  expect([readers[2]!.closed, cuts]).toEqual([false, []]);
});

test('among very many each is looked at within ten ticks', () => {
  const readers = Array.from({ length: 20_000 }, () => new Reader(0));
  const { budget, cuts } = budgetOf(readers, 1_000 * kibibyte);
  budget.look();
  readers.at(-1)!.bytes = 2_000 * kibibyte;
  for (let tick = 0; tick < 11; tick++) budget.look();
  expect([readers.at(-1)!.closed, cuts.length]).toEqual([true, 1]);
});
