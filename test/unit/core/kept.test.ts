// What a node keeps of the logs of its channels: within its budget, of one epoch, and no longer than it is of use; and
// that those who come back are served from it, as the log would serve them.

import { expect, test } from 'bun:test';
import { Kept } from '../../../src/core/kept.ts';
import { Publication } from '../../../src/core/publication.ts';
import type { HistoryPage } from '../../../src/core/sync-adapter.ts';
import { Rules } from '../../../src/rules/rules.ts';
import { silentObserver } from '../../support/doubles.ts';
import { createHub, HandClock, idle, type HubHarness } from '../../support/hub.ts';
import { RoughLog, type RoughLink } from '../../support/rough-link.ts';

const rule = new Rules({ rules: [{ channels: '*', history: { size: 100, seconds: 60 } }] }).for('a');
const publicationBytes = 300 + 2 * 100;
const limits = { bytesMax: 40 * publicationBytes, lingerMs: 15_000 };

function publication(channel: string, offset: number, epoch = 'e', at = 0): Publication {
  return new Publication({ channel, offset, epoch, data: 'x'.repeat(100), at });
}

function keep(kept: Kept, channel: string, from: number, to: number): void {
  for (let offset = from; offset <= to; offset++) kept.add(channel, publication(channel, offset), rule.historySize);
}

function read(kept: Kept, channel: string, since: number, head: number, more: object = {}): HistoryPage | undefined {
  const query = { limit: 10, bytesMax: 1 << 20, rule, now: 0, ...more };
  return kept.of(channel)?.page({ ...query, since: { epoch: 'e', offset: since }, head: { epoch: 'e', offset: head } });
}

function offsets(page: HistoryPage | undefined): number[] | undefined {
  return page?.publications.map(({ offset }) => offset);
}

test('a page is what the log would answer, or nothing where this node has not seen enough', () => {
  const kept = new Kept(limits, new HandClock());
  keep(kept, 'a', 5, 12);
  keep(kept, 'a', 15, 20);
  expect(offsets(read(kept, 'a', 16, 20))).toEqual([17, 18, 19, 20]);
  expect(read(kept, 'a', 16, 20)?.complete).toBe(true);
  // Up to the hole, and no further.
  expect(offsets(read(kept, 'a', 8, 20))).toEqual([9, 10, 11, 12]);
  expect(read(kept, 'a', 8, 20)?.complete).toBe(false);
  expect(read(kept, 'a', 12, 20)).toBeUndefined();
  expect(read(kept, 'a', 3, 20)).toBeUndefined();
  expect(read(kept, 'a', 21, 20)).toBeUndefined();
  expect(offsets(read(kept, 'a', 20, 20))).toEqual([]);
  keep(kept, 'a', 13, 14);
  expect(offsets(read(kept, 'a', 12, 20, { limit: 3 }))).toEqual([13, 14, 15]);
  expect(offsets(read(kept, 'a', 12, 20, { bytesMax: 250 }))).toEqual([13, 14]);
  expect(offsets(read(kept, 'a', 12, 20, { bytesMax: 1 }))).toEqual([13]);
});

test('what the rule gives up is trimmed, and what may be past its age is left to the log', () => {
  const kept = new Kept({ ...limits, bytesMax: 1 << 20 }, new HandClock());
  keep(kept, 'a', 1, 150);
  expect(read(kept, 'a', 40, 150)).toMatchObject({ gap: 'trimmed', complete: false });
  expect(offsets(read(kept, 'a', 40, 150, { limit: 2 }))).toEqual([51, 52]);
  expect(read(kept, 'a', 50, 150, { limit: 2 })?.gap).toBeUndefined();
  expect(read(kept, 'a', 120, 150, { now: 60_000 })).toBeUndefined();
  expect(read(kept, 'a', 120, 150, { now: 59_999 })?.gap).toBeUndefined();
});

test('that the log itself has nothing before is remembered', () => {
  const kept = new Kept(limits, new HandClock());
  keep(kept, 'a', 5, 8);
  expect(read(kept, 'a', 2, 8)).toBeUndefined();
  kept.trimmed('a', 'e', 4);
  expect(read(kept, 'a', 2, 8)?.gap).toBe('trimmed');
  expect(offsets(read(kept, 'a', 2, 8))).toEqual([5, 6, 7, 8]);
  expect(read(kept, 'a', 4, 8)?.gap).toBeUndefined();
});

