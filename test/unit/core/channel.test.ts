// One channel of a node and the log behind it: heads that do not follow, what is held while a hole is filled, and how the
// node reaches the log when rows ask it to.

import { describe, expect, test } from 'bun:test';
import { Publication } from '../../../src/core/publication.ts';
import type { HistoryPage } from '../../../src/core/sync-adapter.ts';
import { silentObserver } from '../../support/doubles.ts';
import { idle, type HubHarnessOptions } from '../../support/hub.ts';
import { flow, onLink } from '../../support/link-hub.ts';

/** A node with one subscriber, that counts its reads of the log. */
async function listening(options: HubHarnessOptions = {}) {
  const reads: Record<string, number> = { kept: 0, log: 0 };
  const observer = { ...silentObserver, historyRead: (from: string) => void (reads[from] = (reads[from] ?? 0) + 1) };
  const harness = onLink({ observer, ...options });
  const { session, outlet } = harness.connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await flow(harness.link);
  const channel = await harness.hub.open('a');
  return { ...harness, session, outlet, channel, reads };
}

describe('a head', () => {
  // The same number of publications stood in the log that followed the one that was lost.
  test('of another log is looked at, at whatever offset', async () => {
    const { link, log, append, outlet } = await listening();
    append(2);
    await flow(link);
    log.reset();
    append(2);
    link.events.length = 0;
    link.tellHeads();
    await flow(link);
    expect(outlet.story('a')).toEqual([1, 2, 'gap:epoch_changed@2']);
  });

  test('below this node is looked at, and where it stands is not; history alone decides', async () => {
    const { hub, link, append, channel, reads, outlet } = await listening();
    append(3);
    await flow(link);
    const { epoch } = channel;
    hub.head('a', { epoch, offset: 3 });
    expect(link.requests).toHaveLength(0);
    hub.head('a', { epoch, offset: 2 });
    await flow(link);
    expect([reads['log'], channel.offset, outlet.story('a')]).toEqual([1, 3, [1, 2, 3]]);
  });

  test('of a channel that keeps nothing is no reason to read', async () => {
    const { hub, link, session } = await listening();
    session.receive('{"type":"subscribe","channel":"ephemeral:a"}');
    await flow(link);
    hub.head('ephemeral:a', { epoch: 'e', offset: 5 });
    expect(link.requests).toHaveLength(0);
  });
});

describe('while a hole is filled', () => {
  test.each([
    { held: 2, reads: 1 },
    { held: 3, reads: 2 },
  ])('$held are held where two may be: $reads reads of the log', async ({ held, reads: expected }) => {
    const { link, append, outlet, reads } = await listening({ limits: { holdMax: 2 } });
    append(2);
    link.drop();
    link.deliver();
    await idle();
    link.advance(0);
    append(held - 1);
    while (link.deliver());
    await flow(link);
    expect(outlet.story('a')).toEqual(Array.from({ length: held + 1 }, (_, index) => index + 1));
    expect(reads['log']).toBe(expected);
  });

  // Asked again at once, a log that brings nothing and does not end would have been asked for ever.
  test('a log that brings nothing is asked again after a while', async () => {
    const { hub, link, clock, channel } = await listening();
    const { epoch } = channel;
    const head = { epoch, offset: 5 };
    let asked = 0;
    link.history = (): Promise<HistoryPage> => {
      asked++;
      return Promise.resolve({ head, publications: [], complete: false });
    };
    hub.head('a', head);
    for (let turns = 0; turns < 20; turns++) await idle();
    expect([asked, clock.sleeping]).toEqual([1, 1]);
    clock.advance(100);
    for (let turns = 0; turns < 20; turns++) await idle();
    expect([asked, clock.sleeping]).toEqual([2, 1]);
  });
});

test('what is published while a channel is being opened, and is more than may be held, is read', async () => {
  const { connect, link, append } = onLink({ limits: { holdMax: 2 } });
  const { session, outlet } = connect();
  session.receive('{"type":"subscribe","channel":"a"}');
  await idle();
  link.advance(0);
  append(5);
  while (link.deliver());
  await flow(link);
  expect([outlet.states()[0]?.offset, outlet.story('a')]).toEqual([2, [3, 4, 5]]);
});

// It was answered `recovered: true` by a page from before, and told the gap right after.
test('a log that is lost while a first page is on its way leaves nobody recovered', async () => {
  const { connect, link, log, append, channel } = await listening({ limits: { keptBytesMax: 0 } });
  append(3);
  await flow(link);
  const late = connect();
  const since = { epoch: channel.epoch, offset: 1 };
  late.session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since }));
  await idle();
  link.advance(0);
  log.reset();
  link.events.length = 0;
  append();
  link.deliver();
  await flow(link);
  expect(late.outlet.states()).toMatchObject([{ recovered: false, epoch: channel.epoch }]);
  expect(late.outlet.story('a')).toEqual(['gap:epoch_changed@0', 1]);
});

// Nothing of the new log was kept, so each who came back in it read the log.
test('after a log was lost, what is published in the next is kept', async () => {
  const { connect, link, log, append, channel, reads } = await listening();
  append(3);
  await flow(link);
  log.reset();
  link.events.length = 0;
  append(3);
  await flow(link);
  const { session, outlet } = connect();
  session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch: channel.epoch, offset: 1 } }));
  await flow(link);
  expect([outlet.story('a'), reads]).toEqual([[2, 3], { kept: 1, log: 0 }]);
});

