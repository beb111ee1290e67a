// How a subscription begins, goes on and ends: heads, recovery by position, gaps, and that nothing is left behind.

import { expect, test } from 'bun:test';
import type { Clock } from '../../../src/time/clock.ts';
import type { SyncAdapter } from '../../../src/core/sync-adapter.ts';
import { noSnapshots, type Snapshot } from '../../../src/core/snapshot.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { createHub, HandClock, idle, memoryAdapter, type HubHarness } from '../../support/hub.ts';
import { silentObserver } from '../../support/doubles.ts';
import { flow, onLink } from '../../support/link-hub.ts';

async function publish({ hub }: HubHarness, channel: string, count: number, data = '0'): Promise<void> {
  for (let sent = 0; sent < count; sent++) await hub.publish({ channel, data, source: 'server' });
}

async function epochOf({ hub }: HubHarness, channel: string): Promise<string> {
  return (await hub.history(channel, { limit: 1 }, 'test')).head.epoch;
}

test('subscribed tells the head, and live publications follow it', async () => {
  const harness = createHub();
  await publish(harness, 'a', 2);
  const { outlet, send } = harness.connect();
  await send({ type: 'subscribe', id: 1, channel: 'a' });
  await publish(harness, 'a', 1);
  expect(outlet.states()).toEqual([{ channel: 'a', recoverable: true, epoch: await epochOf(harness, 'a'), offset: 2 }]);
  expect(outlet.story('a')).toEqual([3]);
});

test('an ephemeral channel has no position, and says so', async () => {
  const harness = createHub();
  const { outlet, send } = harness.connect();
  await send({ type: 'subscribe', channel: 'ephemeral:a' });
  await send({ type: 'subscribe', channel: 'ephemeral:b', since: { epoch: 'x', offset: 3 } });
  await publish(harness, 'ephemeral:a', 2);
  expect(outlet.states()).toEqual([
    { channel: 'ephemeral:a', recoverable: false },
    { channel: 'ephemeral:b', recoverable: false, recovered: false },
  ]);
  expect(outlet.story('ephemeral:a')).toEqual([0, 0]);
});

test('subscribing twice answers twice and delivers once', async () => {
  const harness = createHub();
  const { outlet, send } = harness.connect();
  await send({ type: 'subscribe', channel: 'a' });
  await publish(harness, 'a', 1);
  await send({ type: 'subscribe', channel: 'a' });
  await publish(harness, 'a', 1);
  expect(outlet.states().map(({ offset }) => offset)).toEqual([0, 1]);
  expect(outlet.story('a')).toEqual([1, 2]);
});

// A second `subscribe` with an older position was answered `recovered: true`, and what lay between was never sent.
test('a position older than the subscription that is live already gets a gap', async () => {
  const harness = createHub();
  await publish(harness, 'a', 5);
  const epoch = await epochOf(harness, 'a');
  const { outlet, send } = harness.connect();
  await send({ type: 'subscribe', channel: 'a' });
  await publish(harness, 'a', 1);
  await send({ type: 'subscribe', channel: 'a', since: { epoch, offset: 5 } });
  await send({ type: 'subscribe', channel: 'a', since: { epoch, offset: 2 } });
  await publish(harness, 'a', 1);
  expect(outlet.states().map(({ recovered }) => recovered)).toEqual([undefined, true, false]);
  expect(outlet.story('a')).toEqual([6, 'gap:trimmed@6', 7]);
});

test('missed publications follow subscribed, in order, before live ones', async () => {
  const harness = createHub();
  await publish(harness, 'a', 500);
  const { outlet, send } = harness.connect();
  await send({ type: 'subscribe', channel: 'a', since: { epoch: await epochOf(harness, 'a'), offset: 3 } });
  await publish(harness, 'a', 1);
  expect(outlet.told[0]?.kind).toBe('subscribed');
  expect(outlet.states()).toMatchObject([{ offset: 500, recovered: true }]);
  expect(outlet.story('a')).toEqual(Array.from({ length: 498 }, (_, index) => index + 4));
});

