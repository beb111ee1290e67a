// Each cold channel of a crowd cost a statement, two at a time: a thousand of them took seconds longer than over Redis.
// Those that wait share one, and each page is what a statement of its own would have brought.

import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test';
import { connect, type Database } from '../../src/database/connect.ts';
import { HistoryReads } from '../../src/core/history-reads.ts';
import type { HistoryPage, HistoryQuery, SyncAdapter } from '../../src/core/sync-adapter.ts';
import { Rules, type ChannelRule } from '../../src/rules/rules.ts';
import { PostgresHistories } from '../../src/sync/postgres/histories.ts';
import { readHeads, readHistories, type Stretch } from '../../src/sync/postgres/queries.ts';
import { systemClock } from '../../src/time/clock.ts';
import { answered } from '../support/answered.ts';
import { silentObserver } from '../support/doubles.ts';
import { patient } from '../support/patience.ts';
import { database } from './support.ts';

patient();

const { url, sql: owner } = await database();
const shareBytes = 128 << 10;
const rule = new Rules({ rules: [{ channels: '*' }] }).for('a');
const small: ChannelRule = { ...rule, historySize: 5 };
const young: ChannelRule = { ...rule, historySeconds: 60 };

let reads: Database;
let statements = 0;

beforeAll(async () => {
  reads = connect(url, { applicationName: 'histories', max: 2 });
  // What the driver calls for each statement that it sends.
  (reads.options as { debug?: unknown }).debug = () => statements++;
  await Promise.all([readHeads(reads, []), readHeads(reads, [])]);
});

beforeEach(() => {
  statements = 0;
});

afterAll(() => reads.end({ timeout: 1 }));

/** So many publications in each of the channels, one after another. */
async function fill(channels: readonly string[], count: number, data = '"text"'): Promise<void> {
  for (let round = 0; round < count; round++) {
    await owner`
      SELECT count(realtime.append_one(1000, 3600, NULL, channel, ${data}, NULL, NULL, NULL)) FROM unnest(${channels as string[]}::text[]) channel`;
  }
}

async function epochOf(channel: string): Promise<string> {
  return (await readHeads(owner as unknown as Database, [channel])).get(channel)!.epoch;
}

function stretch(channel: string, query: HistoryQuery, more: Partial<Stretch> = {}): Stretch {
  return { channel, rule, query, internal: false, ...more };
}

/** A page, without what the objects keep besides. */
function plain(page: HistoryPage | undefined): unknown {
  return JSON.parse(JSON.stringify(page ?? null));
}

test('1,000 cold channels cost 150 statements at most, and each gets its own', async () => {
  const channels = Array.from({ length: 1_000 }, (_, index) => `cold:${index}`);
  await fill(channels, 3);
  const epoch = await epochOf('cold:0');
  const histories = new PostgresHistories(reads, systemClock);
  const adapter = {
    traits: { shared: true, durable: true },
    history: (channel: string, of: ChannelRule, query: HistoryQuery, internal = false) =>
      histories.read({ channel, rule: of, query, internal }),
  } as SyncAdapter;
  const node = new HistoryReads({ adapter, observer: silentObserver });
  const since = { epoch, offset: 1 };
  const pages = await Promise.all(
    channels.map((channel) =>
      answered(async () => node.read(channel, rule, { since, limit: 1_000 }, { account: channel, asksOnce: true })),
    ),
  );
  expect(statements).toBeLessThanOrEqual(150);
  for (const [index, { publications, complete, head }] of pages.entries()) {
    expect(head).toEqual({ epoch, offset: 3 });
    expect(complete).toBe(true);
    expect(publications.map(({ channel, offset }) => [channel, offset])).toEqual([
      [`cold:${index}`, 2],
      [`cold:${index}`, 3],
    ]);
  }
});

test('a read that finds nothing under way does not wait for others; those that wait share one statement', async () => {
  await fill(['few'], 1);
  const histories = new PostgresHistories(reads, systemClock);
  const read = () => histories.read(stretch('few', { limit: 10 }));
  const pages = await Promise.all(Array.from({ length: 10 }, read));
  expect(pages.every(({ publications }) => publications.length === 1)).toBe(true);
  // Two alone, and the other eight.
  expect(statements).toBe(3);
});