describe('reaching the log', () => {
  test('resolves where the log stood, though nothing told this node of it', async () => {
    const { link, clock, append, channel, outlet } = await listening();
    append(3);
    link.events.length = 0;
    const reaching = channel.reachLog();
    await flow(link);
    clock.advance(2);
    await flow(link);
    expect(await reaching).toEqual({ epoch: channel.epoch, offset: 3 });
    expect(outlet.story('a')).toEqual([1, 2, 3]);
  });

  test('of another log does not end in the one that was lost', async () => {
    const { link, log, clock, append, channel } = await listening();
    append(3);
    await flow(link);
    log.reset();
    append();
    link.events.length = 0;
    const { epoch } = log.memory.history('a', channel.rule, { limit: 1 }).head;
    const reaching = channel.reachLog();
    for (let turns = 0; turns < 3; turns++) {
      await flow(link);
      clock.advance(2);
    }
    expect(await reaching).toEqual({ epoch, offset: 1 });
  });

  test('is unavailable after five seconds, and at once when nobody is subscribed any more', async () => {
    for (const leaves of [false, true]) {
      const { link, clock, append, channel, session } = await listening();
      append(3);
      link.events.length = 0;
      let ended: unknown;
      channel.reachLog().catch((error: unknown) => (ended = error));
      await idle();
      link.advance(0);
      link.advance(0);
      await idle();
      if (leaves) session.receive('{"type":"unsubscribe","channel":"a"}');
      // The reads that follow are never answered.
      await idle();
      clock.advance(leaves ? 2 : 5_000);
      await idle();
      if (!leaves) {
        expect(ended).toBeUndefined();
        clock.advance(2);
        await idle();
      }
      expect(ended).toMatchObject({ code: 'unavailable' });
    }
  });
});

// What the log had forgotten was still waited for, and publications of the next log took its place: they stood at the same
// offsets.
test('a log that is lost while what it forgot is waited for is a gap', async () => {
  const { link, log, clock, rules, session, outlet } = await listening();
  session.receive('{"type":"subscribe","channel":"small:a"}');
  await flow(link);
  const rule = rules.for('small:a');
  const append = (count: number): void => {
    for (let sent = 0; sent < count; sent++) {
      log.memory.publish({ channel: 'small:a', rule, data: '0', at: clock.now() });
    }
  };
  append(1);
  await flow(link);
  append(9);
  link.reconnect();
  await flow(link);
  expect([outlet.story('small:a'), clock.sleeping]).toEqual([[1], 1]);
  log.reset();
  link.events.length = 0;
  append(3);
  for (let turns = 0; turns < 300; turns++) {
    await flow(link);
    clock.advance(5);
  }
  expect(outlet.story('small:a')).toEqual([1, 'gap:trimmed@7', 8, 9, 10, 'gap:epoch_changed@3']);
});

test('a hole that is filled in part is not waited for as long as before', async () => {
  const { hub, link, clock, channel } = await listening();
  const { epoch } = channel;
  let pausesMs = 0;
  let answer: () => Promise<HistoryPage> = () => Promise.reject(new Error('away'));
  link.history = () => answer();
  const untilAsked = async (next: () => Promise<HistoryPage>): Promise<void> => {
    let asked = false;
    answer = () => {
      asked = true;
      return next();
    };
    for (pausesMs = 0; !asked; pausesMs += 10) {
      clock.advance(10);
      await idle();
    }
  };
  hub.head('a', { epoch, offset: 2 });
  await idle();
  for (let failures = 0; failures < 8; failures++) await untilAsked(() => Promise.reject(new Error('away')));
  const page = (offset: number): HistoryPage => ({
    head: { epoch, offset: 9 },
    publications: [new Publication({ channel: 'a', epoch, offset, data: '0', at: 0 })],
    complete: false,
  });
  let offset = 0;
  await untilAsked(() => (++offset === 1 ? Promise.resolve(page(1)) : Promise.reject(new Error('away'))));
  await idle();
  expect(channel.offset).toBe(1);
  await untilAsked(() => Promise.resolve(page(2)));
  // The first pause of a new row, and not the ninth of the old one.
  expect(pausesMs).toBeLessThanOrEqual(100);
});

describe('what is fanned out', () => {
  test('counts for those whom it reaches, and not for a sender who asked not to hear it', async () => {
    const delivered: number[] = [];
    const observer = { ...silentObserver, delivered: (_channel: string, count: number) => void delivered.push(count) };
    const { link, session, connect } = await listening({ observer });
    const publish = async (): Promise<void> => {
      session.receive('{"type":"publish","channel":"a","data":1,"echo":false}');
      await flow(link);
    };
    await publish();
    expect(delivered).toEqual([]);
    connect('sse').session.receive('{"type":"subscribe","channel":"a"}');
    await flow(link);
    await publish();
    expect(delivered).toEqual([1]);
  });

  test('over one transport in vain is counted and logged, and goes out over the other', async () => {
    let failures = 0;
    const observer = { ...silentObserver, broadcastFailed: () => void failures++ };
    const { link, append, connect, fanouts, logged, outlet } = await listening({ observer });
    const other = connect('sse');
    other.session.receive('{"type":"subscribe","channel":"a"}');
    await flow(link);
    fanouts[0]!.publication = () => {
      throw new Error('broken');
    };
    append();
    await flow(link);
    expect([failures, logged]).toEqual([1, ['a publication could not be fanned out']]);
    expect([outlet.story('a'), other.outlet.story('a')]).toEqual([[], [1]]);
  });
});
