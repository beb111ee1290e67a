// Waiting for sockets: a fair reader is waited for, a slow one once and briefly, one that is gone not at all.

import { expect, test } from 'bun:test';
import { isLagging, paceLimits, paceWithin, waitForPace } from '../../../src/core/pace.ts';
import { createHub, HandClock, idle, RecordingFanout, RecordingOutlet } from '../../support/hub.ts';

function reader(buffered: number): { outlet: RecordingOutlet; closed: boolean; slow: boolean } {
  const outlet = new RecordingOutlet(new RecordingFanout('websocket'));
  outlet.buffered = buffered;
  return { outlet, closed: false, slow: false };
}

async function turn(clock: HandClock, milliseconds: number): Promise<void> {
  clock.advance(milliseconds);
  await idle();
}

/** Whether the promise has resolved, asked later. */
function watch(promise: Promise<void>): { done: boolean } {
  const state = { done: false };
  void promise.then(() => (state.done = true));
  return state;
}

test('a fair reader is waited for until it has room', async () => {
  const clock = new HandClock();
  const fair = reader(2 << 20);
  const waiting = watch(waitForPace([fair], clock, paceLimits));
  for (let step = 0; step < 14; step++) {
    fair.outlet.buffered -= 70 << 10;
    await turn(clock, 45);
    expect(waiting.done).toBe(false);
  }
  fair.outlet.buffered = 1 << 20;
  await turn(clock, 2);
  expect(waiting.done).toBe(true);
  expect(fair.slow).toBe(false);
});

test('a slow reader is waited for once, and again only after it has caught up', async () => {
  const clock = new HandClock();
  const slow = reader(2 << 20);
  const waiting = watch(waitForPace([slow], clock, paceLimits));
  await turn(clock, 40);
  expect(waiting.done).toBe(false);
  await turn(clock, 20);
  expect(waiting.done).toBe(true);
  expect(slow.slow).toBe(true);
  const again = watch(waitForPace([slow], clock, paceLimits));
  await idle();
  expect(again.done).toBe(true);
  slow.outlet.buffered = 0;
  expect(isLagging(slow, paceLimits)).toBe(false);
  expect(slow.slow).toBe(false);
});

// What it once took in counted for ever: one that stalled after it was waited for without end.
test('a reader is as fair as what it took in last', async () => {
  const clock = new HandClock();
  const stalls = reader(2 << 20);
  const waiting = watch(waitForPace([stalls], clock, paceLimits));
  stalls.outlet.buffered -= paceLimits.fairBytes;
  await turn(clock, 40);
  await turn(clock, paceLimits.fairMs);
  expect(waiting.done).toBe(false);
  await turn(clock, 3);
  expect([waiting.done, stalls.slow]).toEqual([true, true]);
});

test('a reader that takes in just enough, just in time, is fair, however often it is looked at', async () => {
  const clock = new HandClock();
  const fair = reader(2 << 20);
  const waiting = watch(waitForPace([fair], clock, paceLimits));
  for (let step = 1; step <= 20; step++) {
    if (step % 2 === 0) fair.outlet.buffered -= paceLimits.fairBytes;
    await turn(clock, 25);
    expect([step, waiting.done, fair.slow]).toEqual([step, false, false]);
  }
  const late = reader(2 << 20);
  const waitingForLate = watch(waitForPace([late], clock, paceLimits));
  await turn(clock, paceLimits.fairMs);
  expect(waitingForLate.done).toBe(false);
  late.outlet.buffered -= paceLimits.fairBytes - 1;
  await turn(clock, 3);
  expect([waitingForLate.done, late.slow]).toEqual([true, true]);
});

test('a socket is looked at twenty times a second at least, however long it is waited for', async () => {
  const clock = new HandClock();
  const slow = reader(2 << 20);
  const waiting = watch(waitForPace([slow], clock, paceWithin(4 << 20).recovery));
  for (let step = 0; step < 100; step++) await turn(clock, 50);
  expect(waiting.done).toBe(false);
  slow.outlet.buffered = 0;
  await turn(clock, 50);
  expect(waiting.done).toBe(true);
});

// What may wait, and what is given before the next look, are together less than what a connection is cut off at.
test.each([64, 256, 1_024, 4_096, 65_536])('with %i KiB for each reader, all bounds are parts of it', (kibibytes) => {
  const max = kibibytes << 10;
  const { live, recovery, lookEveryBytes, lookAllEveryBytes, heldBytesMax } = paceWithin(max);
  expect([live.highWaterBytes, recovery.highWaterBytes, lookEveryBytes, lookAllEveryBytes, heldBytesMax]).toEqual([
    Math.min(1 << 20, max / 4),
    Math.min(256 << 10, max / 8),
    Math.min(128 << 10, max / 8),
    Math.min(1 << 20, max / 4),
    max / 4,
  ]);
  expect(live.highWaterBytes + lookAllEveryBytes + lookEveryBytes).toBeLessThan(max);
  expect(recovery.highWaterBytes + heldBytesMax + lookEveryBytes).toBeLessThan(max);
});

test('a reader that is gone is waited for no longer', async () => {
  const clock = new HandClock();
  const gone = reader(2 << 20);
  const waiting = watch(waitForPace([gone], clock, paceLimits));
  gone.closed = true;
  await turn(clock, 2);
  expect(waiting.done).toBe(true);
});

