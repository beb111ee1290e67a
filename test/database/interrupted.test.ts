// Statements of the application that end in the middle: by a timeout, by a cancellation, with their session. What they
// changed is not told, and the session that goes on is captured as before.

import { afterAll, expect, test } from 'bun:test';
import postgres from 'postgres';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { takenOver } from './support.ts';

patient();

const created = await createDatabase({ migrated: true });
const connect = (): postgres.Sql => postgres(created.url, { max: 1, max_lifetime: null, onnotice: () => undefined });
const sql = connect();
const writer = connect();

afterAll(async () => {
  await Promise.all([sql.end({ timeout: 1 }), writer.end({ timeout: 1 })]);
  await created.drop();
});

/** What somebody knows who follows the channel from its beginning. */
const known = new Map<number, number>();

async function follow(): Promise<void> {
  for (const { data } of await takenOver(sql)) {
    const { action, data: row, old } = data as Record<string, { id: number; n: number }> & { action: string };
    if (action !== 'INSERT') expect(known.delete(old!.id)).toBe(true);
    if (action !== 'DELETE') {
      expect(known.has(row!.id)).toBe(false);
      known.set(row!.id, row!.n);
    }
  }
}

async function expectWhole(): Promise<void> {
  await follow();
  const rows = await sql<{ id: number; n: number }[]>`select id, n from item order by id`;
  expect([...known].toSorted(([one], [other]) => one - other)).toEqual(rows.map(({ id, n }) => [id, n]));
}

test('a timeout at any place of a statement, the capture too', async () => {
  await sql.unsafe(`create table item (id int primary key, n int); select realtime.watch('item')`);
  let failed = 0;
  for (let limit = 1, isDone = false; !isDone; limit = Math.ceil(limit * 1.4)) {
    await writer.unsafe(`set statement_timeout = ${limit}`);
    isDone = await writer.unsafe('insert into item select i, 0 from generate_series(1, 5000) i').then(
      () => true,
      (error: unknown) => {
        expect((error as postgres.PostgresError).code).toBe('57014');
        return false;
      },
    );
    // On a machine that is busy, this one may meet the limit too.
    let isLifted = false;
    while (!isLifted) isLifted = await writer.unsafe('set statement_timeout = 0').then(Boolean, () => false);
    if (!isDone) {
      failed++;
      await writer`insert into item values (${-failed}, 1)`;
      await writer`update item set n = 2 where id = ${-failed}`;
    }
  }
  await expectWhole();
  expect(failed).toBeGreaterThan(0);
});

test('a statement that was cancelled behind a savepoint', async () => {
  const [session] = await writer`select pg_backend_pid() as pid`;
  await writer.unsafe('begin; insert into item values (10001, 1); savepoint before').simple();
  const waiting = writer
    .unsafe(
      `insert into item select i, case when pg_sleep(20) is null then 0 end
      from generate_series(20001, 20002) i`,
    )
    .then(
      () => 'done',
      (error: unknown) => (error as postgres.PostgresError).code,
    );
  for (let asked = false; !asked;) {
    const [row] = await sql`select wait_event = 'PgSleep' and pg_cancel_backend(pid) as asked
      from pg_stat_activity where pid = ${session!['pid'] as number}`;
    asked = row?.['asked'] === true;
  }
  expect(await waiting).toBe('57014');
  await writer
    .unsafe('rollback to before; update item set n = 5 where id in (1, 10001); delete from item where id = 2; commit')
    .simple();
  await expectWhole();
  expect(known.get(10001)).toBe(5);
});

test('a session that ends with its transaction open', async () => {
  const other = connect();
  const [session] = await other`select pg_backend_pid() as pid`;
  await other.unsafe('begin; insert into item values (30001, 1); delete from item where id = 3').simple();
  await writer`insert into item values (30002, 1)`;
  await follow();
  expect([known.has(30001), known.has(3), known.has(30002)]).toEqual([false, true, true]);
  await sql`select pg_terminate_backend(${session!['pid'] as number})`;
  await other.end({ timeout: 1 });
  await writer`insert into item values (30001, 7)`;
  await expectWhole();
});
