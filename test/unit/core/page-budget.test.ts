// Those who recover share the memory that may wait in their sockets. Each had as much as if it were alone: 300 streams
// that read slowly cost a node hundreds of megabytes.

import { expect, test } from 'bun:test';
import { PageBudget } from '../../../src/core/page-budget.ts';
import { Publication } from '../../../src/core/publication.ts';
import { Recovery } from '../../../src/core/recovery.ts';
import { RecordingFanout, RecordingOutlet } from '../../support/hub.ts';

const limits = { bytesMax: 1_000_000, socketBytesMax: 400_000, shareBytesMax: 100_000, shareBytesMin: 10_000 };

test('the more recover, the smaller is the share of each, down to the least', () => {
  const pages = new PageBudget(limits);
  const shares: number[] = [];
  for (const count of [0, 1, 4, 8, 40, 1_000]) {
    while (pages.recovering < count) pages.enter();
    shares.push(pages.shareBytes);
  }
  expect(shares).toEqual([100_000, 100_000, 100_000, 50_000, 10_000, 10_000]);
  while (pages.recovering > 0) pages.leave();
  expect(pages.shareBytes).toBe(100_000);
});

test.each([
  { others: 0, betweenLooks: 11 },
  { others: 39, betweenLooks: 2 },
])('with $others others a socket is looked at after $betweenLooks publications', async ({ others, betweenLooks }) => {
  const pages = new PageBudget(limits);
  for (let count = 0; count < others; count++) pages.enter();
  const epoch = 'e';
  const head = { epoch, offset: 12 };
  const publications = Array.from(
    { length: head.offset },
    (_, index) => new Publication({ channel: 'a', epoch, offset: index + 1, data: `"${'x'.repeat(9_998)}"`, at: 0 }),
  );
  const looks: number[] = [];
  let sent = 0;
  let isLive = false;
  const recovery = new Recovery(
    { epoch, offset: 0 },
    {
      connection: 'c',
      channel: 'a',
      pages,
      head: () => head,
      read: ({ offset }) => ({ head, publications: publications.slice(offset), complete: true }),
      slice: () => undefined,
      room: () => {
        looks.push(sent);
        return true;
      },
      gap: () => undefined,
      sent: (count) => (sent += count),
      sentRows: () => undefined,
      goLive: () => (isLive = true),
      pause: () => Promise.resolve(),
      monotonic: () => 0,
    },
    { holdMax: 10, holdBytesMax: 1_000, pageSize: 100, pageBytesMax: 1_000_000, timeoutMs: 1_000 },
  );
  expect(await recovery.run(new RecordingOutlet(new RecordingFanout('websocket')))).toBe(true);
  expect([sent, isLive, pages.recovering]).toEqual([12, true, others]);
  expect(looks[0]).toBe(betweenLooks);
});
