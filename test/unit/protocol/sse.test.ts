// The event stream's text, read back by the rules that browsers follow, and by parsers that others wrote: what goes in as
// one event comes out as one, and nothing else comes out.

import { expect, test } from 'bun:test';
import { getLines, getMessages } from '@microsoft/fetch-event-source/lib/cjs/parse.js';
import { createParser } from 'eventsource-parser';
import fc from 'fast-check';
import { sseComment, sseEvent, type SseEvent } from '../../../src/protocol/sse.ts';

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

type Parse = (stream: string) => { event: string; data: string }[];

/**
 * A parser that hands on whatever stands before a blank line, be it without data, and knows the last id as its own: the
 * Python packages httpx-sse and sseclient read so.
 */
function readEagerly(stream: string): { event: string; data: string }[] {
  const events: { event: string; data: string }[] = [];
  for (const block of stream.split(/\r\n\r\n|\n\n|\r\r/).slice(0, -1)) {
    const fields = new Map<string, string>();
    for (const line of block.split(/\r\n|\n|\r/)) {
      const [, name = '', value = ''] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
      if (name !== '') fields.set(name, value);
    }
    events.push({ event: fields.get('event') ?? 'message', data: fields.get('data') ?? '' });
  }
  return events;
}

const parsers: Readonly<Record<string, Parse>> = {
  'fetch-event-source': (stream) => {
    const events: { event: string; data: string }[] = [];
    const nothing = (): void => undefined;
    const lines = getLines(getMessages(nothing, nothing, ({ event, data }) => events.push({ event, data })));
    lines(new TextEncoder().encode(stream));
    return events;
  },
  'eventsource-parser': (stream) => {
    const events: { event: string; data: string }[] = [];
    createParser({ onEvent: ({ event = 'message', data }) => events.push({ event, data }) }).feed(stream);
    return events;
  },
  'an eager one': readEagerly,
};

const event = fc.constantFrom('welcome', 'message', 'gap', 'drain');
const id = fc.stringMatching(/^[A-Za-z0-9_.-]{1,80}$/);

test('any JSON comes out as it went in, one event each, in order', () => {
  const sent = fc.record({ event, data: fc.jsonValue().map((value) => JSON.stringify(value)), id });
  fc.assert(
    fc.property(fc.array(sent, { maxLength: 10 }), (all) => {
      const stream = all.map((each) => sseEvent(each)).join(sseComment('keep-alive'));
      expect(read(stream).events).toEqual(all);
    }),
    { numRuns: 1_000 },
  );
});

// After a comment or a `retry` stood a blank line. These clients took each for a message, and handed on empty data.
test.each(Object.keys(parsers))('no keep-alive or retry is a message to %s', (name) => {
  const sent: SseEvent[] = [
    { event: 'welcome', data: '{"type":"welcome"}', id: 'a', retryMs: 2_381 },
    { event: 'message', data: '1', id: 'b' },
    { event: 'drain', data: '{"after":5}' },
    { event: 'message', data: '"two"', id: 'c' },
  ];
  const comment = sseComment('keep-alive');
  const stream = sent.map((each) => sseEvent(each)).join(comment + comment) + comment;
  expect(parsers[name]!(stream)).toEqual(sent.map(({ event, data }) => ({ event, data })));
  expect(read(stream).retry).toBe(2_381);
});

test('an event without an id keeps the one before', () => {
  const { events } = read(
    sseEvent({ event: 'welcome', data: '{}', id: 'c1' }) + sseEvent({ event: 'drain', data: '{"after":5}' }),
  );
  expect(events).toEqual([
    { event: 'welcome', data: '{}', id: 'c1' },
    { event: 'drain', data: '{"after":5}', id: 'c1' },
  ]);
});

test('separators that JSON leaves raw are no line breaks here', () => {
  const data = JSON.stringify('a\u2028b\u2029c\u0085d');
  expect(read(sseEvent({ event: 'message', data, id: 'x' })).events).toEqual([{ event: 'message', data, id: 'x' }]);
});

test('a line break in data or id, and a NUL in an id, are faults of the caller', () => {
  const event = 'message';
  for (const data of ['{\n}', '{\r}', '1\n\ndata: 2']) expect(() => sseEvent({ event, data })).toThrow('single line');
  for (const id of ['a\nb', 'a\r', 'a\u0000']) expect(() => sseEvent({ event, data: '1', id })).toThrow('id');
});

test('retry is whole milliseconds, and comments are no events', () => {
  const retryOf = (retryMs: number) => read(sseEvent({ event: 'welcome', data: '{}', retryMs })).retry;
  expect([retryOf(1234.56), retryOf(-5)]).toEqual([1_235, 0]);
  expect(read(sseComment('keep-alive'))).toEqual({ events: [], retry: undefined });
});
