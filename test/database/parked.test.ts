// One row that could not be decoded, moved or published used to stop the relay for all tables, for ever. It is parked, its
// channels get one gap in its place, and everything else goes on, in order.

import { afterEach, expect, test } from 'bun:test';
import postgres from 'postgres';
import type { Change } from '../../src/changes/destination.ts';
import { IntoAdapter } from '../../src/changes/into-adapter.ts';
import { connect } from '../../src/database/connect.ts';
import { migrate } from '../../src/database/migrate.ts';
import { createDatabase, sharedCluster, type TestDatabase } from '../support/postgres.ts';
import { patient } from '../support/patience.ts';
import { expectConsecutive, leave, startRelay, until, type TestRelayOptions } from './support.ts';

patient();

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

interface Stage {
  readonly url: string;
  readonly sql: postgres.Sql;
}

/** A migrated database of any encoding, in the cluster that all tests share. */
async function databaseOf(encoding: string): Promise<Stage> {
  const { port } = await sharedCluster();
  const name = `parked_${encoding.toLowerCase()}_${process.pid}`;
  const admin = postgres(`postgres://postgres@127.0.0.1:${port}/postgres`, { max: 1, onnotice: () => undefined });
  await admin.unsafe(`drop database if exists ${name} with (force)`);
  await admin.unsafe(
    `create database ${name} owner app encoding '${encoding}' lc_collate 'C' lc_ctype 'C' template template0`,
  );
  closers.push(async () => {
    await admin.unsafe(`drop database if exists ${name} with (force)`);
    await admin.end({ timeout: 1 });
  });
  return opened({ url: `postgres://app@127.0.0.1:${port}/${name}` });
}

async function opened({ url }: Pick<TestDatabase, 'url'>): Promise<Stage> {
  await migrate(url);
  const sql = postgres(url, { max: 4, onnotice: () => undefined });
  closers.push(() => sql.end({ timeout: 1 }));
  return { url, sql };
}

async function relaying(url: string, options: TestRelayOptions = {}) {
  const started = await startRelay(url, options);
  closers.push(() => started.relay.close());
  return started;
}

async function parkedOf(sql: postgres.Sql): Promise<Record<string, unknown>[]> {
  return [...(await sql`select channel, watch, data, bytes::int, error from realtime.parked order by number`)];
}

function idsOf(rows: readonly { readonly data: string }[]): number[] {
  return rows
    .filter(({ data }) => data !== '')
    .map(({ data }) => (JSON.parse(data) as { data: { id: number } }).data.id);
}

// In SQL_ASCII the database takes any bytes; the relay reads UTF-8.
test('a row that cannot be decoded, beside 10,000 others', async () => {
  const { url, sql } = await databaseOf('SQL_ASCII');
  await sql`create table item (id int primary key, body text)`;
  await sql`select realtime.watch('item', array['item', 'item:{id}'])`;
  const relay = await relaying(url);
  await sql`insert into item select g, 'well' from generate_series(1, 5000) g`;
  await sql.unsafe(`insert into item values (5001, E'\\xff')`);
  await sql`insert into item select g, 'well' from generate_series(5002, 10001) g`;
  const tableRows = () => relay.rows.filter(({ channel }) => channel === 'item');
  await until(() => tableRows().length === 10_001, 20_000);
  expectConsecutive(tableRows());
  expect(idsOf(tableRows())).toEqual(Array.from({ length: 10_001 }, (_, i) => i + 1).filter((id) => id !== 5001));
  const gaps = relay.rows.filter(({ data }) => data === '');
  expect(gaps.map(({ channel }) => channel)).toEqual(['item', 'item:5001']);
  expect(relay.parked()).toBe(2);
  expect(relay.errors).toEqual([]);
  const parked = await parkedOf(sql);
  expect(parked.map(({ channel }) => channel)).toEqual(['item', 'item:5001']);
  expect(parked[0]).toMatchObject({ error: expect.stringContaining('invalid byte sequence') as string });
  expect((parked[0]!['data'] as Buffer).includes(0xff)).toBe(true);
  const [fault] = await sql`select fault_count::int as count, last_reason as reason from realtime.watches`;
  expect(fault).toMatchObject({ count: 2, reason: 'parked: 22021' });
  expect(await sql`select from realtime.outbox`).toHaveLength(0);
}, 60_000);

test('many of them, in every other place', async () => {
  const { url, sql } = await databaseOf('SQL_ASCII');
  const relay = await relaying(url);
  await sql.unsafe(`
    insert into realtime.outbox (xid, lsn, channel, data)
    select pg_current_xact_id(), pg_current_wal_insert_lsn(), 'many', case g % 2 when 0 then E'"\\xfe"' else '1' end
    from generate_series(1, 60) g`);
  await until(() => relay.rows.length === 60, 20_000);
  expectConsecutive(relay.rows);
  expect(relay.rows.map(({ data }) => data)).toEqual(Array.from({ length: 60 }, (_, i) => (i % 2 === 0 ? '1' : '')));
  expect(relay.parked()).toBe(30);
}, 60_000);

