// What streams that recover are sent alike is made once. A storm of 10,000 streams spent a quarter of its time on making
// the same text for each of them. Whatever is shared, each stream gets exactly what it would get alone.

import { describe, expect, test } from 'bun:test';
import { constants, gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { anonymous } from '../../../src/core/access.ts';
import { Publication } from '../../../src/core/publication.ts';
import { CursorWriter } from '../../../src/protocol/cursor.ts';
import type { Position } from '../../../src/protocol/position.ts';
import { sseEvent } from '../../../src/protocol/sse.ts';
import { EventFanout } from '../../../src/transports/event-fanout.ts';
import { EventStream } from '../../../src/transports/event-stream.ts';
import { RecoveredEvents } from '../../../src/transports/recovered-events.ts';
import { createHub } from '../../support/hub.ts';
import { patient } from '../../support/patience.ts';

patient();

const names = ['a', 'b', 'ephemeral:c'] as const;
type Name = (typeof names)[number];

function publicationsOf(channel: Name, epoch: string, seed: string): Publication[] {
  return Array.from({ length: 12 }, (_, index) => {
    // The ninth is so large that its data are sent by themselves.
    const data = JSON.stringify({ seed, text: index === 8 ? 'ü'.repeat(9_000) : `${channel} ${index}` });
    return new Publication({ channel, epoch, offset: epoch === '' ? 0 : index + 1, data, at: index });
  });
}

/** What was read once, what was read again, and another log. */
const logs: Readonly<Record<Name, readonly (readonly Publication[])[]>> = {
  a: [publicationsOf('a', 'e', '1'), publicationsOf('a', 'e', '1'), publicationsOf('a', 'f', '2')],
  b: [publicationsOf('b', 'e', '1'), publicationsOf('b', 'e', '1'), publicationsOf('b', 'f', '2')],
  'ephemeral:c': [publicationsOf('ephemeral:c', '', '1')],
};

interface Opening {
  readonly channels: readonly Name[];
  readonly starts: Readonly<Record<'a' | 'b', number>>;
  /** A channel whose rows are awaited. */
  readonly awaited: 'a' | 'b' | undefined;
  readonly compresses: boolean;
}

type Step =
  | {
      readonly do: 'deliver';
      readonly name: Name;
      readonly log: number;
      readonly from: number;
      readonly count: number;
      /** Is left out, as by a stream that asked not to hear it. */
      readonly without: number;
    }
  | { readonly do: 'gap'; readonly name: 'a' | 'b'; readonly offset: number }
  | { readonly do: 'rows'; readonly offset: number };

const start = fc.constantFrom(0, 0, 0, 3);
const opening: fc.Arbitrary<Opening> = fc.record({
  channels: fc.constantFrom<readonly Name[]>(['a'], ['a'], ['a', 'b'], ['a', 'b'], ['b', 'a'], ['a', 'ephemeral:c']),
  starts: fc.record({ a: start, b: start }),
  awaited: fc.constantFrom(undefined, undefined, undefined, 'a', 'b'),
  compresses: fc.constantFrom(false, false, true),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('deliver' as const),
      name: fc.constantFrom(...names, 'a', 'a'),
      log: fc.constantFrom(0, 0, 0, 1, 2),
      from: fc.constantFrom(0, 0, 1, 7),
      count: fc.constantFrom(1, 2, 5, 5),
      without: fc.constantFrom(-1, -1, -1, 2),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('gap' as const),
      name: fc.constantFrom('a', 'b'),
      offset: fc.integer({ min: 0, max: 12 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('rows' as const), offset: fc.constant(5) }) },
);

/** A stream of the fan-out, and what it must be sent: each event made for it alone, with a cursor of its own. */
class Told {
  readonly opening: Opening;
  readonly chunks: Uint8Array[] = [];
  readonly stream: EventStream;
  readonly #cursor: CursorWriter;
  #awaited: 'a' | 'b' | undefined;
  #expected = '';

  constructor(fanout: EventFanout, given: Opening) {
    this.opening = given;
    const { channels, starts, awaited, compresses } = given;
    this.stream = new EventStream(channels, { fanout, retryMs: () => 1, wantsPings: false, compresses });
    this.stream.attach(createHub().sessions.connect(anonymous, this.stream));
    this.stream.start({
      enqueue: (chunk: Uint8Array) => this.chunks.push(chunk),
      desiredSize: 0,
    } as unknown as ReadableStreamDefaultController<Uint8Array>);
    if (awaited !== undefined) this.stream.awaitSnapshot(awaited);
    this.#awaited = awaited;
    this.#cursor = new CursorWriter(channels);
    const states = channels.map((channel) => {
      if (channel === 'ephemeral:c') return { channel, recoverable: false };
      const position = { epoch: 'e', offset: starts[channel] };
      this.#move(channel, position);
      return { channel, recoverable: true, ...position };
    });
    this.stream.subscribed(states);
  }

  take(taken: Step): void {
    const name = taken.do === 'rows' ? this.opening.awaited : taken.name;
    if (name === undefined || !this.opening.channels.includes(name)) return;
    if (taken.do === 'deliver') {
      const log = logs[name][taken.log] ?? [];
      const some = log.slice(taken.from, taken.from + taken.count).filter((_, index) => index !== taken.without);
      this.stream.deliver(some);
      for (const publication of some) this.#expect('message', publication.frame, name, publication);
    } else if (taken.do === 'gap') {
      const position = { epoch: 'e', offset: taken.offset };
      this.stream.gap({ channel: name, position, reason: 'trimmed' });
      const data = JSON.stringify({ type: 'gap', channel: name, ...position, reason: 'trimmed' });
      this.#expect('gap', data, name, position);
    } else {
      this.#awaited = undefined;
      const position = { epoch: 'e', offset: taken.offset };
      this.stream.snapshot(name, '{}', position);
      this.#expect('snapshot', '{}', name, position);
    }
  }

  get text(): string {
    const bytes = Buffer.concat(this.chunks);
    const plain = this.opening.compresses ? gunzipSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH }) : bytes;
    const text = plain.toString();
    expect(text).toStartWith('event: welcome\n');
    return text.slice(text.indexOf('\n\n') + 2);
  }

  get expected(): string {
    return this.#expected;
  }

  #move(channel: Name, position: Position): void {
    if (position.epoch !== '' && channel !== this.#awaited) this.#cursor.set(channel, position);
  }

  #expect(event: string, data: string, channel: Name, position: Position): void {
    this.#move(channel, position);
    this.#expected += sseEvent({ event, data, id: this.#cursor.text() });
  }
}