test('the hub looks at the sockets of channels that were given much, and waits only for those that lag', async () => {
  const harness = createHub();
  const { outlet, send } = harness.connect();
  await send({ type: 'subscribe', channel: 'a' });
  expect(harness.hub.settled()).toBeUndefined();
  const data = JSON.stringify('x'.repeat(50_000));
  for (let sent = 0; sent < 4; sent++) await harness.hub.publish({ channel: 'a', data, source: 'server' });
  expect(harness.hub.settled()).toBeUndefined();
  outlet.buffered = 2 << 20;
  for (let sent = 0; sent < 4; sent++) await harness.hub.publish({ channel: 'a', data, source: 'server' });
  const settled = harness.hub.settled();
  expect(settled).toBeInstanceOf(Promise);
  outlet.buffered = 0;
  await turn(harness.clock, 2);
  await settled;
});

// One that recovers a page of large publications was marked slow by the pace of live ones, and cut for it.
test('a connection that recovers is not held against the pace of live publications', async () => {
  const harness = createHub();
  const data = JSON.stringify('x'.repeat(50_000));
  const epoch = (await harness.hub.publish({ channel: 'a', data, source: 'server' }))?.epoch;
  const { outlet, session } = harness.connect();
  outlet.buffered = 2 << 20;
  session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 0 } }));
  const live = harness.connect();
  await live.send({ type: 'subscribe', channel: 'a' });
  for (let sent = 0; sent < 4; sent++) await harness.hub.publish({ channel: 'a', data, source: 'server' });
  expect(harness.hub.settled()).toBeUndefined();
  session.slow = true;
  await turn(harness.clock, 2);
  outlet.buffered = 0;
  await turn(harness.clock, 50);
  expect(outlet.ended).toBeUndefined();
  expect(outlet.story('a')).toEqual([1, 2, 3, 4, 5]);
});

// What the server itself let wait was 1 MiB, whatever the setting: with MAX_BUFFERED_BYTES below that a subscriber that
// recovers, and reads at a fair pace, was cut off again and again.
test.each([64, 256, 1_024, 4_096])(
  'with %i KiB for each reader, one that recovers beside a writer is never given more than may wait',
  async (kibibytes) => {
    const bufferedBytesMax = kibibytes << 10;
    const harness = createHub({ rules: [{ channels: '*', history: { size: 2_000 } }], limits: { bufferedBytesMax } });
    const { hub, clock } = harness;
    const data = JSON.stringify('x'.repeat(10_000));
    const publish = async () => hub.publish({ channel: 'a', data, source: 'server' });
    const epoch = (await publish())?.epoch;
    for (let count = 1; count < 300; count++) await publish();
    const { outlet, session } = harness.connect();
    let most = 0;
    outlet.onTold = (told) => {
      if (told.kind !== 'message') return;
      outlet.buffered += told.publication.data.length;
      most = Math.max(most, outlet.buffered);
    };
    session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 0 } }));
    // As an adapter that reads a log: batch by batch, and what sockets must take in is waited for.
    let isRead = false;
    const reading = (async () => {
      for (let batch = 0; batch < 10; batch++) {
        await clock.sleep(1_000);
        for (let count = 0; count < 40; count++) {
          await publish();
          await hub.settled();
        }
      }
      isRead = true;
    })();
    for (let step = 0; !isRead || outlet.told.length < 701; step++) {
      expect(step).toBeLessThan(2_000);
      outlet.buffered = Math.max(0, outlet.buffered - (64 << 10));
      await turn(clock, 45);
    }
    await reading;
    expect(outlet.ended).toBeUndefined();
    expect(outlet.story('a')).toEqual(Array.from({ length: 700 }, (_, index) => index + 1));
    expect(most).toBeLessThan(bufferedBytesMax);
  },
);

// Each channel was looked at once it was given 128 KiB. A connection in forty of them was given 5 MiB before anyone
// looked, and was cut off at 4 MiB, however fast it read.
test('a connection in many channels, each of which is given a little, is waited for as well', async () => {
  const bufferedBytesMax = 4 << 20;
  const harness = createHub({ limits: { bufferedBytesMax } });
  const { hub, clock } = harness;
  const { outlet, send } = harness.connect();
  const names = Array.from({ length: 40 }, (_, index) => `a${index}`);
  await send({ type: 'subscribe', channels: names.map((channel) => ({ channel })) });
  const data = JSON.stringify('x'.repeat(10_000));
  let most = 0;
  outlet.onTold = (told) => {
    if (told.kind !== 'message') return;
    outlet.buffered += told.publication.data.length;
    most = Math.max(most, outlet.buffered);
  };
  let isOver = false;
  const publishing = (async () => {
    for (let round = 0; round < 20; round++) {
      for (const channel of names) {
        await hub.publish({ channel, data, source: 'server' });
        await hub.settled();
      }
    }
    isOver = true;
  })();
  // It reads at a fair pace: a statement of 8 MB over all channels is not felt.
  for (let step = 0; !isOver; step++) {
    expect(step).toBeLessThan(1_000);
    outlet.buffered = Math.max(0, outlet.buffered - (70 << 10));
    await turn(clock, 45);
  }
  await publishing;
  expect(outlet.ended).toBeUndefined();
  expect(outlet.told.filter(({ kind }) => kind === 'message')).toHaveLength(20 * names.length);
  expect(most).toBeLessThan(bufferedBytesMax / 2 + (128 << 10));
});