test('a row beyond the limit is parked unread, whatever its size', async () => {
  const { url, sql } = await opened(await createDatabase());
  await sql`create table item (id int primary key, body text)`;
  await sql`select realtime.watch('item')`;
  const relay = await relaying(url);
  await sql`insert into item values (1, 'small')`;
  await until(() => relay.rows.length === 1);
  const before = process.memoryUsage().rss;
  const size = process.env['LONG'] === '1' ? 200_000_000 : 20_000_000;
  await sql`insert into item values (2, repeat('x', ${size}::int))`;
  await sql`insert into item values (3, 'small'), (4, repeat('y', 1000000))`;
  await until(() => relay.rows.length === 4, 30_000);
  expect(relay.rows.map(({ data }) => data.length > 20)).toEqual([true, false, true, true]);
  expect(process.memoryUsage().rss - before).toBeLessThan(150 << 20);
  const [parked] = await parkedOf(sql);
  expect(parked!['error']).toBe('The row is larger than MAX_ROW_BYTES (16777216 bytes).');
  expect(parked!['bytes']).toBeGreaterThan(size);
  expect(String(parked!['data'])).toStartWith('{"action":"INSERT","schema":"public","table":"item","data":{"id":2,');
}, 60_000);

class ReplyError extends Error {
  override readonly name = 'ReplyError';
}

/** A layer that takes all but what `refuse` throws at. */
async function intoLayer(refuse: (change: Change) => void) {
  const { url, sql } = await opened(await createDatabase());
  const pool = connect(url, { applicationName: 'layer', max: 1 });
  closers.push(() => pool.end({ timeout: 1 }));
  const taken: Change[] = [];
  const keys = new Set<string>();
  const publish = async (change: Change): Promise<void> => {
    refuse(change);
    await Promise.resolve();
    if (keys.has(change.key!)) return;
    keys.add(change.key!);
    taken.push(change);
  };
  const destination = new IntoAdapter({ sql: pool, publish, settled: () => undefined });
  const relay = await relaying(url, { destination });
  return { sql, relay, taken };
}

test('a layer that refuses a row gets a gap for it', async () => {
  const { sql, relay, taken } = await intoLayer(({ data }) => {
    if (data === '"bad"') throw new Error('it failed', { cause: new ReplyError('ERR string exceeds maximum') });
  });
  await leave(sql, [
    ...Array.from({ length: 2_500 }, () => ['a', '1'] as const),
    ['b', '"bad"'],
    ['b', '2'],
    ['a', '3'],
  ]);
  await until(async () => (await sql`select from realtime.outbox`).length === 0);
  expect(taken.filter(({ channel }) => channel === 'a')).toHaveLength(2_501);
  expect(taken.filter(({ channel }) => channel === 'b').map(({ data }) => data)).toEqual(['2', '']);
  expect(relay.parked()).toBe(1);
  expect(await parkedOf(sql)).toMatchObject([{ channel: 'b', error: 'ERR string exceeds maximum' }]);
});

test('a channel that is refused whatever it gets is given up, and the others are served', async () => {
  const { sql, relay, taken } = await intoLayer(({ channel }) => {
    if (channel === 'b') throw new ReplyError('WRONGTYPE Operation against a key');
  });
  await leave(sql, [
    ['a', '1'],
    ['b', '2'],
    ['a', '3'],
  ]);
  await until(async () => (await sql`select from realtime.outbox`).length === 0);
  expect(taken.map(({ data }) => data)).toEqual(['1', '3']);
  // The row, and the gap in its place.
  expect(relay.parked()).toBe(2);
});

test('a layer that is away, or full, gets everything later', async () => {
  let failure: Error | undefined = new ReplyError('OOM command not allowed');
  const { sql, relay, taken } = await intoLayer(() => {
    if (failure !== undefined) throw failure;
  });
  await leave(sql, [['a', '1']]);
  await until(() => relay.errors.length > 2, 20_000);
  failure = Object.assign(new Error('lost'), { code: 'ECONNRESET' });
  const before = relay.errors.length;
  await until(() => relay.errors.length > before, 20_000);
  failure = undefined;
  await until(() => taken.length === 1, 20_000);
  expect(relay.parked()).toBe(0);
}, 60_000);

test('what was parked long ago is forgotten', async () => {
  const { sql } = await opened(await createDatabase());
  await sql`insert into realtime.parked (channel, error, written_at, parked_at)
    values ('a', 'x', now(), now() - interval '31 days'), ('a', 'x', now(), now() - interval '29 days')`;
  await sql`select realtime.forget_parked()`;
  expect(await sql`select from realtime.parked`).toHaveLength(1);
});