test('the budget holds: the channel that was used longest ago gives up its oldest first', () => {
  const kept = new Kept(limits, new HandClock());
  for (const channel of ['a', 'b', 'c']) keep(kept, channel, 1, 12);
  read(kept, 'a', 1, 12);
  keep(kept, 'c', 13, 20);
  expect(kept.bytes).toBeLessThanOrEqual(limits.bytesMax);
  expect(offsets(read(kept, 'a', 2, 12))).toHaveLength(10);
  expect(read(kept, 'b', 2, 12)).toBeUndefined();
  keep(kept, 'd', 1, 10_000);
  expect(kept.bytes).toBeLessThanOrEqual(limits.bytesMax);
  expect(kept.bytes).toBeGreaterThan(limits.bytesMax / 2);
  expect(kept.channelCount).toBe(1);
  expect(offsets(read(kept, 'd', 9_990, 10_000))).toHaveLength(10);
});

test('one large publication pushes out nobody', () => {
  const kept = new Kept(limits, new HandClock());
  keep(kept, 'a', 1, 10);
  const data = 'x'.repeat(limits.bytesMax / 16);
  kept.add('b', new Publication({ channel: 'b', offset: 1, epoch: 'e', data, at: 0 }), rule.historySize);
  expect(offsets(read(kept, 'a', 0, 10))).toHaveLength(10);
  expect(kept.of('b')).toBeUndefined();
  // Just as large as one may be.
  const [largest, larger] = [475, 476].map((length) => 'x'.repeat(length));
  kept.add('b', new Publication({ channel: 'b', offset: 1, epoch: 'e', data: larger!, at: 0 }), rule.historySize);
  expect(kept.of('b')).toBeUndefined();
  kept.add('b', new Publication({ channel: 'b', offset: 1, epoch: 'e', data: largest!, at: 0 }), rule.historySize);
  expect(offsets(read(kept, 'b', 0, 1))).toEqual([1]);
});

test('a hole of millions costs no memory', () => {
  const kept = new Kept({ ...limits, bytesMax: 64 << 20 }, new HandClock());
  const sizeMax = 1e9;
  keep(kept, 'b', 1, 5);
  for (const offset of [1, 5_000_000, 5_000_000 - 60_000, 2]) {
    kept.add('a', publication('a', offset), sizeMax);
    expect(kept.bytes).toBeLessThan(1 << 20);
  }
  expect(offsets(read(kept, 'b', 0, 5))).toEqual([1, 2, 3, 4, 5]);
});

test('nothing is kept of another epoch, of a log that went back, or long after the last subscriber left', () => {
  const clock = new HandClock();
  const kept = new Kept(limits, clock);
  for (const channel of ['epoch', 'back', 'left', 'stays']) keep(kept, channel, 1, 5);
  kept.add('epoch', publication('epoch', 6, 'other'), rule.historySize);
  expect(offsets(read(kept, 'epoch', 0, 6))).toEqual([1, 2, 3, 4, 5]);
  kept.begin('epoch', { epoch: 'other', offset: 6 });
  expect(kept.of('epoch')).toBeUndefined();
  kept.opened('back', { epoch: 'e', offset: 4 });
  expect(kept.of('back')).toBeUndefined();
  for (const channel of ['left', 'stays']) kept.closed(channel);
  kept.opened('stays', { epoch: 'e', offset: 7 });
  clock.advance(14_999);
  kept.sweep();
  expect(offsets(read(kept, 'left', 0, 5))).toEqual([1, 2, 3, 4, 5]);
  clock.advance(1);
  kept.sweep();
  expect(kept.of('left')).toBeUndefined();
  // That it was left once is forgotten as well.
  keep(kept, 'left', 1, 5);
  clock.advance(20_000);
  kept.sweep();
  expect(offsets(read(kept, 'left', 0, 5))).toEqual([1, 2, 3, 4, 5]);
  kept.begin('left', { epoch: 'none', offset: 0 });
  expect(offsets(read(kept, 'stays', 0, 7))).toEqual([1, 2, 3, 4, 5]);
  kept.begin('stays', { epoch: 'none', offset: 0 });
  expect([kept.bytes, kept.channelCount]).toEqual([0, 0]);
});

