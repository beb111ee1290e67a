// Streams with the same channels are written to together, once a turn. A stream that leaves such a group in the midst of a turn
// gets what was published before, and nothing of it stays behind.

import { describe, expect, test } from 'bun:test';
import { inflateRawSync } from 'node:zlib';
import { anonymous } from '../../../src/core/access.ts';
import { Publication } from '../../../src/core/publication.ts';
import { decodeCursor } from '../../../src/protocol/cursor.ts';
import { EventFanout } from '../../../src/transports/event-fanout.ts';
import { EventStream } from '../../../src/transports/event-stream.ts';
import { createHub } from '../../support/hub.ts';

function publication(channel: string, offset: number): Publication {
  return new Publication({ channel, epoch: 'e', offset, data: `"${channel} ${offset}"`, at: 1 });
}

interface Opened {
  readonly stream: EventStream;
  /** Where its cursor stood in the channel when it was last sent something. */
  offsetIn(channel: string): number | undefined;
  /** What it was sent since the last look. */
  sent(): string[];
}

function open(fanout: EventFanout, channels: readonly string[], joined = channels): Opened {
  const stream = new EventStream(channels, { fanout, retryMs: () => 1, wantsPings: false, compresses: false });
  stream.attach(createHub().sessions.connect(anonymous, stream));
  const chunks: Uint8Array[] = [];
  stream.start({
    enqueue: (chunk: Uint8Array) => chunks.push(chunk),
    desiredSize: 0,
  } as unknown as ReadableStreamDefaultController<Uint8Array>);
  stream.subscribed(channels.map((channel) => ({ channel, epoch: 'e', offset: 0, recoverable: true })));
  for (const channel of joined) stream.join(channel);
  fanout.add(stream);
  let id = '';
  const sent = (): string[] => {
    const text = Buffer.concat(chunks.splice(0)).toString();
    id = [...text.matchAll(/^id: (.*)$/gm)].at(-1)?.[1] ?? id;
    return [...text.matchAll(/"data":"(.*?)"|"reason":"(.*?)"/g)].map(([, data, reason]) => data ?? reason ?? '');
  };
  sent();
  const offsetIn = (channel: string): number | undefined => {
    const entry = decodeCursor(id)?.entry(channel, 'e');
    return entry?.kind === 'offset' ? entry.offset : undefined;
  };
  return { stream, sent, offsetIn };
}

describe.each(['leave', 'rest'] as const)('a stream that has to %s one of its channels', (how) => {
  test('gets what was published in the others before, and goes on there', () => {
    const fanout = new EventFanout(4 << 20);
    const [changing, other] = [open(fanout, ['a', 'b']), open(fanout, ['a', 'b'])];
    fanout.publication(publication('b', 1));
    changing.stream[how]('a');
    fanout.publication(publication('a', 1));
    fanout.publication(publication('b', 2));
    fanout.flush();
    expect(changing.sent()).toEqual(['b 1', 'b 2']);
    expect(other.sent()).toEqual(['b 1', 'a 1', 'b 2']);
    // It comes back to what it has not been sent.
    expect(changing.offsetIn('a')).toBe(how === 'rest' ? 0 : undefined);
    expect([changing.offsetIn('b'), other.offsetIn('a')]).toEqual([2, 1]);
  });
});

test('a stream that still catches up in one channel is told of a gap in another', () => {
  const fanout = new EventFanout(4 << 20);
  const [early, live] = [open(fanout, ['a', 'b'], ['a']), open(fanout, ['a', 'b'])];
  fanout.publication(publication('a', 1));
  fanout.gap({ channel: 'a', position: { epoch: 'e', offset: 3 }, reason: 'trimmed' });
  fanout.publication(publication('a', 4));
  fanout.flush();
  for (const { sent } of [early, live]) expect(sent()).toEqual(['a 1', 'trimmed', 'a 4']);
});

test('a stream that ends hears nothing of presence any more', () => {
  const fanout = new EventFanout(4 << 20);
  const [ending, other] = [open(fanout, ['a']), open(fanout, ['a'])];
  for (const { stream } of [ending, other]) stream.joinPresence('a', 0);
  const push = { type: 'join', frame: '{"type":"join"}' };
  expect(fanout.presence('a', 0, [push])).toBe(2);
  ending.stream.end(1000);
  expect(fanout.presence('a', 0, [push])).toBe(1);
  other.stream.end(1000);
  expect(fanout.presence('a', 0, [push])).toBe(0);
});

test('a stream that ended before it was read is closed as it is', () => {
  const fanout = new EventFanout(4 << 20);
  const stream = new EventStream(['a'], { fanout, retryMs: () => 1, wantsPings: false, compresses: false });
  stream.attach(createHub().sessions.connect(anonymous, stream));
  stream.disconnect(1001, 'shutting_down');
  let isClosed = false;
  stream.start({ close: () => (isClosed = true) } as unknown as ReadableStreamDefaultController<Uint8Array>);
  expect(isClosed).toBe(true);
});

test('what comes before the welcome is bounded', () => {
  const fanout = new EventFanout(10_000);
  const stream = new EventStream(['a'], { fanout, retryMs: () => 1, wantsPings: false, compresses: false });
  stream.attach(createHub().sessions.connect(anonymous, stream));
  for (let sent = 0; sent < 100 && !stream.ended; sent++) stream.send('join', JSON.stringify('x'.repeat(1_000)));
  expect(stream.ended).toBe(true);
});

test('a compressed stream that the server ends is whole', () => {
  const fanout = new EventFanout(4 << 20);
  const stream = new EventStream(['a'], { fanout, retryMs: () => 1, wantsPings: false, compresses: true });
  stream.attach(createHub().sessions.connect(anonymous, stream));
  const chunks: Uint8Array[] = [];
  stream.start({
    enqueue: (chunk: Uint8Array) => chunks.push(chunk),
    close: () => undefined,
    desiredSize: 0,
  } as unknown as ReadableStreamDefaultController<Uint8Array>);
  stream.subscribed([{ channel: 'a', epoch: 'e', offset: 0, recoverable: true }]);
  stream.disconnect(1001, 'shutting_down');
  // Behind the header of gzip; what has no end is an error here.
  expect(inflateRawSync(Buffer.concat(chunks).subarray(10)).toString()).toStartWith('event: welcome\n');
});
