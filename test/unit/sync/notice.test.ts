// What a node tells of the rows that it has appended is what the others read, whatever the rows are: all of them, in
// order, or at least how far the log reaches.

import fc from 'fast-check';
import { expect, test } from 'bun:test';
import type { LogRow } from '../../../src/database/log-row.ts';
import { carriedRows, noticesOf, parseNotice } from '../../../src/sync/postgres/notice.ts';

const data = fc.oneof(
  fc.json(),
  fc.constant(''),
  fc.constant('{\n}'),
  fc.constant(JSON.stringify('x'.repeat(70_000))),
  fc.constant(JSON.stringify('x'.repeat(140_000))),
);
const rows = fc.array(fc.tuple(data, fc.option(fc.string()), fc.boolean()), { maxLength: 12 });

test('notices of appended rows', () => {
  fc.assert(
    fc.property(rows, fc.integer({ min: 1, max: 2 ** 40 }), (given, first) => {
      let seq = first;
      const appended: LogRow[] = given.map(([text, user, leavesHole]) => {
        // A transaction that was rolled back leaves a hole in the numbers.
        seq += leavesHole ? 2 : 1;
        const [connection, except, xid] = [user === null ? null : 'c', user, user];
        return { seq, channel: 'a:b', epoch: 'e', offset: seq, data: text, at: 1, user, connection, except, xid };
      });
      const notices = noticesOf(appended, 'writer of it');
      const read = notices.map((notice) => parseNotice(notice));
      const carried = notices.flatMap((notice, index) => carriedRows(notice, read[index]?.seq ?? 0));
      const isCarried = ({ data: text }: LogRow): boolean => text.length <= 128 << 10 && !text.includes('\n');
      expect(carried).toEqual(appended.filter(isCarried));
      expect(read.every(({ writer }) => writer === 'writer of it')).toBe(true);
      expect(read.at(-1)?.seq).toBe(appended.at(-1)?.seq);
      expect(read.map((each) => each.seq)).toEqual(read.map((each) => each.seq).toSorted((a, b) => a - b));
      for (const notice of notices) expect(notice.length).toBeLessThan((128 << 10) * 2 + 10_000);
    }),
    { numRuns: 200 },
  );
});
