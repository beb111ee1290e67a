// The one way to the log: how many reads are under way at once and for each account, which of those that wait share an
// answer, and what the caller gets whose turn does not come.

import { afterEach, expect, jest, test } from 'bun:test';
import { HistoryReads } from '../../../src/core/history-reads.ts';
import type { HistoryPage, HistoryQuery } from '../../../src/core/sync-adapter.ts';
import { Rules } from '../../../src/rules/rules.ts';
import { silentObserver } from '../../support/doubles.ts';
import { HandClock, idle, memoryAdapter } from '../../support/hub.ts';
import { RoughLog } from '../../support/rough-link.ts';

const rule = new Rules({ rules: [{ channels: '*' }] }).for('a');

afterEach(() => {
  jest.useRealTimers();
});

function stage() {
  const clock = new HandClock();
  const log = new RoughLog(clock);
  const link = log.link();
  let begun = 0;
  const reads = new HistoryReads({ adapter: link, observer: { ...silentObserver, historyRead: () => begun++ } });
  let distinct = 100;
  return {
    link,
    reads,
    begun: () => begun,
    append: () => void log.memory.publish({ channel: 'a', rule, data: '0', at: clock.now() }),
    /** So many reads of one account, no two of them the same. */
    ask: (account: string, count: number) => {
      for (let asked = 0; asked < count; asked++) {
        void Promise.resolve(reads.read('a', rule, { limit: distinct++ }, { account })).catch(() => undefined);
      }
    },
    /** Lets all be read and answered. */
    flow: async () => {
      do await idle();
      while (link.advance(0));
    },
  };
}

test('of one account eight are under way at once, of all 32, and each that ends lets the next begin', async () => {
  const { link, ask, begun, flow } = stage();
  ask('a', 10);
  expect(link.requests).toHaveLength(8);
  for (const account of ['b', 'c', 'd', 'e', 'f']) ask(account, 8);
  expect(link.requests).toHaveLength(32);
  link.advance(0);
  link.advance(0);
  await idle();
  expect([link.requests.length, begun()]).toEqual([32, 33]);
  await flow();
  expect([link.requests.length, begun()]).toEqual([0, 50]);
});

test('a log in this process’s memory is read at once, however much is', async () => {
  const reads = new HistoryReads({ adapter: memoryAdapter(new HandClock()), observer: silentObserver });
  for (let count = 0; count < 100; count++)
    expect(reads.read('a', rule, { limit: 1 }, { account: 'a' })).not.toBeInstanceOf(Promise);
});

test('those that wait share the answer with whoever asks for just the same, and with nobody else', async () => {
  const { reads, ask, begun, flow } = stage();
  ask('a', 8);
  const query: HistoryQuery = { since: { epoch: 'e', offset: 1 }, limit: 5, bytesMax: 100 };
  const read = (channel = 'a', more: HistoryQuery = query, internal = false) =>
    reads.read(channel, rule, more, { account: 'a', internal });
  const [first, again] = [read(), read()];
  expect(again).toBe(first);
  const others = [
    read('b'),
    read('a', query, true),
    read('a', { ...query, since: { epoch: 'f', offset: 1 } }),
    read('a', { ...query, since: { epoch: 'e', offset: 2 } }),
    read('a', { ...query, limit: 6 }),
    read('a', { ...query, bytesMax: 101 }),
    read('a', { limit: 5, bytesMax: 100 }),
  ];
  expect(new Set([first, ...others]).size).toBe(8);
  await flow();
  expect(begun()).toBe(8 + 8);
});

// An answer that was shared once would have been everybody's for ever.
test('what was answered is read again', async () => {
  const { reads, ask, append, flow } = stage();
  const offsets = async () => {
    ask('a', 8);
    const reading = reads.read('a', rule, { limit: 5 }, { account: 'a' }) as Promise<HistoryPage>;
    await flow();
    return (await reading).publications.map(({ offset }) => offset);
  };
  append();
  expect(await offsets()).toEqual([1]);
  append();
  expect(await offsets()).toEqual([1, 2]);
});

test('a read that fails gives its turn back', async () => {
  const { link, reads, ask } = stage();
  for (let failures = 0; failures < 20; failures++) {
    const failing = Promise.resolve(reads.read('a', rule, { limit: 1 }, { account: 'a' })).catch(
      (error: unknown) => error,
    );
    link.fail(0);
    expect(await failing).toBeInstanceOf(Error);
  }
  ask('a', 8);
  expect(link.requests).toHaveLength(8);
});

// An EventSource gives up for good at a 503, which it got after three seconds as well. After a deploy, where each user has a
// channel of their own, their streams stayed dead until the page was loaded again.
test('unavailable, and retryable, is who waits longer than three seconds, or nine if it asks only once', async () => {
  for (const [asksOnce, ms] of [
    [false, 3_000],
    [true, 9_000],
  ] as const) {
    jest.useFakeTimers();
    const { reads, ask } = stage();
    ask('a', 8);
    const reading = reads.read('a', rule, { limit: 1 }, { account: 'a', asksOnce }) as Promise<HistoryPage>;
    const late = reading.catch((error: unknown) => error);
    let isOver = false;
    void late.then(() => (isOver = true));
    jest.advanceTimersByTime(ms - 1);
    await Promise.resolve();
    expect(isOver).toBe(false);
    jest.advanceTimersByTime(1);
    expect(await late).toMatchObject({ code: 'unavailable', retryable: true });
    jest.useRealTimers();
  }
});

test('unavailable, and retryable, is who would be one too many to wait', async () => {
  jest.useFakeTimers();
  const { reads, ask } = stage();
  ask('a', 8);
  const late = (reads.read('a', rule, { limit: 1 }, { account: 'a' }) as Promise<HistoryPage>).catch(
    (error: unknown) => error,
  );
  ask('a', 9_999);
  const unavailable = { code: 'unavailable', retryable: true };
  expect(() => reads.read('a', rule, { limit: 2 }, { account: 'a' })).toThrow(expect.objectContaining(unavailable));
  jest.advanceTimersByTime(3_000);
  expect(await late).toMatchObject(unavailable);
});
