// What a stream is sent while it catches up. Each stream had copies of its own of what all of them were sent, as their
// cursors differ: a hundred that caught up on large messages at once took a node to 689 MiB.

import { expect, test } from 'bun:test';
import { anonymous } from '../../../src/core/access.ts';
import { Publication } from '../../../src/core/publication.ts';
import { sseEvent } from '../../../src/protocol/sse.ts';
import { EventFanout } from '../../../src/transports/event-fanout.ts';
import { byteStrategy, EventStream } from '../../../src/transports/event-stream.ts';
import { EventClient } from '../../support/clients.ts';
import { createHub } from '../../support/hub.ts';

const large = Array.from({ length: 4 }, (_, index) => publication(index + 1, `"${'ü'.repeat(40_000)}${index}"`));
const small = [5, 6].map((offset) => publication(offset, `"small ${offset}"`));

function publication(offset: number, data: string): Publication {
  return new Publication({ channel: 'a', epoch: 'e', offset, data, at: 1 });
}

/** A stream that reads nothing, and the chunks that it is handed. */
function openStream(): { stream: EventStream; chunks: Uint8Array[]; idOf: (offset: number) => string } {
  const fanout = new EventFanout(4 << 20);
  const stream = new EventStream(['a', 'b'], { fanout, retryMs: () => 1, wantsPings: false, compresses: false });
  stream.attach(createHub().sessions.connect(anonymous, stream));
  const chunks: Uint8Array[] = [];
  stream.start({
    enqueue: (chunk: Uint8Array) => chunks.push(chunk),
    desiredSize: 0,
  } as unknown as ReadableStreamDefaultController<Uint8Array>);
  stream.subscribed([{ channel: 'a', epoch: 'e', offset: 0, recoverable: true, recovered: true }]);
  const welcome = textOf(chunks.splice(0));
  const start = /\nid: (\S+)\n/.exec(welcome)?.[1] ?? '';
  return { stream, chunks, idOf: (offset) => start.replace(/A$/, 'ABCDEFG'[offset] ?? '') };
}

function textOf(chunks: readonly Uint8Array[]): string {
  return Buffer.concat(chunks).toString();
}

test('large publications are the same bytes for all streams, and each stream reads whole events', () => {
  const streams = [openStream(), openStream()];
  for (const { stream, chunks, idOf } of streams) {
    stream.deliver([...large, ...small]);
    const events = [...large, ...small].map(({ frame, offset }) =>
      sseEvent({ event: 'message', data: frame, id: idOf(offset) }),
    );
    expect(textOf(chunks)).toBe(events.join(''));
  }
  const [first = [], second = []] = streams.map(({ chunks }) => chunks.filter(({ length }) => length > 60_000));
  expect(first.length).toBe(large.length);
  for (const [index, chunk] of first.entries()) expect(chunk).toBe(second[index]!);
  // Those that are small are one chunk, together with the end of what came before.
  expect(streams[0]?.chunks.length).toBe(2 * large.length + 1);
});

test('a line break in data of any size is a fault of the caller', () => {
  for (const length of [1, 40_000]) {
    const broken = publication(1, `"${'x'.repeat(length)}\n\ndata: 1"`);
    expect(() => openStream().stream.deliver([broken])).toThrow('single line');
  }
});

// A stream whose history could not be read in the very turn in which it began was closed without a word of HTTP.
test('a stream that is cut as it begins is still answered', async () => {
  const fanout = new EventFanout(4 << 20);
  const server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    async fetch() {
      const stream = new EventStream(['a'], { fanout, retryMs: () => 1, wantsPings: false, compresses: false });
      stream.attach(createHub().sessions.connect(anonymous, stream));
      await Promise.resolve();
      stream.subscribed([{ channel: 'a', recoverable: true, epoch: 'e', offset: 0 }]);
      const start = stream.start.bind(stream);
      stream.start = (controller) => {
        start(controller);
        queueMicrotask(() => stream.terminate());
      };
      return new Response(new ReadableStream(stream, byteStrategy), {
        headers: { 'content-type': 'text/event-stream' },
      });
    },
  });
  try {
    const client = await EventClient.open(server.url.origin);
    expect(await client.closed).toBe(false);
  } finally {
    await server.stop(true);
  }
});