test('streams that stand alike or not, with whatever they are sent, get what each of them would get alone', () => {
  fc.assert(
    fc.property(fc.array(opening, { minLength: 2, maxLength: 6 }), fc.array(step, { maxLength: 12 }), (all, steps) => {
      const fanout = new EventFanout(1 << 30);
      const streams = all.map((each) => new Told(fanout, each));
      // Each step comes to all of them before the next one; some take it twice, as no stream of the server would.
      for (const each of steps) for (const stream of streams) stream.take(each);
      for (const each of steps.slice(0, 3)) streams[0]?.take(each);
      for (const stream of streams) expect(stream.text).toBe(stream.expected);
      for (const { stream } of streams) stream.end(1000);
    }),
    { numRuns: 100 },
  );
});

describe('what is sent alike', () => {
  const [first = []] = logs.a;
  const batch = first.slice(0, 5);
  const deliver: Step = { do: 'deliver', name: 'a', log: 0, from: 0, count: 5, without: -1 };
  const alike: Opening = { channels: ['a', 'b'], starts: { a: 0, b: 3 }, awaited: undefined, compresses: false };

  test('is the same bytes, for plain streams and for compressed ones', () => {
    const fanout = new EventFanout(1 << 30);
    for (const compresses of [false, true]) {
      const elsewhereInB = { ...alike, starts: { a: 0, b: 0 } };
      const [, one, other, elsewhere] = [alike, alike, alike, elsewhereInB].map((each) => {
        const told = new Told(fanout, { ...each, compresses });
        told.take(deliver);
        return told;
      });
      expect(one!.chunks.at(-1)).toBe(other!.chunks.at(-1));
      expect(elsewhere!.chunks.at(-1)).not.toBe(one!.chunks.at(-1));
    }
  });

  test('is forgotten after some seconds, whether it is used or not', () => {
    const recovered = new RecoveredEvents();
    const make = (): string => 'text';
    recovered.chunk('id', batch, make);
    const chunk = recovered.chunk('id', batch, make);
    expect(recovered.bytes).toBeGreaterThan(0);
    for (let second = 0; second < 4; second++) {
      recovered.sweep();
      expect(recovered.chunk('id', batch, make)).toBe(chunk);
    }
    recovered.sweep();
    expect(recovered.bytes).toBe(0);
    expect(recovered.chunk('id', batch, make)).not.toBe(chunk);
  });

  test('is what the first stream still holds, unless it was read anew', () => {
    const recovered = new RecoveredEvents();
    let made = 0;
    const make = (): string => `text ${++made}`;
    const first = recovered.chunk('id', batch, make);
    expect(recovered.chunk('id', batch, make).plain).toBe(first.plain);
    expect(made).toBe(1);
    const other = recovered.chunk('other id', batch, make);
    expect(recovered.chunk('other id', logs.a[1]!.slice(0, 5), make).plain).not.toBe(other.plain);
    expect(made).toBe(3);
  });

  test('is made anew once it was read anew, and kept in place of the former', () => {
    const recovered = new RecoveredEvents();
    for (let count = 0; count < 2; count++) recovered.chunk('id', batch, () => 'former');
    const { bytes } = recovered;
    const again = logs.a[1]!.slice(0, 5);
    const chunk = recovered.chunk('id', again, () => 'latter');
    expect(recovered.chunk('id', again, () => 'third')).toBe(chunk);
    expect(recovered.bytes).toBe(bytes);
  });

  test('takes no memory while one stream alone is sent it', () => {
    const recovered = new RecoveredEvents();
    for (let index = 0; index < 40; index++) recovered.chunk(`id ${index}`, batch, () => 'x'.repeat(1 << 20));
    expect(recovered.bytes).toBeLessThan(100_000);
    for (let index = 0; index < 100_000; index++) recovered.chunk(`other ${index}`, batch, () => '');
    expect(recovered.bytes).toBeLessThanOrEqual(32 << 20);
  });

  test('is bounded: past that, each stream has its own', () => {
    const recovered = new RecoveredEvents();
    const text = 'x'.repeat(1 << 20);
    for (let index = 0; index < 200; index++) recovered.chunk(`id ${index >> 1}`, batch, () => text);
    expect(recovered.bytes).toBeGreaterThan(28 << 20);
    expect(recovered.bytes).toBeLessThanOrEqual(32 << 20);
    const shared = recovered.chunk('id 0', batch, () => text);
    expect(recovered.chunk('id 0', batch, () => text)).toBe(shared);
    const own = recovered.chunk('id 99', batch, () => text);
    expect(recovered.chunk('id 99', batch, () => text)).not.toBe(own);
    for (let second = 0; second < 5; second++) recovered.sweep();
    expect(recovered.bytes).toBe(0);
  });
});
