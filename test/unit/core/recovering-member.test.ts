// How long a socket is waited for that is sent what its subscriber missed, and what of that is counted.

import { expect, test } from 'bun:test';
import type { Reader } from '../../../src/core/history-reads.ts';
import type { Outlet } from '../../../src/core/outlet.ts';
import { paceWithin } from '../../../src/core/pace.ts';
import { PageBudget } from '../../../src/core/page-budget.ts';
import { RecoveringMember } from '../../../src/core/recovering-member.ts';
import { Slices } from '../../../src/core/slices.ts';
import { Subscription, type Subscriber } from '../../../src/core/subscription.ts';
import type { GapReason } from '../../../src/protocol/codes.ts';
import type { Position } from '../../../src/protocol/position.ts';
import { silentObserver } from '../../support/doubles.ts';
import { HandClock, idle, RecordingFanout, RecordingOutlet } from '../../support/hub.ts';

const position = { epoch: 'e', offset: 7 };
const shareBytesMin = 1_000;
const shareBytesMax = 4_000;

class Peer implements Subscriber {
  readonly id = 'c';
  readonly account = 'ann';
  readonly outlet: Outlet & RecordingOutlet;
  closed = false;
  slow = false;

  constructor(transport: string) {
    this.outlet = new RecordingOutlet(new RecordingFanout(transport));
  }
}

function stage(transport = 'websocket') {
  const clock = new HandClock();
  const reader = new Peer(transport);
  const counted: [string, string, number][] = [];
  const lost: [GapReason, number][] = [];
  const asked: [Position, Reader][] = [];
  const live: Subscription[] = [];
  const page = { head: position, publications: [], complete: true };
  const missed = {
    page: (since: Position, by: Reader) => {
      asked.push([since, by]);
      return page;
    },
  };
  const pages = new PageBudget({
    bytesMax: 1_000_000,
    pageBytesMin: 1,
    socketBytesMax: 8_000,
    shareBytesMax,
    shareBytesMin,
  });
  const subscription = new Subscription('a', reader, position);
  const member = new RecoveringMember(
    { name: 'a', position, missed, members: { goLive: (each) => live.push(each) } },
    {
      clock,
      pages,
      pace: paceWithin(4 << 20),
      slices: new Slices(1_000),
      observer: {
        ...silentObserver,
        sent: (type, channel, count) => counted.push([type, channel, count]),
        lost: (reason, count) => lost.push([reason, count]),
      },
    },
    subscription,
  );
  return { clock, reader, member, page, pages, subscription, counted, lost, asked, live };
}

/** What a promise came to, asked later. */
function watch(promise: boolean | Promise<boolean>): { answer: boolean | undefined } {
  const state: { answer: boolean | undefined } = { answer: undefined };
  void Promise.resolve(promise).then((answer) => (state.answer = answer));
  return state;
}

test('the more recover, the less waits in a socket before it is waited for', () => {
  const { reader, member, pages } = stage();
  for (const [recovering, bytes] of [
    [1, shareBytesMax],
    [4, 2_000],
    [100, shareBytesMin],
  ] as const) {
    while (pages.recovering < recovering) pages.enter();
    reader.outlet.buffered = bytes;
    expect(member.room(reader.outlet)).toBe(true);
    reader.outlet.buffered = bytes + 1;
    expect(member.room(reader.outlet)).toBeInstanceOf(Promise);
  }
});

test('a socket that takes in enough in time has room, one that does not is too slow, and no pace of live flow counts', async () => {
  for (const takesIn of [true, false]) {
    const { clock, reader, member } = stage();
    reader.slow = true;
    reader.outlet.buffered = 1 << 20;
    const waiting = watch(member.room(reader.outlet));
    clock.advance(9_000);
    await idle();
    expect(waiting.answer).toBeUndefined();
    if (takesIn) reader.outlet.buffered = shareBytesMax;
    clock.advance(1_500);
    await idle();
    expect([waiting.answer, reader.slow]).toEqual([takesIn, true]);
  }
});

// Its page was kept for as long as a slow reader is given.
test('one that is gone has no room, and is waited for no longer', async () => {
  const gone = stage();
  gone.reader.closed = true;
  expect(gone.member.room(gone.reader.outlet)).toBe(false);

  const { clock, reader, member } = stage();
  reader.outlet.buffered = 1 << 20;
  const waiting = watch(member.room(reader.outlet));
  await idle();
  reader.closed = true;
  clock.advance(50);
  await idle();
  expect(waiting.answer).toBe(false);
});

test('reads on the account of its subscriber, and counts what is sent and what is lost', async () => {
  const { clock, reader, member, page, subscription, counted, lost, asked, live } = stage();
  expect(member.read(position)).toBe(page);
  expect(asked).toEqual([[position, { account: 'ann', asksOnce: false }]]);
  member.sent(3);
  member.sentRows();
  expect(counted).toEqual([
    ['message', 'a', 3],
    ['snapshot', 'a', 1],
  ]);
  member.gap('trimmed', position);
  expect([lost, reader.outlet.story('a')]).toEqual([[['trimmed', 1]], ['gap:trimmed@7']]);
  member.goLive();
  expect(live).toEqual([subscription]);
  expect([member.connection, member.channel, member.head()]).toEqual(['c', 'a', position]);
  let paused = true;
  void member.pause().then(() => (paused = false));
  clock.advance(5);
  await idle();
  expect(paused).toBe(false);
});

test('a stream asks once: a browser that is refused does not come back', () => {
  const { member, asked } = stage('sse');
  void member.read(position);
  expect(asked).toEqual([[position, { account: 'ann', asksOnce: true }]]);
});
