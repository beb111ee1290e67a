// The log's SQL functions on a real PostgreSQL: numbering by relay and append, trimming, forgetting, counting.

import { beforeEach, describe, expect, test } from 'bun:test';
import { database, expectConsecutive, relayed } from './support.ts';
import type { Database } from '../../src/database/connect.ts';
import { DirectSession } from '../../src/database/direct-session.ts';
import type { LogRow } from '../../src/database/log-row.ts';
import { LogTrimmer } from '../../src/changes/log-trimmer.ts';
import { systemClock } from '../../src/time/clock.ts';
import { readHeads } from '../../src/sync/postgres/queries.ts';

const { sql, url } = await database();

beforeEach(async () => {
  await sql`truncate realtime.outbox, realtime.publications, realtime.channels, realtime.forgotten`;
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

interface Trimmed {
  readonly deleted: number;
  readonly next: number;
  readonly is_done: boolean;
  readonly due: number;
}

describe('trimming', () => {
  const age = (seconds: number): Promise<unknown> => sql`update realtime.publications set at = at - ${seconds * 1000}`;
  const trim = async (seconds = 60, after = 0, max = 10_000): Promise<Trimmed> => {
    const [row] = await sql<Trimmed[]>`
      select deleted::int, next::int, is_done, coalesce(due_ms, 0)::int / 1000 as due
      from realtime.trim(${seconds}, ${after}, ${max})`;
    return row!;
  };

  test('what is past size or age goes, after a minute of grace', async () => {
    const rows = await append(Array.from({ length: 30 }, () => ({ size: 10, seconds: 100 })));
    expect(await trim()).toMatchObject({ deleted: 0, next: rows[0]!.seq - 1, is_done: true });
    await age(61);
    expect(await trim()).toMatchObject({ deleted: 20, next: rows[29]!.seq, is_done: true });
    expect(await stored('a')).toEqual([21, 22, 23, 24, 25, 26, 27, 28, 29, 30]);
    await age(90);
    expect(await trim(160)).toMatchObject({ deleted: 0, is_done: true });
    await age(10);
    expect(await trim(160)).toMatchObject({ deleted: 10, is_done: true });
    expect((await append([{}]))[0]!.offset).toBe(31);
  });

  test('a channel whose history is all trimmed keeps its count, for the next publication and for who asks', async () => {
    const [first] = await append([{ seconds: 1 }, { seconds: 1 }]);
    await age(70);
    expect((await trim(61)).deleted).toBe(2);
    const [head] = await sql`select "offset"::int, epoch from realtime.channels where channel = 'a'`;
    expect({ ...head }).toEqual({ offset: 2, epoch: first!.epoch });
    expect((await append([{}]))[0]).toMatchObject({ offset: 3, epoch: first!.epoch });
  });

  test('one call looks at no more than it was told, and says where to go on and for how long that was due', async () => {
    const rows = await append(Array.from({ length: 30 }, () => ({ size: 25 })));
    await age(70);
    expect(await trim(60, 0, 3)).toEqual({ deleted: 3, next: rows[2]!.seq, is_done: false, due: 10 });
    expect(await trim(60, rows[2]!.seq, 3)).toMatchObject({ deleted: 2, next: rows[5]!.seq, is_done: false });
    expect(await trim(60, rows[5]!.seq, 100)).toMatchObject({ deleted: 0, next: rows[29]!.seq, is_done: true, due: 0 });
  });

  // One rule that kept longer than another stopped the trimming of both: the oldest rows were those of the first.
  test('rules that keep for long are not in the way of those that keep for short', async () => {
    await append(
      Array.from({ length: 50 }, (_, n) => ({ channel: n % 2 ? 'short' : 'long', seconds: n % 2 ? 10 : 9_000 })),
    );
    await age(80);
    await sql`truncate realtime.trimming`;
    const ages = (await sql`select age from realtime.trimming_ages()`).map(({ age: each }) => each as number);
    expect(ages).toEqual([60, 70, 120, 240, 480, 960, 1920, 3840, 7680, 9060]);
    const { deleted, next } = await trim(70);
    expect(deleted).toBe(25);
    expect(await stored('short')).toEqual([]);
    expect(await stored('long')).toHaveLength(25);
    await sql`select realtime.trimmed('{70}', ${[next]}::bigint[])`;
    const [place] = await sql`select seq::int from realtime.trimming_ages() where age = 70`;
    expect(place!['seq']).toBe(next);
  });

  // A turn of four seconds was followed by five of rest, however much was left: 9,000 rows a second were half of its time.
  test('a turn that had not enough time says so, and the next one goes on', async () => {
    await append(Array.from({ length: 30 }, () => ({ size: 25 })));
    await age(70);
    let jumpMs = 60_000;
    const clock = { ...systemClock, monotonic: () => systemClock.monotonic() + (jumpMs += jumpMs) };
    const trimmer = new LogTrimmer(clock);
    const session = await DirectSession.open({ url, applicationName: 'test', signal: AbortSignal.timeout(60_000) });
    const signal = new AbortController().signal;
    expect(await trimmer.turn(session, signal)).toMatchObject({ isDone: false });
    expect(await stored('a')).toHaveLength(30);
    jumpMs = 0;
    expect(await trimmer.turn(session, signal)).toMatchObject({ isDone: true });
    expect(await stored('a')).toHaveLength(25);
    await session.close();
  });

  test('it waits neither for who appends nor for who holds a head', async () => {
    await append([{ seconds: 1 }]);
    await age(70);
    await sql
      .begin(async (tx) => {
        await tx`select from realtime.log for update`;
        await tx`insert into realtime.outbox (xid, lsn, channel, data) values (pg_current_xact_id(), '0/1', 'a', '1')`;
        await tx`select from realtime.channels where channel = 'a' for update`;
        const failed = await trim(61).catch((error: unknown) => (error as { code: string }).code);
        expect(failed).toBe('55P03');
        await tx`select 1`;
        throw new Error('rolled back');
      })
      .catch((error: unknown) => expect((error as Error).message).toBe('rolled back'));
    await sql.begin(async (tx) => {
      await tx`select from realtime.log for update`;
      expect((await trim(61)).deleted).toBe(1);
    });
  });
});

describe('forgetting', () => {
  const forget = async (after = '', { deleteMax = 10, keptMax = 1_000_000 } = {}): Promise<object> => {
    const [row] =
      await sql`select forgotten::int, next from realtime.forget(900, ${after}, 2, ${deleteMax}, ${keptMax})`;
    return { ...row };
  };
  const epochNow = async (): Promise<string> => (await sql`select epoch from realtime.log`)[0]!['epoch'] as string;
  const headsOf = async (...channels: string[]): Promise<Record<string, { epoch: string; offset: number }>> => {
    const heads = [...(await readHeads(sql as unknown as Database, channels))];
    return Object.fromEntries(
      heads.map(([channel, { epoch, offset }]) => [channel, { epoch, offset: Number(offset) }]),
    );
  };
  const idle = async (...channels: string[]): Promise<void> => {
    await sql`update realtime.channels set used_at = used_at - 1000000`;
    await sql`delete from realtime.publications where channel = any (${channels})`;
  };

  test('a channel that was idle for long counts anew under another epoch; others keep theirs', async () => {
    const [[a], [b]] = [await append([{}]), await append([{ channel: 'b' }])];
    await append([{ channel: 'c' }]);
    await idle();
    // What has history is not idle, however old that is.
    expect(await forget()).toEqual({ forgotten: 0, next: 'b' });
    await idle('a', 'c');
    expect(await forget()).toEqual({ forgotten: 1, next: 'b' });
    expect(await forget('b')).toEqual({ forgotten: 1, next: null });
    const [[again], [kept]] = [await append([{}]), await append([{ channel: 'b' }])];
    expect(again!.offset).toBe(1);
    expect(again!.epoch).not.toBe(a!.epoch);
    expect(kept).toMatchObject({ offset: 2, epoch: b!.epoch });
  });

  // The log got another epoch with the first that was forgotten: whoever was subscribed to a channel without any
  // publication was told a gap, where nothing could have been missed.
  test('neither the log nor a channel that was never published to gets another epoch with it', async () => {
    const epoch = await epochNow();
    const before = await headsOf('a', 'never', 'neither');
    expect(before).toEqual({ a: { epoch, offset: 0 }, never: { epoch, offset: 0 }, neither: { epoch, offset: 0 } });
    await append([{}]);
    await idle('a');
    expect(await forget()).toEqual({ forgotten: 1, next: null });
    expect(await epochNow()).toBe(epoch);
    const { a, ...others } = await headsOf('a', 'never', 'neither');
    expect(others).toEqual({ never: { epoch, offset: 0 }, neither: { epoch, offset: 0 } });
    expect((await append([{ channel: 'never' }]))[0]).toMatchObject({ offset: 1, epoch });
    // What was told of it at 0 is what its first publication has.
    expect(a).toMatchObject({ offset: 0 });
    expect((await append([{}]))[0]).toMatchObject({ offset: 1, epoch: a!.epoch });
  });

  test('each time that a channel is forgotten it begins in another epoch, and in each that it had before it is unknown', async () => {
    const seen = new Set<string>();
    for (let round = 0; round < 4; round++) {
      const [row] = await append([{}]);
      expect(row!.offset).toBe(1);
      seen.add(row!.epoch);
      await idle('a');
      expect(await forget()).toMatchObject({ forgotten: 1 });
    }
    expect(seen.size).toBe(4);
    // After a change of the log's own epoch nothing of it matters.
    await sql`select realtime.renew()`;
    const [{ gone }] = (await sql`select realtime.forget_forgotten(10)::int as gone`) as unknown as [{ gone: number }];
    expect(gone).toBe(1);
    const [row] = await append([{}]);
    expect(row).toMatchObject({ offset: 1, epoch: await epochNow() });
    expect(seen.has(row!.epoch)).toBe(false);
  });

  test('one call holds the fence for few, and goes on where it stopped', async () => {
    await append([{ channel: 'a' }, { channel: 'b' }]);
    await idle('a', 'b');
    expect(await forget('', { deleteMax: 1 })).toEqual({ forgotten: 1, next: 'a' });
    expect(await forget('a', { deleteMax: 1 })).toEqual({ forgotten: 1, next: null });
  });

  test('past what may be kept of them the log gets another epoch, and they begin in that', async () => {
    const [a] = await append([{}]);
    await idle('a');
    const epoch = await epochNow();
    expect(await forget('', { keptMax: -1 })).toEqual({ forgotten: 1, next: null });
    const now = await epochNow();
    expect(now).not.toBe(epoch);
    const [again] = await append([{}]);
    expect(again).toMatchObject({ offset: 1, epoch: now });
    expect(again!.epoch).not.toBe(a!.epoch);
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