interface Crowded extends HubHarness {
  readonly link: RoughLink;
  readonly reads: Record<string, number>;
  append(count: number): void;
  flow(): Promise<void>;
}

/** A node that counts its reads, on a log to which others append. */
function crowded(): Crowded {
  const clock = new HandClock();
  const log = new RoughLog(clock);
  const link = log.link();
  const reads: Record<string, number> = { kept: 0, log: 0 };
  const historyRead = (source: string) => void (reads[source] = (reads[source] ?? 0) + 1);
  const harness = createHub({ clock, adapter: link, observer: { ...silentObserver, historyRead } });
  const ruleOfA = harness.rules.for('a');
  const append = (count: number) => {
    for (let sent = 0; sent < count; sent++) {
      log.memory.publish({ channel: 'a', rule: ruleOfA, data: '0', at: clock.now() });
    }
  };
  const flow = async () => {
    do await idle();
    while (link.advance(0) || link.deliver());
  };
  return { ...harness, link, reads, append, flow };
}

async function comeBack({ connect, flow }: Crowded, count: number, epoch: string, since: number) {
  const all = Array.from({ length: count }, () => connect());
  for (const { session } of all) {
    session.receive(JSON.stringify({ type: 'subscribe', channel: 'a', since: { epoch, offset: since } }));
  }
  await flow();
  return all;
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

// 8,000 clients that resumed one channel made 8,000 reads of the log: 1,270 of them were served.
test('a crowd that comes back to a node that has seen nothing costs one read of each page', async () => {
  const node = crowded();
  node.append(300);
  const rule = node.rules.for('a');
  const { epoch } = (await Promise.all([node.link.subscribe('a', rule), node.flow()]))[0] ?? { epoch: '' };
  const crowd = await comeBack(node, 200, epoch, 0);
  // They are sent to in slices, one in a turn of the event loop.
  const lacking = () => crowd.some(({ outlet }) => outlet.story('a').length < 300);
  for (let turn = 0; turn < 1_000 && lacking(); turn++) await node.flow();
  for (const { outlet } of crowd) expect(outlet.story('a')).toEqual(range(1, 300));
  expect(node.reads['log']).toBe(2);
  const [late] = await comeBack(node, 1, epoch, 120);
  expect(late?.outlet.story('a')).toEqual(range(121, 300));
  expect(node.reads['log']).toBe(2);
});

test('what was published while somebody listened needs no read, also just after the last one left', async () => {
  const node = crowded();
  const [first] = await comeBack(node, 1, 'none', 0);
  node.append(5);
  await node.flow();
  const epoch = String(first?.outlet.states()[0]?.epoch);
  const [second] = await comeBack(node, 1, epoch, 2);
  expect(second?.outlet.story('a')).toEqual([3, 4, 5]);
  for (const each of [first, second]) each?.outlet.cut();
  expect(node.hub.channelCount).toBe(0);
  const [third] = await comeBack(node, 1, epoch, 1);
  expect(third?.outlet.story('a')).toEqual([2, 3, 4, 5]);
  expect(node.reads['log']).toBe(0);
  // Somebody is subscribed again, so it is kept on.
  node.clock.advance(16_000);
  node.hub.sweep();
  const [fourth] = await comeBack(node, 1, epoch, 0);
  expect(fourth?.outlet.story('a')).toEqual([1, 2, 3, 4, 5]);
  expect(node.reads).toEqual({ kept: 3, log: 0 });
});

// The log says that nothing is left of what they lack, and each of them asked it again.
test.each([
  { what: 'some', left: 2, told: ['gap:trimmed@3', 4, 5] },
  { what: 'all', left: 0, told: ['gap:trimmed@5'] },
])('where $what of the log is past its age, a crowd costs one read', async ({ left, told }) => {
  const node = crowded();
  const [listener] = await comeBack(node, 1, 'none', 0);
  node.append(5 - left);
  await node.flow();
  node.clock.advance(2 * 3_600_000);
  node.append(left);
  await node.flow();
  const epoch = String(listener?.outlet.states()[0]?.epoch);
  for (let round = 0; round < 3; round++) {
    const crowd = await comeBack(node, 10, epoch, 1);
    for (const { outlet } of crowd) expect(outlet.story('a')).toEqual([...told]);
  }
  expect(node.reads['log']).toBe(1);
});
