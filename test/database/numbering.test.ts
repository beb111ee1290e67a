// Batches of many kinds of entries, by the relay and by clients, against a model of the law by which the log numbers: the
// next offset of the channel for each, in order, but none for a key that the channel's history has. A batch is numbered
// channel by channel, so what stands between others, repeats a key within the batch or pushes a key out of it is random.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { database, leave, relayed, rules } from './support.ts';

const { sql } = await database();

interface Entry {
  readonly channel: string;
  readonly data: string;
  readonly key: string | null;
}

interface Answer {
  readonly channel: string;
  readonly offset: number;
  readonly data: string;
  readonly fresh: boolean;
}

const sizeOf = (channel: string): number =>
  rules.find(({ pattern }) => new RegExp(pattern).test(channel))?.historySize ?? 0;

/** The log as it has to be: each publication at its offset, less one. */
class Log {
  readonly channels = new Map<string, { data: string; key: string | null }[]>();

  append({ channel, data, key }: Entry): Answer {
    const log = this.channels.get(channel) ?? [];
    this.channels.set(channel, log);
    const held = key === null ? -1 : log.findIndex((publication) => publication.key === key);
    if (held >= 0 && held + 1 > log.length - sizeOf(channel)) {
      return { channel, offset: held + 1, data: log[held]!.data, fresh: false };
    }
    if (held >= 0) log[held]!.key = null;
    log.push({ data, key });
    return { channel, offset: log.length, data, fresh: true };
  }
}

const entry = fc.record({
  channel: fc.constantFrom('a', 'b', 'small', 'small', 'small', 'small', 'other', 'ephemeral:x', 'no channel'),
  key: fc.constantFrom(null, null, null, null, null, null, null, null, 'k', 'l'),
});
const batches = fc.array(
  fc.record({ byRelay: fc.boolean(), entries: fc.array(entry, { minLength: 1, maxLength: 60, size: 'max' }) }),
  {
    minLength: 1,
    maxLength: 4,
  },
);

test('numbers are as the law has them, whatever a batch holds', async () => {
  let number = 0;
  await fc.assert(
    fc.asyncProperty(batches, async (given) => {
      await sql`truncate realtime.outbox, realtime.publications, realtime.channels, realtime.forgotten`;
      const log = new Log();
      for (const { byRelay, entries: bare } of given) {
        const entries = bare
          .filter(({ channel }) => byRelay || !/^ephemeral|^no /.test(channel))
          .map((each) => ({ ...each, data: String(++number) }));
        if (entries.length === 0) continue;
        const expected = entries.map((each) =>
          /^ephemeral|^no /.test(each.channel) ? { ...each, offset: 0, fresh: true } : log.append(each),
        );
        if (byRelay) {
          await leave(
            sql,
            entries.map(({ channel, data, key }) => (key === null ? [channel, data] : [channel, data, key])),
          );
          const { rows, taken, dropped } = await relayed(sql, 1_000);
          const told = expected.filter(({ channel, fresh }) => fresh && channel !== 'no channel');
          expect(rows.map(({ channel, offset, data }) => [channel, offset, data])).toEqual(
            told.map(({ channel, offset, data }) => [channel, offset, data]),
          );
          expect([taken, dropped]).toEqual([
            entries.length,
            entries.filter(({ channel }) => channel === 'no channel').length,
          ]);
          expectRising(rows.map(({ seq }) => seq).filter((seq) => seq > 0));
        } else {
          const filled = entries.map((each) => ({ ...each, size: sizeOf(each.channel), seconds: 3600 }));
          const rows = await sql<(Answer & { seq: number })[]>`
            select seq::float8, channel, "offset"::float8, data, fresh
            from realtime.append(${JSON.stringify(filled)}::text::jsonb)`;
          expect(rows.map(({ seq: _seq, ...rest }) => rest)).toEqual(
            expected.map(({ channel, offset, data, fresh }) => ({ channel, offset, data, fresh })),
          );
          expectRising(rows.filter(({ fresh }) => fresh).map(({ seq }) => seq));
        }
      }
      const stored = await sql`select channel, "offset"::float8, data, key from realtime.publications order by 1, 2`;
      expect(stored.map((row) => ({ ...row }))).toEqual(
        [...log.channels]
          .toSorted(([x], [y]) => (x < y ? -1 : 1))
          .flatMap(([channel, all]) => all.map(({ data, key }, place) => ({ channel, offset: place + 1, data, key }))),
      );
    }),
    { numRuns: process.env['LONG'] === undefined ? 40 : 1_000 },
  );
}, 600_000);

/** A node takes the publications of one batch for each other's neighbours. */
function expectRising(seqs: readonly number[]): void {
  expect(seqs).toEqual(seqs.map((_seq, place) => (seqs[0] ?? 0) + place));
}
