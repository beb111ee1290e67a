// What the contract of all adapters does not say of the one in memory: how it stays small, and what it then forgets.

import { heapStats } from 'bun:jsc';
import { expect, test } from 'bun:test';
import { Rules } from '../../../src/rules/rules.ts';
import { HandClock, memoryAdapter } from '../../support/hub.ts';
import { until } from '../../support/tcp-client.ts';
import type { MemoryAdapter } from '../../../src/sync/memory/adapter.ts';

const rule = new Rules({ rules: [{ channels: '*', history: { size: 100, seconds: 60 } }] }).for('a');
const hour = 3_600_000;

function publish(adapter: MemoryAdapter, clock: HandClock, channel: string, data: string, key?: string) {
  return adapter.publish({ channel, rule, data, at: clock.now(), key });
}

// An hour of silence made the log forgotten, and the next publication a gap for everyone who had listened all along.
test('a channel that somebody listens to keeps its epoch through any silence', () => {
  const clock = new HandClock();
  const adapter = memoryAdapter(clock);
  const head = adapter.subscribe('a', rule);
  publish(adapter, clock, 'a', '1');
  publish(adapter, clock, 'b', '1');
  clock.advance(hour);
  adapter.sweep();
  clock.advance(hour);
  adapter.sweep();
  expect(publish(adapter, clock, 'a', '2')).toEqual({ epoch: head?.epoch ?? '', offset: 2 });
  expect(publish(adapter, clock, 'b', '2')?.epoch).not.toBe(head?.epoch ?? '');
  adapter.unsubscribe('a');
  clock.advance(hour);
  adapter.sweep();
  expect(publish(adapter, clock, 'a', '3')?.offset).toBe(1);
});

test('over all channels the limit of bytes holds, and the ones used longest ago are emptied first', () => {
  const clock = new HandClock();
  const adapter = memoryAdapter(clock, 100_000);
  const data = JSON.stringify('x'.repeat(1_500));
  for (const channel of ['a', 'b', 'c', 'd']) {
    for (let sent = 0; sent < 8; sent++) publish(adapter, clock, channel, data);
    clock.advance(1);
  }
  const kept = ['a', 'b', 'c', 'd'].map((channel) => adapter.history(channel, rule, { limit: 100 }));
  expect(kept.map(({ publications }) => publications.length)).toEqual([0, 8, 8, 8]);
  expect(kept.map(({ head }) => head.offset)).toEqual([8, 8, 8, 8]);
});

// One channel alone could hold its whole size in large publications, whatever the limit was.
test('one channel alone keeps to the limit of bytes as well', () => {
  const clock = new HandClock();
  const adapter = memoryAdapter(clock, 50_000);
  const data = JSON.stringify('x'.repeat(5_000));
  for (let sent = 0; sent < 50; sent++) publish(adapter, clock, 'a', data);
  const page = adapter.history('a', rule, { limit: 100 });
  expect(page.publications.map(({ offset }) => offset)).toEqual([47, 48, 49, 50]);
  const large = JSON.stringify('x'.repeat(60_000));
  publish(adapter, clock, 'a', large);
  expect(adapter.history('a', rule, { limit: 100 }).publications.map(({ offset }) => offset)).toEqual([51]);
});

// Noise on a live server found it: every channel that was ever published to left an empty log behind for an hour, which
// no limit counted, and all of them were sorted whenever room had to be made. 100,000 names cost 260 MB and half a
// second at a time.
test('channels by the hundred thousand keep to the limit of bytes, and make room at once', async () => {
  const clock = new HandClock();
  const adapter = memoryAdapter(clock, 1_000_000);
  const heard = adapter.subscribe('heard', rule);
  publish(adapter, clock, 'heard', '1');
  const before = process.memoryUsage().heapUsed;
  const startedAt = performance.now();
  for (let index = 0; index < 200_000; index++) publish(adapter, clock, `name:${index}`, '1');
  // By each publication that looked through all of them it would be hours.
  expect(performance.now() - startedAt).toBeLessThan(60_000);
  const grown = (): number => {
    Bun.gc(true);
    return process.memoryUsage().heapUsed - before;
  };
  await until(
    () => grown() < 20_000_000,
    () => `the heap keeps to the limit; it grew by ${grown()}`,
  );
  expect(adapter.history('name:199999', rule, { limit: 1 }).publications).toHaveLength(1);
  expect(publish(adapter, clock, 'heard', '2')).toEqual({ epoch: heard?.epoch ?? '', offset: 2 });
  // One that is forgotten begins anew, in an epoch that nobody was told before.
  const again = publish(adapter, clock, 'name:0', '1');
  expect(again?.offset).toBe(1);
  expect(again?.epoch).not.toBe(heard?.epoch ?? '');
});

// At the very age at which a publication is still kept, its key was forgotten, and a repeat was published again.
test('a key lives exactly as long as the publication that used it', () => {
  const clock = new HandClock();
  const adapter = memoryAdapter(clock);
  publish(adapter, clock, 'a', '1', 'k');
  clock.advance(60_000);
  expect(adapter.history('a', rule, { limit: 1 }).publications).toHaveLength(1);
  expect(publish(adapter, clock, 'a', '2', 'k')?.offset).toBe(1);
  clock.advance(1);
  expect(adapter.history('a', rule, { limit: 1 }).publications).toHaveLength(0);
  expect(publish(adapter, clock, 'a', '3', 'k')?.offset).toBe(2);
});

test('a small history is a ring of exactly its size, whatever that is', () => {
  for (const size of [1, 2, 7, 8, 9, 15, 16, 17, 100]) {
    const clock = new HandClock();
    const adapter = memoryAdapter(clock);
    const small = new Rules({ rules: [{ channels: '*', history: { size } }] }).for('a');
    for (let sent = 1; sent <= 250; sent++) {
      adapter.publish({ channel: 'a', rule: small, data: String(sent), at: clock.now() });
      const { publications, complete } = adapter.history('a', small, { limit: 1_000 });
      const from = Math.max(1, sent - size + 1);
      expect(complete).toBe(true);
      expect(publications).toHaveLength(sent - from + 1);
      expect([publications[0]?.data, publications.at(-1)?.data]).toEqual([String(from), String(sent)]);
    }
  }
});

test('a log that was emptied to make room counts on until its own time is over', () => {
  const clock = new HandClock();
  const adapter = memoryAdapter(clock, 20_000);
  const first = publish(adapter, clock, 'quiet', '1');
  for (let sent = 0; sent < 20; sent++) publish(adapter, clock, 'loud', JSON.stringify('x'.repeat(1_500)));
  expect(adapter.history('quiet', rule, { limit: 10 }).publications).toEqual([]);
  clock.advance(59_000);
  adapter.sweep();
  expect(publish(adapter, clock, 'quiet', '2')).toEqual({ epoch: first!.epoch, offset: 2 });
});

test('keys are kept as long as history, and no longer', () => {
  const clock = new HandClock();
  const adapter = memoryAdapter(clock);
  const heapSize = (): number => {
    Bun.gc(true);
    return heapStats().heapSize;
  };
  const before = heapSize();
  for (let sent = 0; sent < 200_000; sent++) publish(adapter, clock, 'a', '1', `key ${sent} of this channel`);
  const grown = heapSize() - before;
  // Used after the measurement, so that it was not collected before.
  expect(publish(adapter, clock, 'a', '1')?.offset).toBe(200_001);
  expect(grown).toBeLessThan(5_000_000);
});
