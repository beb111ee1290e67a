// The log's SQL functions on a real PostgreSQL: numbering by relay and append, trimming, forgetting, counting.

import { beforeEach, describe, expect, test } from 'bun:test';
import { database, expectConsecutive, relayed } from './support.ts';
import type { LogRow } from '../../src/database/log-row.ts';

const { sql } = await database();

beforeEach(async () => {
  await sql`truncate realtime.outbox, realtime.publications, realtime.channels`;
});

type Appended = LogRow & { fresh: boolean };

async function append(entries: object[]): Promise<Appended[]> {
  const filled = entries.map((entry) => ({ channel: 'a', data: '1', size: 1000, seconds: 3600, ...entry }));
  return await sql<Appended[]>`
    select seq::float8, channel, epoch, "offset"::float8, data, at::float8, "user", connection, "except", fresh
    from realtime.append(${JSON.stringify(filled)}::text::jsonb)`;
}

async function stored(channel: string): Promise<number[]> {
  const rows = await sql`select "offset"::float8 from realtime.publications where channel = ${channel} order by 1`;
  return rows.map(({ offset }) => offset as number);
}

describe('numbering', () => {
  test('offsets rise by one per channel, and seq in the order of the log', async () => {
    for (const channel of ['a', 'b', 'a', 'ephemeral:x', 'a']) await sql`select realtime.send(${channel}, '1')`;
    const { rows } = await relayed(sql, 3);
    rows.push(...(await relayed(sql)).rows);
    expect(rows.map(({ channel, offset }) => [channel, offset])).toEqual([
      ['a', 1],
      ['b', 1],
      ['a', 2],
      ['ephemeral:x', 0],
      ['a', 3],
    ]);
    const seqs = rows.filter(({ offset }) => offset > 0).map(({ seq }) => seq);
    expect(seqs.toSorted((x, y) => x - y)).toEqual(seqs);
    expect(rows[3]).toMatchObject({ seq: 0, epoch: '', user: null });
    expect(rows[0]!.epoch).toMatch(/^[a-z0-9]{6}$/);
  });

  test('clients and tables share one count', async () => {
    const [first] = await append([{ user: 'ann', connection: 'c', except: 'c', data: '{"x":1}' }]);
    expect(first).toMatchObject({ offset: 1, user: 'ann', connection: 'c', except: 'c', data: '{"x":1}', fresh: true });
    await sql`select realtime.send('a', '2')`;
    expect((await relayed(sql)).rows[0]!.offset).toBe(2);
    expect((await append([{}, { channel: 'b' }, {}])).map(({ offset }) => offset)).toEqual([3, 1, 4]);
  });

  test('a repeated key answers the position of the first, in order of the entries', async () => {
    const first = await append([{ key: 'k', data: '"one"' }, { data: '2' }, { key: 'k', data: '3' }]);
    expect(first.map(({ offset, data, fresh }) => [offset, data, fresh])).toEqual([
      [1, '"one"', true],
      [2, '2', true],
      [1, '"one"', false],
    ]);
    const again = await append([{ key: 'new' }, { key: 'k' }, { channel: 'b', key: 'k' }]);
    expect(again.map(({ offset, fresh }) => [offset, fresh])).toEqual([
      [3, true],
      [1, false],
      [1, true],
    ]);
    expect(again[1]).toMatchObject({ seq: first[0]!.seq, epoch: first[0]!.epoch, at: first[0]!.at });
  });

  test('many sessions append at once: no hole, no double, seq in the order of offsets', async () => {
    const rows = (await Promise.all(Array.from({ length: 40 }, () => append([{}, {}, {}])))).flat();
    const ordered = rows.toSorted((x, y) => x.offset - y.offset);
    expectConsecutive(ordered);
    expect(ordered.map(({ seq }) => seq)).toEqual(rows.map(({ seq }) => seq).toSorted((x, y) => x - y));
  });

  test('one notification per batch tells the newest seq, and who wrote it', async () => {
    const heard: string[] = [];
    const topic = `${(await sql`select topic from realtime.log`)[0]!['topic']}_log`;
    const listening = await sql.listen(topic, (payload) => heard.push(payload));
    await sql`select realtime.send('ephemeral:x', '1')`;
    await relayed(sql);
    const rows = await append([{}, {}]);
    await sql`select realtime.send('a', '1') from generate_series(1, 5)`;
    const { rows: later } = await relayed(sql);
    await sql.notify(topic, 'end');
    while (heard.at(-1) !== 'end') await new Promise((resolve) => setTimeout(resolve, 1));
    await listening.unlisten();
    const told = heard.map((payload) => payload.split('\n')[0]);
    expect(told).toEqual([`${rows[1]!.seq} postgres.js`, `${later.at(-1)!.seq} postgres.js`, 'end']);
  });

  test('a batch is bounded by bytes as well, and one row always passes', async () => {
    const large = JSON.stringify('x'.repeat(5_000_000));
    for (let n = 0; n < 3; n++) await sql`select realtime.send('a', ${large}::text::jsonb)`;
    const sizes: number[] = [];
    for (let taken = 1; taken > 0;) sizes.push((taken = (await relayed(sql, 1000)).taken));
    expect(sizes).toEqual([2, 1, 0]);
  });
});