test('what history no longer holds is a gap, and the rest follows it', async () => {
  const harness = createHub();
  await publish(harness, 'small:a', 9);
  const { outlet, send } = harness.connect();
  const epoch = await epochOf(harness, 'small:a');
  await send({ type: 'subscribe', channel: 'small:a', since: { epoch, offset: 2 } });
  await publish(harness, 'small:a', 1);
  expect(outlet.states()).toMatchObject([{ recovered: false }]);
  expect(outlet.story('small:a')).toEqual(['gap:trimmed@6', 7, 8, 9, 10]);
});

test('another epoch, and an offset that the log never had, are gaps', async () => {
  const harness = createHub();
  await publish(harness, 'a', 4);
  const { outlet, send } = harness.connect();
  await send({ type: 'subscribe', channel: 'a', since: { epoch: 'other', offset: 2 } });
  const late = harness.connect();
  await late.send({ type: 'subscribe', channel: 'a', since: { epoch: await epochOf(harness, 'a'), offset: 40 } });
  await publish(harness, 'a', 1);
  expect(outlet.states()).toMatchObject([{ offset: 4, recovered: false }]);
  expect(outlet.story('a')).toEqual(['gap:epoch_changed@4', 5]);
  expect(late.outlet.states()).toMatchObject([{ recovered: false }]);
  expect(late.outlet.story('a')).toEqual(['gap:epoch_changed@4', 5]);
});

test('if one channel of a request is refused none is subscribed', async () => {
  const harness = createHub({ access: { may: (_identity, _action, channel) => channel !== 'closed' } });
  const { session, outlet } = harness.connect('sse');
  const requests = ['a', 'b', 'closed'].map((channel) => ({ channel }));
  await expect(harness.subscribing.subscribe(session, requests)).rejects.toMatchObject({ code: 'forbidden' });
  expect(outlet.told).toEqual([]);
  expect([harness.hub.channelCount, harness.hub.subscriptionCount]).toEqual([0, 0]);
});

test('channels per connection are limited', async () => {
  const { connect } = createHub({ limits: { channelsPerConnectionMax: 2 } });
  const { outlet, send } = connect();
  for (const channel of ['a', 'b', 'c', 'a']) await send({ type: 'subscribe', channel });
  expect(outlet.frames('error')).toMatchObject([{ channel: 'c', code: 'limit_exceeded' }]);
  expect(outlet.states().map(({ channel }) => channel)).toEqual(['a', 'b', 'a']);
});

// An adapter that threw at once left a channel behind that was never opened: later subscribers waited on it for ever.
test('a channel that cannot be opened is left as if it had not been asked for', async () => {
  for (const rejects of [false, true]) {
    const clock = new HandClock();
    const adapter: SyncAdapter = memoryAdapter(clock);
    const subscribe = adapter.subscribe.bind(adapter);
    const error = new RealtimeError('unavailable');
    adapter.subscribe = () => {
      if (rejects) return Promise.reject(error);
      throw error;
    };
    const harness = createHub({ clock, adapter });
    const { outlet, send } = harness.connect();
    await send({ type: 'subscribe', channel: 'a' });
    expect(outlet.frames('error')).toMatchObject([{ channel: 'a', code: 'unavailable', retryable: true }]);
    expect(harness.hub.channelCount).toBe(0);
    adapter.subscribe = subscribe;
    await send({ type: 'subscribe', channel: 'a' });
    await publish(harness, 'a', 1);
    expect(outlet.story('a')).toEqual([1]);
  }
});

test('publications during the opening are held and follow subscribed if they are past its head', async () => {
  const { connect, link, append } = onLink();
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await idle();
  link.advance(0);
  append(2);
  link.deliver();
  link.deliver();
  await flow(link);
  expect(outlet.states()).toMatchObject([{ offset: 2 }]);
  expect(outlet.story('a')).toEqual([]);
});

