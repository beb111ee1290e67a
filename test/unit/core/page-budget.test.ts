// Those who recover share the memory that may wait in their sockets. Each had as much as if it were alone: 300 streams
// that read slowly cost a node hundreds of megabytes.

import { expect, test } from 'bun:test';
import { PageBudget } from '../../../src/core/page-budget.ts';
import { Publication } from '../../../src/core/publication.ts';
import { Recovery } from '../../../src/core/recovery.ts';
import { createHub, HandClock, memoryAdapter, RecordingFanout, RecordingOutlet } from '../../support/hub.ts';

const limits = {
  bytesMax: 1_000_000,
  pageBytesMin: 20_000,
  socketBytesMax: 400_000,
  shareBytesMax: 100_000,
  shareBytesMin: 10_000,
};

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

test('so many bytes may wait as there may be, and not one more', () => {
  const pages = new PageBudget(limits);
  expect([pages.take(limits.bytesMax - 1), pages.take(2), pages.take(1), pages.take(1), pages.take(0)]).toEqual([
    true,
    false,
    true,
    false,
    true,
  ]);
  pages.give(1);
  expect([pages.bytes, pages.take(2), pages.take(1)]).toEqual([limits.bytesMax - 1, false, true]);
});

// Each read a page of half a mebibyte, of which most was dropped when a part was sent, and read again for the next part.
test('pages are so small that those of all who recover may wait together', async () => {
  const pages = new PageBudget(limits);
  const sizes: number[] = [];
  for (const count of [0, 1, 10, 40, 1_000]) {
    while (pages.recovering < count) pages.enter();
    sizes.push(pages.pageBytes);
  }
  expect(sizes).toEqual([1_000_000, 1_000_000, 100_000, 25_000, 20_000]);

  const adapter = memoryAdapter(new HandClock());
  const asked: (number | undefined)[] = [];
  const history = adapter.history.bind(adapter);
  adapter.history = (channel, rule, query, ...rest) => {
    asked.push(query.bytesMax);
    return history(channel, rule, query, ...rest);
  };
  const hub = createHub({ adapter });
  const epoch = (await hub.hub.publish({ channel: 'a', data: '1', source: 'server' }))?.epoch;
  const readers = Array.from({ length: 200 }, () => hub.connect());
  // None of them takes in what it is sent, so all recover at the same time.
  for (const { outlet, send } of readers) {
    outlet.buffered = 1 << 20;
    await send({ type: 'subscribe', channel: 'a', since: { epoch, offset: 0 } });
  }
  expect([asked[0], asked.at(-1)]).toEqual([512 << 10, Math.floor((32 << 20) / 199)]);
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
