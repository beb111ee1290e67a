// Recoveries of connections of a hub: one after another of each connection, what happens to one that cannot be read, and
// what a node learns from a subscriber who knows more of the log than it does.

import { describe, expect, test } from 'bun:test';
import { createHub, idle } from '../../support/hub.ts';
import { flow, onLink, type LinkHarness } from '../../support/link-hub.ts';

const pageSize = 2;
const recovery = { holdMax: 10, holdBytesMax: 1 << 20, pageSize, pageBytesMax: 512 << 10, timeoutMs: 300_000 };

// What they read meanwhile would only have waited in memory: the socket takes no more at once.
test('a connection is sent what it missed of one channel after another', async () => {
  const { hub, clock, connect } = createHub();
  for (const channel of ['a', 'b']) {
    for (let sent = 0; sent < 250; sent++) await hub.publish({ channel, data: '0', source: 'server' });
  }
  const { epoch } = (await hub.history('a', { limit: 1 }, 'test')).head;
  const other = (await hub.history('b', { limit: 1 }, 'test')).head.epoch;
  const { outlet, send } = connect();
  outlet.buffered = 1 << 20;
  await send({
    type: 'subscribe',
    channels: [
      { channel: 'a', since: { epoch, offset: 0 } },
      { channel: 'b', since: { epoch: other, offset: 0 } },
    ],
  });
  expect([outlet.story('a').length, outlet.story('b').length]).toEqual([100, 0]);
  outlet.buffered = 0;
  clock.advance(100);
  for (let turns = 0; turns < 100 && outlet.story('b').length < 250; turns++) await idle();
  const told = outlet.told.flatMap((each) => (each.kind === 'message' ? [each.publication.channel] : []));
  expect(told.join('')).toBe('a'.repeat(250) + 'b'.repeat(250));
});

describe('a page that cannot be read', () => {
  /** A subscriber of whose history the first page was sent, and the second is being read. */
  async function recovering(): Promise<LinkHarness & ReturnType<LinkHarness['connect']>> {
    const harness = onLink({ limits: { recovery } });
    const { link, log, rules, append } = harness;
    append(6);
    const { epoch } = log.memory.history('a', rules.for('a'), { limit: 1 }).head;
    const connected = harness.connect();
    connected.session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 0 } }));
    for (let step = 0; step < 4; step++) {
      await idle();
      link.advance(0);
    }
    await idle();
    expect([connected.outlet.story('a'), link.requests.length]).toEqual([[1, 2], 1]);
    return { ...harness, ...connected };
  }

  // The client had asked for no more of it, and was told an error and cut off.
  test('is nothing to one who unsubscribed meanwhile', async () => {
    const { session, outlet, link } = await recovering();
    session.receive('{"type":"unsubscribe","channel":"a"}');
    await idle();
    link.fail(0);
    await flow(link);
    expect([outlet.frames('error'), outlet.ended]).toEqual([[], undefined]);
  });

  test('is nothing to one who subscribed again meanwhile, and gets everything', async () => {
    const { session, outlet, link, log, rules } = await recovering();
    const { epoch } = log.memory.history('a', rules.for('a'), { limit: 1 }).head;
    session.receive('{"type":"unsubscribe","channel":"a"}');
    session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 2 } }));
    await idle();
    link.fail(0);
    await flow(link);
    expect([outlet.frames('error'), outlet.ended]).toEqual([[], undefined]);
    expect(outlet.story('a')).toEqual([1, 2, 3, 4, 5, 6]);
  });
});

describe('a node that lags', () => {
  // It had lost what lay between and was told nothing more: the subscriber waited for it until something was published.
  test('reads up to where a subscriber stands who has seen more', async () => {
    const { connect, link, log, rules, clock, hub, append } = onLink();
    connect().session.receive('{"type":"subscribe","channel":"a"}');
    await flow(link);
    append(3);
    link.events.length = 0;
    const { epoch } = log.memory.history('a', rules.for('a'), { limit: 1 }).head;
    const { session, outlet } = connect();
    session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 3 } }));
    for (let turns = 0; turns < 5; turns++) {
      await flow(link);
      clock.advance(10);
    }
    expect((await hub.open('a')).position).toEqual({ epoch, offset: 3 });
    expect((await hub.open('a')).members.live).toBe(2);
    append();
    await flow(link);
    expect(outlet.story('a')).toEqual([4]);
  });

  // Nothing told it that the log was lost, and a page of the log says so.
  test('learns from a page that the log is another one, and tells all who are subscribed', async () => {
    const { connect, link, log, clock, hub, append } = onLink({ limits: { keptBytesMax: 0 } });
    const live = connect();
    live.session.receive('{"type":"subscribe","channel":"a"}');
    await flow(link);
    append(3);
    await flow(link);
    const { epoch } = (await hub.open('a')).position;
    log.reset();
    append();
    link.events.length = 0;
    const late = connect();
    late.session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 1 } }));
    for (let turns = 0; turns < 5; turns++) {
      await flow(link);
      clock.advance(10);
    }
    expect(live.outlet.story('a')).toEqual([1, 2, 3, 'gap:epoch_changed@1']);
    expect(late.outlet.story('a').at(-1)).toBe('gap:epoch_changed@1');
    append();
    await flow(link);
    for (const { outlet } of [live, late]) expect(outlet.story('a').at(-1)).toBe(2);
  });
});

describe('a log that was lost', () => {
  async function lost(): Promise<LinkHarness & ReturnType<LinkHarness['connect']>> {
    const harness = onLink();
    const connected = harness.connect();
    connected.session.receive('{"type":"subscribe","channel":"a"}');
    await flow(harness.link);
    harness.append(2);
    return { ...harness, ...connected };
  }

  test('is a gap, and the first publication of the next one follows it', async () => {
    const { outlet, link, log, append } = await lost();
    await flow(link);
    log.reset();
    link.events.length = 0;
    append(2);
    await flow(link);
    expect(outlet.story('a')).toEqual([1, 2, 'gap:epoch_changed@0', 1, 2]);
  });

  // The node went back to the log that it had left, and told everybody one gap after the other.
  test('is one gap, whatever arrives late of it', async () => {
    const { outlet, link, log, append } = await lost();
    const late = link.events.splice(0);
    log.reset();
    append();
    link.events.reverse();
    link.events.push(...late);
    await flow(link);
    append();
    await flow(link);
    expect(outlet.story('a')).toEqual(['gap:epoch_changed@0', 1, 2]);
  });
});

// The answer to the opening was older than the head, and what lay between had been lost on its way.
test('a head that is told while a channel is being opened is read up to', async () => {
  const { connect, link, hub, append } = onLink();
  append();
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await idle();
  link.advance(0);
  append(2);
  link.events.length = 0;
  link.tellHeads();
  link.deliver();
  await flow(link);
  expect([outlet.states()[0]?.offset, (await hub.open('a')).offset]).toEqual([1, 3]);
  expect(outlet.story('a')).toEqual([2, 3]);
});

// Where it began stood in the log that is no more, further on: the position was taken for an older one.
test('one who is live through a lost log, and names a position of the next, lacks nothing', async () => {
  const { connect, link, log, rules, append } = onLink();
  append(5);
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(link);
  log.reset();
  link.events.length = 0;
  append(2);
  await flow(link);
  const { epoch } = log.memory.history('a', rules.for('a'), { limit: 1 }).head;
  session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: 1 } }));
  await flow(link);
  expect(outlet.states().at(-1)).toMatchObject({ recovered: true, epoch, offset: 2 });
  expect(outlet.story('a')).toEqual(['gap:epoch_changed@0', 1, 2]);
});
