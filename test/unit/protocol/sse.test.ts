// The event stream's text, read back by the rules that browsers follow: what goes in as one event comes out as one.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { sseComment, sseEvent, sseRetry } from '../../../src/protocol/sse.ts';

interface Read {
  readonly events: { event: string; data: string; id: string }[];
  readonly retry: number | undefined;
}

/** The HTML standard's interpretation of an event stream. */
function read(stream: string): Read {
  const events: Read['events'] = [];
  let retry: number | undefined;
  let [event, id] = ['', ''];
  let data: string[] = [];
  for (const line of stream.split(/\r\n|\n|\r/)) {
    if (line === '') {
      if (data.length > 0) events.push({ event: event || 'message', data: data.join('\n'), id });
      [event, data] = ['', []];
      continue;
    }
    const colon = line.indexOf(':');
    if (colon === 0) continue;
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'event') event = value;
    else if (name === 'data') data.push(value);
    else if (name === 'id' && !value.includes('\u0000')) id = value;
    else if (name === 'retry' && /^\d+$/.test(value)) retry = Number(value);
  }
  return { events, retry };
}

const event = fc.constantFrom('welcome', 'message', 'gap', 'drain');
const id = fc.stringMatching(/^[A-Za-z0-9_.-]{1,80}$/);

test('any JSON comes out as it went in, one event each, in order', () => {
  const sent = fc.record({ event, data: fc.jsonValue().map((value) => JSON.stringify(value)), id });
  fc.assert(
    fc.property(fc.array(sent, { maxLength: 10 }), (all) => {
      const stream = all.map((each) => sseEvent(each.event, each.data, each.id)).join(sseComment('keep-alive'));
      expect(read(stream).events).toEqual(all);
    }),
    { numRuns: 1_000 },
  );
});

test('an event without an id keeps the one before', () => {
  const { events } = read(sseEvent('welcome', '{}', 'c1') + sseEvent('drain', '{"after":5}'));
  expect(events).toEqual([
    { event: 'welcome', data: '{}', id: 'c1' },
    { event: 'drain', data: '{"after":5}', id: 'c1' },
  ]);
});

test('separators that JSON leaves raw are no line breaks here', () => {
  const data = JSON.stringify('a\u2028b\u2029c\u0085d');
  expect(read(sseEvent('message', data, 'x')).events).toEqual([{ event: 'message', data, id: 'x' }]);
});

test('a line break in data or id, and a NUL in an id, are faults of the caller', () => {
  for (const data of ['{\n}', '{\r}', '1\n\ndata: 2']) expect(() => sseEvent('message', data)).toThrow('single line');
  for (const bad of ['a\nb', 'a\r', 'a\u0000']) expect(() => sseEvent('message', '1', bad)).toThrow('id');
});

test('retry is whole milliseconds, and comments are no events', () => {
  expect(read(sseRetry(1234.56))).toEqual({ events: [], retry: 1_235 });
  expect(read(sseRetry(-5)).retry).toBe(0);
  expect(read(sseComment('keep-alive'))).toEqual({ events: [], retry: undefined });
});