test('a page is the same whether the read shared a statement or was alone', async () => {
  await fill(['same:few', 'same:holes'], 9, '{"text": "ü"}');
  await fill(['same:aged'], 12);
  await fill(['same:gaps'], 1, '');
  await fill(['same:gaps'], 2);
  await fill(['same:large'], 4, `"${'x'.repeat(60_000)}"`);
  await fill(['same:long'], 1, `"${'x'.repeat(300_000)}"`);
  await owner`DELETE FROM realtime.publications WHERE channel = 'same:holes' AND "offset" = 5`;
  await owner`UPDATE realtime.publications SET at = at - 120000 WHERE channel = 'same:aged' AND "offset" < 8`;
  await owner`UPDATE realtime.publications SET from_connection = 'c', from_user = 'u', except_connection = 'c' WHERE channel = 'same:few'`;
  const epoch = await epochOf('same:few');
  const names = ['few', 'holes', 'aged', 'gaps', 'large', 'long', 'never'].map((name) => `same:${name}`);
  const queries = names.flatMap((channel) =>
    [0, 1, 4, 8, 9, 12, 99].flatMap((offset) => [
      stretch(channel, { since: { epoch, offset }, limit: 1_000 }),
      stretch(channel, { since: { epoch, offset }, limit: 2, bytesMax: 9 }),
      stretch(channel, { since: { epoch: 'other', offset }, limit: 3 }, { rule: small }),
      stretch(channel, { since: { epoch, offset }, limit: 1_000 }, { rule: small }),
      stretch(channel, { since: { epoch, offset }, limit: 3 }, { rule: young }),
      stretch(channel, { since: { epoch, offset }, limit: 4, bytesMax: 100_000 }, { rule: young, internal: true }),
      stretch(channel, { limit: offset + 1 }, { rule: young }),
      stretch(channel, { limit: offset + 1, bytesMax: 70_000 }, { rule: small }),
    ]),
  );
  const histories = new PostgresHistories(reads, systemClock);
  const alone: unknown[] = [];
  for (const query of queries) alone.push(plain(await answered(() => histories.read(query))));
  expect(statements).toBeGreaterThanOrEqual(queries.length);
  statements = 0;
  const shared = await Promise.all(queries.map((query) => answered(() => histories.read(query))));
  expect(shared.map(plain)).toEqual(alone);
  expect(statements).toBeLessThan(queries.length / 2);
});

// What a statement brings is bounded by the number of its channels, so none of them may bring more than its share.
test('a channel with more data than its share of a statement brings none of them, and is read alone', async () => {
  const channels = Array.from({ length: 8 }, (_, index) => `large:${index}`);
  await fill(channels, 3, `"${'x'.repeat(60_000)}"`);
  await fill(['little'], 3);
  const epoch = await epochOf('large:0');
  const queries = [...channels, 'little'].map((channel) =>
    stretch(channel, { since: { epoch, offset: 0 }, limit: 100 }),
  );
  const together = await readHistories(reads, queries, shareBytes);
  expect(together.slice(0, -1).every((page) => page === undefined)).toBe(true);
  expect(together.at(-1)?.publications).toHaveLength(3);
  const histories = new PostgresHistories(reads, systemClock);
  const pages = await Promise.all(queries.map((query) => answered(() => histories.read(query))));
  expect(pages.map(({ publications, complete }) => [publications.length, complete])).toEqual(
    queries.map(() => [3, true]),
  );
});

test('a channel that cannot be read fails alone', async () => {
  const [original] = await owner`SELECT pg_get_functiondef('realtime.first_epoch'::regproc) AS text`;
  await owner.unsafe(`
    CREATE OR REPLACE FUNCTION realtime.first_epoch(channel text, log_epoch text) RETURNS text LANGUAGE plpgsql STABLE AS $$
    BEGIN
      IF channel LIKE 'bad:%' THEN RAISE EXCEPTION 'not readable' USING ERRCODE = 'data_corrupted'; END IF;
      RETURN log_epoch;
    END $$`);
  const histories = new PostgresHistories(reads, systemClock);
  const channels = Array.from({ length: 20 }, (_, index) => (index === 7 ? 'bad:7' : `good:${index}`));
  const answers = await Promise.allSettled(
    channels.map((channel) => {
      const read = (): Promise<HistoryPage> => histories.read(stretch(channel, { limit: 10 }));
      return channel === 'bad:7' ? read() : answered(read);
    }),
  );
  expect(answers.flatMap(({ status }, index) => (status === 'rejected' ? [channels[index]] : []))).toEqual(['bad:7']);
  await owner.unsafe(original!['text'] as string);
});