test('a connection that ends while its channel opens leaves nothing', async () => {
  const { connect, link, hub, sessions } = onLink();
  const { session } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await idle();
  session.end(1006);
  await flow(link);
  expect([sessions.size, hub.channelCount, hub.subscriptionCount, link.subscribed.size]).toEqual([0, 0, 0, 0]);
});

test('a hole is filled from history before anything later is told', async () => {
  const { connect, link, append } = onLink();
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  append(6);
  link.deliver();
  link.drop();
  link.drop();
  link.deliver();
  await idle();
  expect(outlet.story('a')).toEqual([1]);
  await flow(link);
  expect(outlet.story('a')).toEqual([1, 2, 3, 4, 5, 6]);
});

test('a hole is filled when the sync layer is back, however often reading it failed', async () => {
  const { connect, link, clock, logged, append } = onLink();
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  append(3);
  link.drop();
  link.deliver();
  for (let failures = 0; failures < 8; failures++) {
    link.fail(0);
    await idle();
    clock.advance(5_000);
    await idle();
  }
  await flow(link);
  expect(outlet.story('a')).toEqual([1, 2, 3]);
  expect(logged).toHaveLength(8);
});

// The head was ignored because a page was already on its way, which had been read before it.
test('a head told while a page is on its way is read up to', async () => {
  const { connect, link, append } = onLink();
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  append();
  append();
  link.drop();
  link.deliver();
  await idle();
  link.advance(0);
  append();
  link.reconnect();
  expect([link.requests.length, link.deliver()]).toEqual([1, true]);
  await flow(link);
  expect(outlet.story('a')).toEqual([1, 2, 3]);
});

// A node without time to read what Redis had sent it was told a head far ahead. The log of a rule that keeps little had
// forgotten what lay between, so all subscribers of the node were told a gap, and then got all of it dropped.
test('what the log has forgotten and is on its way still is waited for', async () => {
  const { connect, link, clock, log, rules } = onLink();
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"small:a"}');
  await flow(link);
  const append = (count: number): void => {
    const rule = rules.for('small:a');
    for (let sent = 0; sent < count; sent++)
      log.memory.publish({ channel: 'small:a', rule, data: '0', at: clock.now() });
  };
  const headFirst = (): void => {
    link.tellHeads();
    link.events.unshift(...link.events.splice(-1));
  };
  const settle = async (forMs: number): Promise<void> => {
    for (let passed = 0; passed <= forMs; passed += 5) {
      await flow(link);
      clock.advance(5);
    }
    await flow(link);
  };
  append(9);
  headFirst();
  await settle(50);
  expect(outlet.story('small:a')).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);

  // What comes begins later: the rest is lost.
  append(9);
  link.drop();
  headFirst();
  await settle(50);
  expect(outlet.story('small:a').slice(9)).toEqual(['gap:trimmed@15', 16, 17, 18]);

  // Nothing comes at all.
  append(9);
  link.reconnect();
  await settle(50);
  expect(outlet.story('small:a')).toHaveLength(13);
  await settle(1_000);
  expect(outlet.story('small:a').slice(13)).toEqual(['gap:trimmed@24', 25, 26, 27]);
});

// Publications held while a hole was filled were of the log that history had found lost: releasing them went back to
// it, found the hole again, and told gaps without end.
test('a log that is lost while a hole is being filled is one gap', async () => {
  const { connect, link, log, append } = onLink();
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  append();
  link.deliver();
  append();
  append();
  link.drop();
  link.deliver();
  await idle();
  log.reset();
  append();
  await flow(link);
  link.reconnect();
  await flow(link);
  expect(outlet.story('a')).toEqual([1, 'gap:epoch_changed@1']);
  append();
  await flow(link);
  expect(outlet.story('a').slice(2)).toEqual([2]);
});

