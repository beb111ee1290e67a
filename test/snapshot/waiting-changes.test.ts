// What waits for the relay, as a snapshot sees it, and how many looks a crowd costs.

import { expect, test } from 'bun:test';
import { connect } from '../../src/database/connect.ts';
import { WaitingChanges } from '../../src/snapshot/waiting-changes.ts';
import { database, leave, takenOver } from '../database/support.ts';

const { sql, url } = await database();

async function snapshotOf(): Promise<string> {
  const [row] = await sql`select pg_current_snapshot()::text as snapshot`;
  return row!['snapshot'] as string;
}

test('a change waits for whose snapshot sees it, until the relay has it; one by a template for everybody', async () => {
  const pool = connect(url, { applicationName: 'looks', max: 2 });
  const waiting = new WaitingChanges(pool);
  const before = await snapshotOf();
  const open = await sql.reserve();
  await open`begin`;
  await open`insert into realtime.outbox (xid, lsn, channel, data)
    values (pg_current_xact_id(), pg_current_wal_insert_lsn(), 'late', '1')`;
  await leave(sql, [
    ['a', '1'],
    ['b "\\', '1'],
  ]);
  const after = await snapshotOf();
  const asked = async (snapshot: string): Promise<boolean[]> =>
    Promise.all(['a', 'b "\\', 'c', 'late'].map((channel) => waiting.has(channel, snapshot)));
  expect(await asked(before)).toEqual([false, false, false, false]);
  expect(await asked(after)).toEqual([true, true, false, false]);
  await open`commit`;
  open.release();
  expect(await asked(after)).toEqual([true, true, false, false]);
  expect(await asked(await snapshotOf())).toEqual([true, true, false, true]);
  await takenOver(sql);
  expect(await asked(await snapshotOf())).toEqual([false, false, false, false]);
  await leave(sql, [['of:{room}', '1']]);
  expect(await asked(await snapshotOf())).toEqual([true, true, true, true]);
  await takenOver(sql);
  await pool.end({ timeout: 1 });
});

test('1,000 who ask at once share two looks; one that fails fails nobody later', async () => {
  const pool = connect(url, { applicationName: 'looks', max: 2 });
  let looks = 0;
  const counted = new Proxy(pool, {
    apply: (target, self, call) => {
      looks++;
      return Reflect.apply(target, self, call) as unknown;
    },
  });
  const waiting = new WaitingChanges(counted);
  const snapshot = await snapshotOf();
  const answers = await Promise.all(Array.from({ length: 1_000 }, (_, place) => waiting.has(`c:${place}`, snapshot)));
  expect(answers).not.toContain(true);
  expect(looks).toBe(2);

  await leave(sql, [['a', '1']]);
  const failing = Promise.allSettled([waiting.has('a', 'no snapshot'), waiting.has('b', snapshot)]);
  expect((await failing).map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
  expect(await waiting.has('a', await snapshotOf())).toBe(true);
  await pool.end({ timeout: 1 });
});
