// What a notification of the log carries, and what a node makes of it: on a real PostgreSQL, with adapters as nodes have.

import { afterAll, afterEach, beforeEach, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { systemClock as clock } from '../../src/time/clock.ts';
import { silentObserver as observer } from '../support/doubles.ts';
import type { Publication } from '../../src/core/publication.ts';
import { connect } from '../../src/database/connect.ts';
import type { Position } from '../../src/protocol/position.ts';
import { PostgresAdapter } from '../../src/sync/postgres/adapter.ts';
import { carriedRows, parseNotice } from '../../src/sync/postgres/notice.ts';
import { PostgresReader } from '../../src/sync/postgres/reader.ts';
import { database, leave, relayed, rules, until } from './support.ts';
import { patient } from '../support/patience.ts';

patient();

const { sql, superuser, url } = await database();
const topicNow = async (): Promise<string> => (await sql`select topic from realtime.log`)[0]!['topic'] as string;
const heard: string[] = [];
const listening = await sql.listen(`${await topicNow()}_log`, (payload) => heard.push(payload));
const bytes = (text: string): number => new TextEncoder().encode(text).length;
const rule = rules.at(-1)!;

afterAll(() => listening.unlisten());

beforeEach(async () => {
  await sql`truncate realtime.outbox, realtime.publications, realtime.channels`;
  // All numbers have as many digits, so that payloads of like data are equally long.
  await sql`select setval('realtime.publications_seq_seq', 5000000)`;
  heard.length = 0;
});

interface Appended {
  readonly seq: number;
  readonly offset: number;
  readonly epoch: string;
  readonly data: string;
  readonly fresh: boolean;
}

async function appendOne(channel: string, data: string, key: string | null = null, size = 1000): Promise<Appended> {
  const [row] = await sql<Appended[]>`select seq::float8, "offset"::float8, epoch, data, fresh
    from realtime.append_one(${size}, 3600, ${key}, ${channel}, ${data}, 'ann', 'c1', null)`;
  return row!;
}

async function append(entries: readonly object[]): Promise<Appended[]> {
  const filled = entries.map((entry) => ({ channel: 'a', data: '1', size: 1000, seconds: 3600, ...entry }));
  return await sql<Appended[]>`select seq::float8, "offset"::float8, epoch, data, fresh
    from realtime.append(${JSON.stringify(filled)}::text::jsonb)`;
}

/** All payloads of this test so far: notifications come in the order of commits. */
async function payloads(): Promise<string[]> {
  await sql.notify(`${await topicNow()}_log`, 'end');
  await until(() => heard.at(-1) === 'end');
  return heard.slice(0, -1);
}

/** What it carries: channel, offset and data of each. */
function carried(payload: string): unknown[] {
  return carriedRows(payload, parseNotice(payload).seq).map(({ channel, offset, data }) => [channel, offset, data]);
}

describe('a notification', () => {
  test('carries a publication whole, as long as it stays under 8,000 bytes', async () => {
    await appendOne('a0', '""');
    const overhead = bytes((await payloads())[0]!) - 2;
    for (const [index, filler] of ['x', 'é', '世', '👩'].entries()) {
      for (const total of [7_998, 7_999, 8_000, 8_001]) {
        const channel = `${'abcd'[index]}${total % 10}`;
        const room = total - overhead - 2;
        const data = `"${filler.repeat(Math.floor(room / bytes(filler)))}${'.'.repeat(room % bytes(filler))}"`;
        heard.length = 0;
        const { seq } = await appendOne(channel, data);
        const [payload = '', ...others] = await payloads();
        expect(others).toEqual([]);
        expect(parseNotice(payload)).toEqual({ seq, writer: 'postgres.js' });
        if (total < 8_000) expect(bytes(payload)).toBe(total);
        expect(carried(payload)).toEqual(total < 8_000 ? [[channel, 1, data]] : []);
      }
    }
  });

  test('tells everything of it that the log tells', async () => {
    const { seq, epoch } = await appendOne('a', '{"x": "\\n"}');
    const [payload = ''] = await payloads();
    const [stored] = await sql`select at::float8 from realtime.publications where seq = ${seq}`;
    expect(carriedRows(payload, seq)).toEqual([
      {
        seq,
        channel: 'a',
        epoch,
        offset: 1,
        data: '{"x": "\\n"}',
        at: stored!['at'] as number,
        user: 'ann',
        connection: 'c1',
        except: null,
        xid: null,
      },
    ]);
  });

  test('is one for a batch: with all of it, or with nothing where that is too much', async () => {
    const few = await append([{ data: '1' }, { channel: 'b', data: '2' }, { data: '3' }]);
    const large = await append(Array.from({ length: 3 }, () => ({ data: JSON.stringify('é'.repeat(1_400)) })));
    const many = await append(Array.from({ length: 9 }, () => ({})));
    const [first = '', ...others] = await payloads();
    expect(parseNotice(first).seq).toBe(few[2]!.seq);
    expect(carriedRows(first, few[2]!.seq).map(({ seq }) => seq)).toEqual(few.map(({ seq }) => seq));
    expect(carried(first)).toEqual([
      ['a', 1, '1'],
      ['b', 1, '2'],
      ['a', 2, '3'],
    ]);
    expect(others).toEqual([large, many].map((rows) => `${rows.at(-1)!.seq} postgres.js`));
  });

  test('carries no text of several lines, which it could not be told apart from others in', async () => {
    const { seq } = await appendOne('a', '{"x":\n1}');
    expect(await payloads()).toEqual([`${seq} postgres.js`]);
  });

  test('carries what the relay took: not what is ephemeral, dropped, or known by its key', async () => {
    await leave(sql, [
      ['a', '{"x":\r\n1}', 'k'],
      ['ephemeral:x', '2'],
      ['no channel', '3'],
      ['b', '4'],
      ['a', '5', 'k'],
    ]);
    const { rows, taken, dropped } = await relayed(sql, 1000);
    expect([taken, dropped]).toEqual([5, 1]);
    expect(rows.map(({ channel, offset, data }) => [channel, offset, data])).toEqual([
      ['a', 1, '{"x":  1}'],
      ['ephemeral:x', 0, '2'],
      ['b', 1, '4'],
    ]);
    const [payload = '', ...others] = await payloads();
    expect(others).toEqual([]);
    expect(carried(payload)).toEqual([
      ['a', 1, '{"x":  1}'],
      ['b', 1, '4'],
    ]);
  });

  test('is not made for a key that was used: the answer is the position of the first', async () => {
    const first = await appendOne('a', '"one"', 'k');
    const again = await appendOne('a', '"two"', 'k');
    expect(again).toEqual({ ...first, fresh: false });
    expect(await append([{ key: 'k' }, { data: '"three"' }, { key: 'k' }])).toMatchObject([
      { offset: 1, fresh: false },
      { offset: 2, fresh: true },
      { offset: 1, fresh: false },
    ]);
    expect((await payloads()).map(carried)).toEqual([[['a', 1, '"one"']], [['a', 2, '"three"']]]);
    // Past the history the key is free again.
    await sql`update realtime.publications set at = at - 3600001`;
    expect(await appendOne('a', '"four"', 'k')).toMatchObject({ offset: 3, fresh: true });
  });

  test('is heard by nobody who may not read the log', async () => {
    const role = `stranger_${process.pid}`;
    await superuser.unsafe(`create role ${role} login`);
    const strange = new URL(url);
    strange.username = role;
    const stranger = postgres(strange.href, { max: 1, onnotice: () => undefined });
    try {
      const refused = await stranger`select topic from realtime.log`.catch((error: unknown) => error);
      expect(refused).toMatchObject({ code: '42501' });
    } finally {
      await stranger.end({ timeout: 1 });
      await superuser.unsafe(`drop role ${role}`);
    }
    const topics = await sql`select topic from realtime.log`;
    expect(topics[0]!['topic']).toMatch(/^realtime_[0-9a-f]{32}$/);
  });
});

describe('a node', () => {
  const closers: (() => Promise<void>)[] = [];
  let names = 0;

  afterEach(async () => {
    await Promise.all(closers.splice(0).map((close) => close()));
  });

  interface Node {
    readonly adapter: PostgresAdapter;
    readonly told: Publication[];
    readonly heads: Position[];
    readonly faults: string[];
  }

  async function node(): Promise<Node> {
    const applicationName = `carried ${++names}`;
    const pool = connect(url, { applicationName, max: 2 });
    const [told, heads, faults]: [Publication[], Position[], string[]] = [[], [], []];
    const adapter = new PostgresAdapter({
      sql: pool,
      reads: connect(url, { applicationName, max: 1 }),
      connectDirect: () => connect(url, { applicationName, max: 1 }),
      nodeId: `node${names}`,
      applicationName,
      clock,
      observer,
      log: (message) => void faults.push(message),
    });
    closers.push(async () => {
      await adapter.close();
      await pool.end({ timeout: 1 });
    });
    await adapter.start({
      publication: (publication) => void told.push(publication),
      head: (_channel, head) => void heads.push(head),
      settled: () => undefined,
    });
    await adapter.subscribe('a', rule);
    return { adapter, told, heads, faults };
  }

  async function publish({ adapter }: Node, data: string, key?: string): Promise<Position> {
    return (await adapter.publish({ channel: 'a', rule, data, at: Date.now(), key }))!;
  }

  const texts = ({ told }: Node): string[] => told.map(({ data }) => data);

  /** A row that the log has and no notification told of. */
  async function appendUnheard(data: string): Promise<void> {
    await sql`with head as (select max("offset") + 1 as "offset" from realtime.publications where channel = 'a')
      insert into realtime.publications (channel, "offset", data, at)
      select 'a', "offset", ${data}, extract(epoch from clock_timestamp()) * 1000 from head`;
  }

  async function notify(seq: number, rows: readonly [offset: number, data: string][], epoch: string): Promise<void> {
    const lines = rows.map(([offset, data]) => `${JSON.stringify(['a', epoch, offset, 1, null, null, null])}\n${data}`);
    await sql.notify(`${await topicNow()}_log`, [`${seq} somebody`, ...lines].join('\n'));
  }

  test('hands on what it is notified of without a look at the log, once, and in order', async () => {
    const [a, b] = [await node(), await node()];
    const { epoch } = await publish(a, '1');
    await until(() => b.told.length === 1);
    const [{ seq }] = (await sql`select max(seq)::float8 as seq from realtime.publications`) as unknown as [Appended];
    // Only the notification has these, so whoever hands them on did not read.
    await notify(seq + 2, [[2, '"two"'], [3, '"three"']], epoch); // prettier-ignore
    await until(() => b.told.length === 3);
    await notify(seq + 2, [[2, '"two"'], [3, '"three"']], epoch); // prettier-ignore
    await notify(seq + 3, [[4, '"four"']], epoch);
    await until(() => b.told.length === 4);
    expect(texts(b)).toEqual(['1', '"two"', '"three"', '"four"']);
    expect(b.told.map(({ offset }) => offset)).toEqual([1, 2, 3, 4]);
  });

  test('reads the log where a notification was lost, and loses nothing of the ones after it', async () => {
    const [a, b] = [await node(), await node()];
    await publish(a, '"first"');
    await until(() => b.told.length === 1);
    for (let round = 0; round < 3; round++) {
      await appendUnheard(`"unheard ${round}"`);
      // What is rolled back leaves a hole in the numbers of the log, which is none of the channel's.
      const undone = sql.begin(async (transaction) => {
        await transaction`select from realtime.append_one(1000, 3600, null, 'a', '"undone"', null, null, null)`;
        throw new Error('undone');
      });
      expect(await undone.catch((error: unknown) => error)).toMatchObject({ message: 'undone' });
      await publish(a, `"heard ${round}"`);
      await until(() => b.told.length === 3 + round * 2 && a.told.length === b.told.length);
    }
    expect(b.told.map(({ offset }) => offset)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(texts(a)).toEqual(texts(b));
    expect([...a.faults, ...b.faults]).toEqual([]);
  });

  test('is not led astray by a notification that is out of step with the log, or that makes no sense', async () => {
    const [a, b] = [await node(), await node()];
    const { epoch } = await publish(a, '1');
    await until(() => b.told.length === 1);
    const [{ seq }] = (await sql`select max(seq)::float8 as seq from realtime.publications`) as unknown as [Appended];
    await notify(seq + 500, [[501, '"of no log"']], epoch);
    await notify(seq, [[1, '"again"']], epoch);
    for (const payload of ['', 'nonsense', `${seq + 1}`, `${seq + 1} x\n[`, `${seq + 1} x\nnull\n1`, `${seq + 9} x`]) {
      await sql.notify(`${await topicNow()}_log`, payload);
    }
    for (let index = 2; index <= 5; index++) await publish(a, String(index));
    await until(() => b.told.length === 5);
    expect(texts(b)).toEqual(['1', '2', '3', '4', '5']);
    expect(new Set(b.faults)).toEqual(new Set(['a notification of the log could not be read']));
  });

  test('does not read the log for ever for what is not in it', async () => {
    const { seq, epoch } = await appendOne('a', '1');
    const told: Publication[] = [];
    const pool = connect(url, { applicationName: 'reader', max: 1 });
    const reader = new PostgresReader(
      { sql: pool, clock, observer, log: () => undefined, name: 'test' },
      { publication: (publication) => void told.push(publication), head: () => undefined, settled: () => undefined },
      seq,
    );
    reader.add('a');
    const row = { channel: 'a', epoch, data: '1', at: 1, user: null, connection: null, except: null };
    reader.offer([{ ...row, seq: seq + 500, offset: 501 }]);
    await reader.idle();
    expect(told).toEqual([]);
    reader.offer([{ ...row, seq: seq + 1, offset: 2 }]);
    expect(told.map(({ offset }) => offset)).toEqual([2]);
    await reader.close();
    await pool.end({ timeout: 1 });
  });

  test('both publishing at once hear one sequence, small and large', async () => {
    const nodes = [await node(), await node()];
    const count = 200;
    await Promise.all(
      nodes.map(async (each, index) => {
        for (let n = 0; n < count; n++) {
          await publish(each, JSON.stringify([index, n, 'é'.repeat(n % 10 === 0 ? 4_000 : n)]));
        }
      }),
    );
    for (const each of nodes) await until(() => each.told.length === 2 * count);
    const [first = [], second = []] = nodes.map(texts);
    expect(first).toEqual(second);
    for (const { told } of nodes) {
      expect(told.map(({ offset }) => offset)).toEqual(Array.from({ length: 2 * count }, (_, index) => index + 1));
    }
  });

  test('follows the log to another epoch and another topic', async () => {
    const [a, b] = [await node(), await node()];
    const before = await publish(a, '1');
    await until(() => b.told.length === 1);
    // As after a database that was set up anew.
    await sql.begin(async (transaction) => {
      // Deleted, not truncated: that would lock out the reads of both nodes, and each could wait for the other.
      await transaction`delete from realtime.publications`;
      await transaction`delete from realtime.channels`;
      await transaction`update realtime.log set epoch = realtime.new_epoch(epoch),
        topic = 'realtime_' || replace(gen_random_uuid()::text, '-', '')`;
    });
    await until(() => a.heads.length > 0 && b.heads.length > 0, 15_000);
    // The first append finds that the log is not as it was left, and may begin a further epoch. Nodes hear of it by heads.
    const { epoch } = await publish(a, '"first"');
    expect(epoch).not.toBe(before.epoch);
    await until(() => [a, b].every(({ heads }) => heads.some((head) => head.epoch === epoch)), 15_000);
    const after = await publish(a, '2');
    expect(after).toMatchObject({ epoch, offset: 2 });
    await until(() => b.told.at(-1)?.data === '2');
    expect(b.told.at(-1)).toMatchObject({ ...after, data: '2' });
    // The way over the new topic, and not a read every few seconds.
    const [{ seq }] = (await sql`select max(seq)::float8 as seq from realtime.publications`) as unknown as [Appended];
    await until(async () => {
      await notify(seq + 1, [[3, '"told"']], epoch);
      return b.told.at(-1)?.data === '"told"';
    });
    await b.adapter.probe(1_000);
  }, 30_000);
});
