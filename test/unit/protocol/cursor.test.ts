// Cursors: any set of positions comes back from its text, noise is recognised, and names that hash alike stay apart.

import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { cursorLengthMax, CursorWriter, decodeCursor, type DecodedCursor } from '../../../src/protocol/cursor.ts';

const channelName = fc.stringMatching(/^\$?[A-Za-z0-9_.:\-@/]{1,40}$/);
const offset = fc.oneof(fc.nat(200), fc.maxSafeNat(), fc.constantFrom(0, 63, 64, Number.MAX_SAFE_INTEGER));
const epoch = fc.constantFrom('k3f9a0', 'zz9q1x', 'p', '', 'x'.repeat(64));
const positions = fc.uniqueArray(fc.record({ channel: channelName, epoch, offset }), {
  selector: ({ channel }) => channel,
  minLength: 1,
  maxLength: 50,
});

function decode(text: string): DecodedCursor {
  const decoded = decodeCursor(text);
  if (decoded === undefined) throw new Error(`not a cursor: ${text}`);
  return decoded;
}

test('every position comes back', () => {
  fc.assert(
    fc.property(positions, (all) => {
      const writer = new CursorWriter(all.map(({ channel }) => channel));
      for (const { channel, ...position } of all) writer.set(channel, position);
      const text = writer.text();
      expect(text).toMatch(/^[A-Za-z0-9_.-]+$/);
      expect(text.length).toBeLessThanOrEqual(cursorLengthMax);
      const cursor = decode(text);
      for (const { channel, epoch, offset } of all) {
        expect(cursor.entry(channel, epoch)).toEqual({ kind: 'offset', offset });
        expect(cursor.entry(channel, `${epoch}!`)).toEqual({ kind: 'epoch_changed' });
      }
    }),
    { numRuns: 1_000 },
  );
});

test('positions move, also from epoch to epoch, and the text tells the last', () => {
  const moves = fc.array(fc.record({ channel: fc.constantFrom('a', 'b', 'c'), epoch, offset }), { maxLength: 30 });
  fc.assert(
    fc.property(moves, (all) => {
      const writer = new CursorWriter(['a', 'b', 'c']);
      const last = new Map<string, { epoch: string; offset: number }>();
      for (const { channel, ...position } of all) {
        writer.set(channel, position);
        last.set(channel, position);
        const cursor = decode(writer.text());
        for (const name of ['a', 'b', 'c']) {
          const known = last.get(name);
          const expected = known === undefined ? { kind: 'absent' } : { kind: 'offset', offset: known.offset };
          expect(cursor.entry(name, known?.epoch ?? '')).toEqual(expected as never);
        }
      }
    }),
  );
});

test('a channel that the cursor does not hold is absent', () => {
  fc.assert(
    fc.property(positions, channelName, (all, other) => {
      fc.pre(all.every(({ channel }) => channel !== other));
      const writer = new CursorWriter(all.map(({ channel }) => channel));
      for (const { channel, ...position } of all) writer.set(channel, position);
      expect(decode(writer.text()).entry(other, 'k3f9a0')).toEqual({ kind: 'absent' });
    }),
  );
});

test('a channel that was not asked for is not written', () => {
  const writer = new CursorWriter(['a']);
  writer.set('b', { epoch: 'e', offset: 1 });
  expect(writer.text()).toBe('1A');
  expect(decode('1A').entry('a', 'e')).toEqual({ kind: 'absent' });
});

test('a cursor of 50 channels is short', () => {
  const channels = Array.from({ length: 50 }, (_, index) => `chat:room-${index}`);
  const writer = new CursorWriter(channels);
  for (const channel of channels) writer.set(channel, { epoch: 'k3f9a0', offset: 1_000_000_000 });
  expect(writer.text().length).toBeLessThan(800);
});

test('two names whose hashes are the same are kept apart by another salt', () => {
  // Found by search over 30 bits: with the first salt both have the same five digits.
  const [one, two] = collision();
  const writer = new CursorWriter([one, two]);
  writer.set(one, { epoch: 'e', offset: 1 });
  writer.set(two, { epoch: 'e', offset: 2 });
  const text = writer.text();
  expect(text[1]).not.toBe('A');
  expect(decode(text).entry(one, 'e')).toEqual({ kind: 'offset', offset: 1 });
  expect(decode(text).entry(two, 'e')).toEqual({ kind: 'offset', offset: 2 });
});

/** Two names that share an entry in a cursor of one channel. */
function collision(): [string, string] {
  const seen = new Map<string, string>();
  for (let index = 0; index < 400_000; index++) {
    const name = `c${index}`;
    const writer = new CursorWriter([name]);
    writer.set(name, { epoch: 'e', offset: 0 });
    const text = writer.text();
    const other = seen.get(text);
    if (other !== undefined) return [other, name];
    seen.set(text, name);
  }
  throw new Error('no two names hash alike: the search is too short');
}

describe('noise', () => {
  const noise: [string, string][] = [
    ['nothing', ''],
    ['another version', '2A.aaaaaa'],
    ['no salt', '1'],
    ['a salt of no digit', '1!'],
    ['a group without its dot', '1Aaaaaaa'],
    ['a short epoch', '1A.aaa'],
    ['an empty group', '1A.'],
    ['a name without an offset', '1A.aaaaaabbbbb'],
    ['an offset of no digits', '1A.aaaaaabbbbbA'],
    ['an offset that ends too early', '1A.aaaaaabbbbbDA'],
    ['an offset that is too large', '1A.aaaaaabbbbbJ_________'],
    ['an offset of ten digits', '1A.aaaaaabbbbbKAAAAAAAAAA'],
    ['another server’s number', '12345'],
    ['too long', `1A.${'a'.repeat(5_000)}`],
  ];
  test.each(noise)('%s', (_title, text) => {
    expect(decodeCursor(text)).toBeUndefined();
  });

  test('never throws, whatever the text', () => {
    const digit = fc.constantFrom(...Array.from('ABCabc019-_.!%/ \u0000é\u{1f600}'));
    const near = fc.string({ unit: digit, maxLength: 60 }).map((text) => `1A.${text}`);
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), near), channelName, (text, name) => {
        const entry = decodeCursor(text)?.entry(name, 'e');
        if (entry?.kind === 'offset') expect(Number.isSafeInteger(entry.offset)).toBe(true);
      }),
      { numRuns: 10_000 },
    );
  });
});

test('narrowed to some of its channels a cursor stands in these where it stood, and says nothing of the others', () => {
  fc.assert(
    fc.property(positions, fc.nat(50), (all, kept) => {
      const writer = new CursorWriter(all.map(({ channel }) => channel));
      for (const { channel, ...position } of all) writer.set(channel, position);
      const some = all.slice(0, kept);
      const cursor = decode(writer.narrowed(some.map(({ channel }) => channel)).text());
      for (const { channel, epoch, offset } of some) {
        expect(cursor.entry(channel, epoch)).toEqual({ kind: 'offset', offset });
      }
      expect(cursor.entry('no:channel:of:these:at:all', '')).toEqual({ kind: 'absent' });
    }),
  );
});