// A node that lagged behind the one that the client came from told it `epoch_changed`, and then its last messages again.
test('a client that comes from a faster node waits for this one and hears nothing twice', async () => {
  const { connect, link, log, rules, clock, append } = onLink();
  const rule = rules.for('a');
  connect().session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  append(3);
  const { epoch } = log.memory.history('a', rule, { limit: 1 }).head;
  const events = link.events.splice(0);
  const { session, outlet } = connect();
  session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 3 } }));
  await flow(link);
  link.events.push(...events);
  append();
  await flow(link);
  clock.advance(100);
  await flow(link);
  expect(outlet.states()).toMatchObject([{ offset: 3, recovered: true }]);
  expect(outlet.story('a')).toEqual([4]);
});

// It was live at once, by the address or a rule, before it said where it stood. It heard its last messages again.
test('so does one who is subscribed before it says so', async () => {
  const { connect, link, log, rules, clock, append } = onLink();
  const rule = rules.for('a');
  connect().session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  append(3);
  const { epoch } = log.memory.history('a', rule, { limit: 1 }).head;
  const events = link.events.splice(0);
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 3 } }));
  await flow(link);
  link.events.push(...events);
  append();
  await flow(link);
  clock.advance(100);
  await flow(link);
  expect(outlet.states()).toMatchObject([{ offset: 0 }, { offset: 3, recovered: true }]);
  expect(outlet.story('a')).toEqual([4]);
});

// It was told that everything since that place follows.
test('a place that the log never had is denied to one who is subscribed already', async () => {
  const harness = createHub();
  await publish(harness, 'a', 2);
  const epoch = await epochOf(harness, 'a');
  const { outlet, send } = harness.connect();
  await send({ type: 'subscribe', channel: 'a' });
  await publish(harness, 'a', 1);
  await send({ type: 'subscribe', channel: 'a', since: { epoch, offset: 9 } });
  await publish(harness, 'a', 1);
  expect(outlet.states()).toMatchObject([{ offset: 2 }, { offset: 3, recovered: false }]);
  expect(outlet.story('a')).toEqual([3, 'gap:epoch_changed@3', 4]);
});

test('a hold that overflows is read again from history', async () => {
  const harness = createHub({
    limits: {
      recovery: { holdMax: 2, holdBytesMax: 1 << 20, pageSize: 2, pageBytesMax: 512 << 10, timeoutMs: 300_000 },
    },
  });
  await publish(harness, 'a', 6);
  const { outlet, session } = harness.connect();
  outlet.buffered = 1 << 20;
  const since = { epoch: await epochOf(harness, 'a'), offset: 1 };
  session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since }));
  await idle();
  expect(outlet.story('a')).toEqual([2, 3]);
  await publish(harness, 'a', 10);
  outlet.buffered = 0;
  harness.clock.advance(10);
  await idle();
  expect(outlet.story('a')).toEqual(Array.from({ length: 15 }, (_, index) => index + 2));
});

test('a subscriber that catches up too slowly is given a gap and put live', async () => {
  const harness = createHub({
    limits: {
      recovery: { holdMax: 10, holdBytesMax: 1 << 20, pageSize: 2, pageBytesMax: 512 << 10, timeoutMs: 1_000 },
    },
  });
  await publish(harness, 'a', 6);
  const { outlet, session } = harness.connect();
  outlet.buffered = 1 << 20;
  const since = { epoch: await epochOf(harness, 'a'), offset: 1 };
  session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since }));
  await idle();
  outlet.buffered = 0;
  harness.clock.advance(1_001);
  await idle();
  await publish(harness, 'a', 1);
  expect(outlet.story('a')).toEqual([2, 3, 'gap:overflow@6', 7]);
});

// 200 publications of 64 KiB were written in one go, more than a socket may buffer: the client could never catch up.
test('a page of large publications waits for its socket on the way', async () => {
  const harness = createHub();
  const data = JSON.stringify('x'.repeat(60_000));
  await publish(harness, 'a', 20, data);
  const { outlet, session } = harness.connect();
  outlet.onTold = (told) => {
    if (told.kind === 'message') outlet.buffered += told.publication.data.length;
  };
  session.receive(
    JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch: await epochOf(harness, 'a'), offset: 0 } }),
  );
  let most = 0;
  for (let round = 0; round < 40; round++) {
    await idle();
    most = Math.max(most, outlet.buffered);
    outlet.buffered = 0;
    harness.clock.advance(10);
  }
  expect(outlet.story('a')).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  expect(most).toBeLessThan(512 << 10);
});