describe('trimming', () => {
  const age = (seconds: number): Promise<unknown> => sql`update realtime.publications set at = at - ${seconds * 1000}`;
  const trim = (after = 0, max = 10_000): Promise<unknown> =>
    sql`select deleted::int, next::int from realtime.trim(${after}, ${max})`.then(([row]) => ({ ...row }));

  test('what is past size or age goes, after a minute of grace', async () => {
    await append(Array.from({ length: 30 }, () => ({ size: 10, seconds: 100 })));
    expect(await trim()).toEqual({ deleted: 0, next: null });
    await age(61);
    expect(await trim()).toEqual({ deleted: 20, next: null });
    expect(await stored('a')).toEqual([21, 22, 23, 24, 25, 26, 27, 28, 29, 30]);
    await age(90);
    expect(await trim()).toEqual({ deleted: 0, next: null });
    await age(10);
    expect(await trim()).toEqual({ deleted: 10, next: null });
    expect((await append([{}]))[0]!.offset).toBe(31);
  });

  test('one call looks at no more than it was told, and says where to go on', async () => {
    const rows = await append(Array.from({ length: 30 }, () => ({ size: 25 })));
    await age(61);
    expect(await trim(0, 3)).toEqual({ deleted: 3, next: rows[2]!.seq });
    expect(await trim(rows[2]!.seq, 3)).toEqual({ deleted: 2, next: rows[5]!.seq });
  });

  test('a busy channel is trimmed as it grows, a minute behind', async () => {
    await append(Array.from({ length: 600 }, () => ({ size: 100 })));
    await age(61);
    await append([{ size: 100 }]);
    expect(await stored('a')).toHaveLength(601);
    await append(Array.from({ length: 300 }, () => ({ size: 100 })));
    expect((await stored('a'))[0]).toBe(601);
    await sql`select realtime.send('small', '1') from generate_series(1, 200)`;
    await relayed(sql);
    await age(61);
    await sql`select realtime.send('small', '1') from generate_series(1, 100)`;
    await relayed(sql);
    expect((await stored('small'))[0]).toBe(201);
  });
});

describe('forgetting', () => {
  test('a channel that was idle for long counts anew under another epoch; others keep theirs', async () => {
    const [[a], [b]] = [await append([{}]), await append([{ channel: 'b' }])];
    await sql`update realtime.channels set used_at = used_at - 1000000 where channel = 'a'`;
    const [row] = await sql`select realtime.forget(900)::int as n`;
    expect(row!['n']).toBe(1);
    const [[again], [kept]] = [await append([{}]), await append([{ channel: 'b' }])];
    expect(again!.offset).toBe(1);
    expect(again!.epoch).not.toBe(a!.epoch);
    expect(kept).toMatchObject({ offset: 2, epoch: b!.epoch });
    const [second] = await sql`select realtime.forget(900)::int as n, (select epoch from realtime.log) as epoch`;
    expect({ ...second }).toEqual({ n: 0, epoch: again!.epoch });
  });
});

test('what waits is counted, with the age of the oldest', async () => {
  await sql`select realtime.send('a', '1') from generate_series(1, 12000)`;
  await sql`update realtime.outbox set at = at - interval '1 minute' where lsn = (select min(lsn) from realtime.outbox)`;
  const [stats] = await sql`select pending::int, lag_seconds from realtime.outbox_stats()`;
  expect(stats!['pending']).toBe(10_000);
  expect(stats!['lag_seconds']).toBeGreaterThan(59);
  expect(stats!['lag_seconds']).toBeLessThan(120);
});
