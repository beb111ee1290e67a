// A subscription that is suspended, or asks for rows in vain, before it has caught up: it goes on from what its client has
// been sent. From anywhere earlier the client would hear publications twice, from anywhere later some would be lost.

import { expect, test } from 'bun:test';
import { noSnapshots, type Snapshot, type Snapshots } from '../../../src/core/snapshot.ts';
import type { Subscription } from '../../../src/core/subscription.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { MemoryMembers } from '../../../src/sync/memory/presence.ts';
import { createHub, HandClock, idle, type HubHarness } from '../../support/hub.ts';
import { flow, onLink } from '../../support/link-hub.ts';

const noRows: Snapshots = {
  ...noSnapshots,
  has: () => true,
  take: () => Promise.reject(new RealtimeError('unavailable')),
};

async function publish({ hub }: HubHarness, count: number, data = '0', channel = 'a'): Promise<void> {
  for (let sent = 0; sent < count; sent++) await hub.publish({ channel, data, source: 'server' });
}

async function beginning({ hub }: HubHarness): Promise<{ epoch: string; offset: number }> {
  return { ...(await hub.history('a', { limit: 1 }, 'test')).head, offset: 0 };
}

/** Whoever suspended it knows the answer. */
async function resume(harness: HubHarness, { session, outlet }: ReturnType<HubHarness['connect']>): Promise<void> {
  const recovering = harness.hub.resume(session.subscription('a')!);
  await recovering?.recovery.run(outlet);
}

test('one that is suspended while it catches up goes on where it was', async () => {
  const harness = createHub();
  await publish(harness, 3);
  const connected = harness.connect();
  const { session, outlet, send } = connected;
  outlet.buffered = 1 << 20;
  await send({ type: 'subscribe', channel: 'a', since: await beginning(harness) });
  expect(outlet.story('a')).toEqual([1, 2, 3]);
  harness.hub.suspend(session.subscription('a')!);
  await publish(harness, 1);
  outlet.buffered = 0;
  harness.clock.advance(1_000);
  await idle();
  await resume(harness, connected);
  await publish(harness, 1);
  expect(outlet.story('a')).toEqual([1, 2, 3, 4, 5]);
});

test('one that is suspended before it is told of hears nothing until it is resumed', async () => {
  const harness = onLink({ limits: { keptBytesMax: 0 } });
  const { connect, link, log, rules, append, subscribing, hub } = harness;
  log.memory.publish({ channel: 'b', rule: rules.for('b'), data: '0', at: harness.clock.now() });
  const since = { ...log.memory.history('b', rules.for('b'), { limit: 1 }).head, offset: 0 };
  const connected = connect();
  const { session, outlet } = connected;
  // What the other one missed is read from the log, and both are told together.
  void subscribing.subscribe(session, [{ channel: 'a' }, { channel: 'b', resume: () => since }]);
  let subscription: Subscription | undefined;
  while (subscription === undefined) {
    await idle();
    link.advance(0);
    link.deliver();
    subscription = session.subscription('a');
  }
  expect(outlet.states()).toEqual([]);
  hub.suspend(subscription);
  await flow(link);
  append();
  await flow(link);
  expect(outlet.states()).toHaveLength(2);
  expect([subscription.phase, outlet.story('a'), outlet.story('b')]).toEqual(['suspended', [], [1]]);
  void resume(harness, connected);
  await flow(link);
  expect(outlet.story('a')).toEqual([1]);
});

test('one that is suspended and names a place that it lacks goes on behind the gap', async () => {
  const harness = createHub();
  await publish(harness, 3);
  const connected = harness.connect();
  const { session, outlet, send } = connected;
  await send({ type: 'subscribe', channel: 'a' });
  harness.hub.suspend(session.subscription('a')!);
  await publish(harness, 2);
  await send({ type: 'subscribe', channel: 'a', since: await beginning(harness) });
  await publish(harness, 1);
  await resume(harness, connected);
  expect(outlet.story('a')).toEqual(['gap:trimmed@5', 6]);
});