test('a recovering subscriber whose socket takes nothing in is cut, and the channel forgets it', async () => {
  const harness = createHub();
  await publish(harness, 'a', 5);
  const { outlet, session } = harness.connect();
  outlet.buffered = 1 << 20;
  session.receive(
    JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch: await epochOf(harness, 'a'), offset: 0 } }),
  );
  await idle();
  for (let round = 0; round < 3; round++) {
    harness.clock.advance(10_001);
    await idle();
  }
  expect(outlet.ended?.code).toBe(1006);
  expect([harness.hub.channelCount, harness.hub.subscriptionCount]).toEqual([0, 0]);
});

// The recovery that the unsubscribe cancelled was taken for one that was too slow, which cut the whole connection.
test('unsubscribing while recovering ends that subscription alone', async () => {
  const harness = createHub();
  await publish(harness, 'a', 5);
  const { outlet, session, send } = harness.connect();
  outlet.buffered = 1 << 20;
  await send({ type: 'subscribe', channel: 'a', since: { epoch: await epochOf(harness, 'a'), offset: 0 } });
  await send({ type: 'unsubscribe', channel: 'a' });
  outlet.buffered = 0;
  harness.clock.advance(10);
  await idle();
  expect(outlet.ended).toBeUndefined();
  expect(session.closed).toBe(false);
  expect(harness.hub.channelCount).toBe(0);
  await send({ type: 'ping' });
  expect(outlet.frames('pong')).toHaveLength(1);
});

// What was held was written without a look at the connection, which the write had ended: it was counted as live.
test('a connection that ends while what was held is written is not counted as live', async () => {
  const harness = createHub();
  await publish(harness, 'a', 2);
  const keeper = harness.connect();
  await keeper.send({ type: 'subscribe', channel: 'a' });
  const { outlet, send } = harness.connect('sse');
  outlet.onTold = (told) => {
    if (told.kind === 'message') outlet.terminate();
  };
  await send({ type: 'subscribe', channel: 'a', since: { epoch: await epochOf(harness, 'a'), offset: 0 } });
  const { members } = await harness.hub.open('a');
  expect([members.size, members.live]).toEqual([1, 1]);
  expect(outlet.joined.size).toBe(0);
});

// Recovery replayed to a connection what it had published itself with `echo: false`.
test('a connection that ends while it is told that it is subscribed is not counted as live', async () => {
  const harness = createHub();
  const [stays, ends] = [harness.connect(), harness.connect()];
  await stays.send({ type: 'subscribe', channel: 'a' });
  ends.outlet.onTold = ({ kind }) => {
    if (kind === 'subscribed') ends.outlet.cut();
  };
  await ends.send({ type: 'subscribe', channel: 'a' });
  const { members } = await harness.hub.open('a');
  expect([ends.session.closed, members.size, members.live]).toEqual([true, 1, 1]);
});

test('a recovering sender does not hear what it asked not to hear', async () => {
  const harness = createHub();
  await publish(harness, 'a', 2);
  const { outlet, session, send } = harness.connect();
  outlet.buffered = 1 << 20;
  await send({ type: 'subscribe', channel: 'a', since: { epoch: await epochOf(harness, 'a'), offset: 0 } });
  session.receive('{"type":"publish","channel":"a","data":1,"echo":false}');
  await publish(harness, 'a', 1);
  outlet.buffered = 0;
  harness.clock.advance(10);
  await idle();
  expect(outlet.story('a')).toEqual([1, 2, 4]);
});

