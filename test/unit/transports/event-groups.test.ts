// Streams with the same channels are written to together, once a turn. A stream that leaves such a group in the midst of a turn
// gets what was published before, and nothing of it stays behind.

import { describe, expect, test } from 'bun:test';
import { anonymous } from '../../../src/core/access.ts';
import { Publication } from '../../../src/core/publication.ts';
import { EventFanout } from '../../../src/transports/event-fanout.ts';
import { EventStream } from '../../../src/transports/event-stream.ts';
import { createHub } from '../../support/hub.ts';

function publication(channel: string, offset: number): Publication {
  return new Publication({ channel, epoch: 'e', offset, data: `"${channel} ${offset}"`, at: 1 });
}

interface Opened {
  readonly stream: EventStream;
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
  const sent = (): string[] => {
    const text = Buffer.concat(chunks.splice(0)).toString();
    return [...text.matchAll(/"data":"(.*?)"|"reason":"(.*?)"/g)].map(([, data, reason]) => data ?? reason ?? '');
  };
  sent();
  return { stream, sent };
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