// It was answered `subscribed`, and no rows ever came.
test('one that is suspended and asks for rows is told to ask again, and is suspended where it was', async () => {
  const harness = createHub({ snapshots: noRows });
  const connected = harness.connect();
  const { session, outlet, send } = connected;
  await send({ type: 'subscribe', channel: 'a' });
  await publish(harness, 1);
  harness.hub.suspend(session.subscription('a')!);
  await publish(harness, 1);
  await send({ type: 'subscribe', channel: 'a', snapshot: true });
  expect(outlet.frames('error')).toMatchObject([{ channel: 'a', code: 'unavailable', retryable: true }]);
  expect(outlet.states()).toHaveLength(1);
  await publish(harness, 1);
  expect([session.subscription('a')?.phase, outlet.story('a')]).toEqual(['suspended', [1]]);
  await resume(harness, connected);
  expect(outlet.story('a')).toEqual([1, 2, 3]);
});

test('one that asks for rows in vain while it catches up goes on where it was', async () => {
  const harness = createHub({ snapshots: noRows });
  await publish(harness, 12, JSON.stringify('x'.repeat(60_000)));
  const { outlet, send } = harness.connect();
  outlet.onTold = (told) => {
    if (told.kind === 'message') outlet.buffered += told.publication.data.length;
  };
  await send({ type: 'subscribe', channel: 'a', since: await beginning(harness) });
  const before = outlet.story('a').length;
  await send({ type: 'subscribe', channel: 'a', snapshot: true });
  expect(outlet.frames('error')).toMatchObject([{ channel: 'a', code: 'unavailable' }]);
  for (let round = 0; round < 20; round++) {
    outlet.buffered = 0;
    harness.clock.advance(100);
    await idle();
  }
  expect(before).toBeLessThan(12);
  expect(outlet.story('a')).toEqual(Array.from({ length: 12 }, (_, index) => index + 1));
});

test('rows that come in place of what was missed leave nothing held', async () => {
  const take: Snapshots['take'] = ({ position }) =>
    Promise.resolve({ frames: ['{"type":"snapshot"}'], position, holds: () => false });
  const harness = createHub({ snapshots: { ...noSnapshots, has: () => true, take } });
  await publish(harness, 6, '0', 'small:a');
  const { outlet, send } = harness.connect();
  const { epoch } = (await harness.hub.history('small:a', { limit: 1 }, 'test')).head;
  await send({ type: 'subscribe', channel: 'small:a', since: { epoch, offset: 0 }, snapshot: true });
  await publish(harness, 1, '0', 'small:a');
  expect(outlet.frames('snapshot')).toHaveLength(1);
  expect(outlet.story('small:a')).toEqual([7]);
  const { members } = await harness.hub.open('small:a');
  expect([members.live, members.recoveries]).toEqual([1, undefined]);
});

test('rows that fail after the connection has ended leave nothing of it', async () => {
  const rows = Promise.withResolvers<Snapshot>();
  const harness = createHub({ snapshots: { ...noSnapshots, has: () => true, take: () => rows.promise } });
  const [stays, ends] = [harness.connect(), harness.connect()];
  for (const { send } of [stays, ends]) await send({ type: 'subscribe', channel: 'a' });
  await ends.send({ type: 'subscribe', channel: 'a', snapshot: true });
  ends.outlet.cut();
  rows.reject(new RealtimeError('unavailable'));
  await idle();
  const { members } = await harness.hub.open('a');
  expect([members.size, members.live, members.recoveries]).toEqual([1, 1, undefined]);
});

test('one whose right ends while it enters the presence is refused, and hears nothing', async () => {
  const clock = new HandClock();
  const harness = createHub({ clock, members: new MemoryMembers(clock) });
  harness.store.answersAtOnce = false;
  const { session, outlet } = harness.connect();
  session.receive('{"type":"subscribe","channel":"a","presence":true}');
  expect([outlet.states(), session.subscription('a')?.phase]).toEqual([[], 'added']);
  harness.hub.unsubscribe(session, 'a');
  for (let turn = 0; turn < 10; turn++) await idle();
  await publish(harness, 1);
  expect(outlet.frames('error')).toMatchObject([{ channel: 'a', code: 'forbidden' }]);
  expect([outlet.states(), [...outlet.joined], outlet.story('a')]).toEqual([[], [], []]);
  expect(harness.hub.channelCount).toBe(0);
  await harness.presence.close();
});