test('history that cannot be read takes the promise back: an error, and the connection is cut', async () => {
  const { connect, link, log, hub, rules, append } = onLink({
    limits: {
      recovery: { holdMax: 10, holdBytesMax: 1 << 20, pageSize: 2, pageBytesMax: 512 << 10, timeoutMs: 300_000 },
    },
  });
  const rule = rules.for('a');
  append(6);
  const { epoch } = log.memory.history('a', rule, { limit: 1 }).head;
  const { session, outlet } = connect();
  session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 0 } }));
  for (let step = 0; step < 4; step++) {
    await idle();
    link.advance(0);
  }
  await idle();
  expect(outlet.story('a')).toEqual([1, 2]);
  link.fail(0);
  await idle();
  expect(outlet.frames('error')).toMatchObject([{ channel: 'a', code: 'unavailable' }]);
  expect(outlet.ended?.code).toBe(1006);
  expect([hub.channelCount, hub.subscriptionCount, link.subscribed.size]).toEqual([0, 0, 0]);
});

// A client that was subscribed already named an earlier position, which could not be read. It was told an error, and
// believed itself subscribed as before. The node had ended the subscription, so the client heard nothing any more.
test('a subscribe that fails leaves an earlier one as it was', async () => {
  const { connect, link, log, rules, append } = onLink({ limits: { keptBytesMax: 0 } });
  append(2);
  const { epoch } = log.memory.history('a', rules.for('a'), { limit: 1 }).head;
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 0 } }));
  await idle();
  append();
  link.deliver();
  link.fail(0);
  await flow(link);
  append();
  await flow(link);
  expect(outlet.frames('error')).toMatchObject([{ channel: 'a', code: 'unavailable' }]);
  expect(outlet.story('a')).toEqual([3, 4]);
});

// The rows were taken, and what came after them could not be read. The subscription went on from where the rows were true,
// though the client had not got them: what was published between was lost to it.
test('rows that fail leave a live subscription where it was', async () => {
  const rows = Promise.withResolvers<Snapshot>();
  const snapshots = { ...noSnapshots, has: () => true, take: () => rows.promise };
  const { connect, link, append, hub } = onLink({ limits: { keptBytesMax: 0 }, snapshots });
  append(2);
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  session.receive('{"type":"subscribe","channel":"a","snapshot":true}');
  await idle();
  append(2);
  await flow(link);
  const { epoch } = outlet.states()[0]!;
  rows.resolve({ frames: ['{"rows":[]}'], position: { epoch: epoch ?? '', offset: 3 }, holds: () => false });
  await idle();
  link.fail(0);
  await flow(link);
  append();
  await flow(link);
  expect(outlet.frames('error')).toMatchObject([{ channel: 'a', code: 'unavailable' }]);
  expect(outlet.story('a')).toEqual([3, 4, 5]);
  const { members } = await hub.open('a');
  expect([members.size, members.live, members.recoveries]).toEqual([1, 1, undefined]);
});

// Nobody could say whether it is still allowed, while its rows were taken. Whoever has suspended it resumes it.
test('rows that fail while the subscription is suspended leave it suspended, where it was', async () => {
  const rows = Promise.withResolvers<Snapshot>();
  const snapshots = { ...noSnapshots, has: () => true, take: () => rows.promise };
  const { connect, link, append, hub } = onLink({ limits: { keptBytesMax: 0 }, snapshots });
  append(2);
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  session.receive('{"type":"subscribe","channel":"a","snapshot":true}');
  await idle();
  const subscription = session.subscription('a')!;
  hub.suspend(subscription);
  append(2);
  await flow(link);
  rows.reject(new RealtimeError('unavailable'));
  append();
  await flow(link);
  expect(outlet.frames('error')).toMatchObject([{ channel: 'a', code: 'unavailable' }]);
  expect([subscription.phase, outlet.story('a')]).toEqual(['suspended', []]);
  const running = hub.resume(subscription)?.recovery.run(outlet);
  await flow(link);
  await running;
  expect(outlet.story('a')).toEqual([3, 4, 5]);
});

