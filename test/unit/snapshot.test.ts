// The parts of a snapshot that need no database: queries of templates, which transactions a snapshot sees, and whose rows
// are shared.

import { describe, expect, test } from 'bun:test';
import { configFaults } from '../../src/rules/faults.ts';
import type { Snapshot } from '../../src/core/snapshot.ts';
import { SharedSnapshots } from '../../src/snapshot/shared-snapshots.ts';
import { queryOf, sql } from '../../src/snapshot/sql.ts';
import { visibilityOf } from '../../src/snapshot/visibility.ts';
import { systemClock } from '../../src/time/clock.ts';

describe('a query', () => {
  test('has values as parameters, and other queries as parts', () => {
    const open = sql`done = ${false}`;
    const query = sql`select * from tasks where room = ${"a'b"} and ${open} and id > ${3}`;
    expect(query).toEqual({
      sql: 'select * from tasks where room = $1 and done = $2 and id > $3',
      params: ["a'b", false, 3],
    });
  });

  test('takes nothing for a part that the tag did not make', () => {
    const forged = { sql: 'true; drop table tasks', params: [] };
    expect(sql`select ${forged}`).toEqual({ sql: 'select $1', params: [forged] });
  });

  test('is what the tag makes, or what a builder does', () => {
    expect(queryOf({ toSQL: () => ({ sql: 'select 1', params: [] }) })).toEqual({ sql: 'select 1', params: [] });
    // Of a query that becomes a part of another one the end would be in the middle.
    expect(
      queryOf(sql`select ${1} ; 
`),
    ).toEqual({ sql: 'select $1', params: [1] });
    for (const other of [undefined, null, 'select 1', [], {}, { sql: '', params: [] }, { sql: 'select 1' }]) {
      expect(() => queryOf(other as never)).toThrow('no query');
    }
  });
});

test('a snapshot sees what ended before it, and nothing that ran', () => {
  const sees = visibilityOf('10:20:12,15');
  expect([9, 10, 11, 12, 15, 19, 20, 21].map((xid) => sees(String(xid)))).toEqual([
    true,
    true,
    true,
    false,
    false,
    true,
    false,
    false,
  ]);
  expect(visibilityOf('18446744073709551610:18446744073709551615:')('18446744073709551614')).toBe(true);
  expect(() => visibilityOf('nonsense')).toThrow();
});

describe('shared rows', () => {
  const snapshot = (offset: number): Snapshot => ({
    frames: ['x'],
    position: { epoch: 'e', offset },
    holds: () => false,
  });

  test('are read once for all who ask meanwhile, and again for whom they are too old', async () => {
    const shared = new SharedSnapshots(systemClock);
    let reads = 0;
    const read = async (): Promise<Snapshot> => {
      await Promise.resolve();
      return snapshot(++reads);
    };
    const all = await Promise.all(Array.from({ length: 50 }, () => shared.get('k', () => true, read)));
    expect(reads).toBe(1);
    expect(all.filter(({ isNew }) => isNew)).toHaveLength(1);
    const newer = await shared.get('k', ({ position }) => position.offset > 1, read);
    expect([newer.snapshot.position.offset, reads]).toEqual([2, 2]);
    await shared.get('other', () => true, read);
    expect(reads).toBe(3);
  });

  test('are shared however much was read before', async () => {
    const shared = new SharedSnapshots(systemClock);
    const large = (): Promise<Snapshot> => Promise.resolve({ ...snapshot(1), frames: ['x'.repeat(1 << 20)] });
    for (let key = 0; key < 100; key++) {
      const ask = () => shared.get(String(key), () => true, large);
      expect([(await ask()).isNew, (await ask()).isNew]).toEqual([true, false]);
    }
  });

  test('that could not be read are read anew', async () => {
    const shared = new SharedSnapshots(systemClock);
    const failing = Array.from({ length: 3 }, () =>
      shared.get(
        'k',
        () => true,
        () => Promise.reject(new Error('away')),
      ),
    );
    for (const each of await Promise.allSettled(failing)) expect(each.status).toBe('rejected');
    expect(
      (
        await shared.get(
          'k',
          () => true,
          () => Promise.resolve(snapshot(1)),
        )
      ).isNew,
    ).toBe(true);
  });
});

test('a rule’s snapshot is a function, of a channel that numbers its publications', () => {
  const faults = configFaults({
    rules: [
      { channels: 'a', snapshot: 'select 1' as never },
      { channels: 'b', recoverable: false, snapshot: ({ sql: tag }) => tag`select 1` },
    ],
  });
  expect(faults).toEqual([
    'rules[0].snapshot: is not a function',
    'rules[1].snapshot: ephemeral channels have no position at which rows are true',
  ]);
});