test('thousands of connections leave the maps empty', async () => {
  const harness = createHub();
  for (let round = 0; round < 20; round++) {
    const all = Array.from({ length: 200 }, (_, index) => harness.connect(index % 2 === 0 ? 'websocket' : 'sse'));
    for (const [index, { session }] of all.entries()) {
      session.receive(`{"type":"subscribe","channel":"c${index % 17}"}`);
      session.receive(`{"type":"subscribe","channel":"ephemeral:${index}"}`);
    }
    // They begin in slices, a few in a turn of the event loop.
    for (let turn = 0; turn < 100 && harness.hub.subscriptionCount < 400; turn++) await idle();
    expect(harness.hub.subscriptionCount).toBe(400);
    for (const { outlet } of all) outlet.cut();
    // And so they leave; each counts as gone at once.
    expect(harness.sessions.size).toBe(0);
    for (let turn = 0; turn < 100 && harness.hub.subscriptionCount > 0; turn++) await idle();
  }
  const { hub, sessions, fanouts } = harness;
  expect([sessions.size, hub.channelCount, hub.subscriptionCount]).toEqual([0, 0, 0]);
  expect(fanouts.map(({ channels }) => channels)).toEqual([0, 0]);
});

// Batches that the relay handed over again, as Redis had not answered in time, counted again: 609,348 of 600,000 rows.
test('what the log did not accept does not count as published', async () => {
  const counted: string[] = [];
  const observer = {
    ...silentObserver,
    published: (source: string, channel: string) => counted.push(`${source} ${channel}`),
  };
  const { hub, link } = onLink({ observer });
  const publish = () => Promise.resolve(hub.publish({ channel: 'a', data: '1', source: 'database' }));
  const failed = publish().catch((error: unknown) => error);
  link.fail(0);
  expect(await failed).toBeInstanceOf(RealtimeError);
  expect(counted).toEqual([]);
  const accepted = publish();
  await flow(link);
  expect(await accepted).toMatchObject({ offset: 1 });
  expect(counted).toEqual(['database a']);
});

test('channels of this node are counted by their subscribers', async () => {
  const { hub, connect } = createHub();
  for (const channels of [['a', 'b'], ['a']]) {
    const { send } = connect();
    for (const channel of channels) await send({ type: 'subscribe', channel });
  }
  expect(hub.channelCounts()).toEqual([
    { channel: 'a', subscribers: 2 },
    { channel: 'b', subscribers: 1 },
  ]);
});

test('ids are made from the clock’s chance alone', () => {
  const fixed: Clock = { now: () => 0, monotonic: () => 0, sleep: () => Promise.resolve(), random: () => 0.999 };
  const adapter = memoryAdapter(fixed);
  expect(adapter.subscribe('a', createHub().rules.for('a'))).toEqual({ epoch: 'zzzzzz', offset: 0 });
});

// What a trigger could not capture takes an offset all the same, so that nobody misses it silently.
test('a gap of the log is a gap for who is live, who recovers over it, and who reads history', async () => {
  const harness = createHub();
  const [live, late] = [harness.connect(), harness.connect()];
  await live.send({ type: 'subscribe', channel: 'a' });
  await publish(harness, 'a', 1);
  const since = { epoch: await epochOf(harness, 'a'), offset: 0 };
  await publish(harness, 'a', 1, '');
  await publish(harness, 'a', 1);
  await late.send({ type: 'subscribe', channel: 'a', since });
  await idle();
  for (const { outlet } of [live, late]) expect(outlet.story('a')).toEqual([1, 'gap:trimmed@2', 3]);
  expect(late.outlet.states()[0]).toMatchObject({ recovered: false });
  const page = await harness.hub.history('a', { since, limit: 10 }, 'test');
  expect([page.publications.map(({ offset }) => offset), page.complete]).toEqual([[1, 3], false]);
});

test('a gap of an ephemeral channel is a gap too, without a number', async () => {
  const harness = createHub();
  const { outlet, send } = harness.connect();
  await send({ type: 'subscribe', channel: 'ephemeral:a' });
  await publish(harness, 'ephemeral:a', 1);
  await publish(harness, 'ephemeral:a', 1, '');
  expect(outlet.story('ephemeral:a')).toEqual([0, 'gap:trimmed@0']);
});
