// Bodies of requests: what is read, and what is refused with which words.

import { expect, test } from 'bun:test';
import { readJsonBody, readOptionalJsonBody } from '../../../src/http/request.ts';
import type { RealtimeError } from '../../../src/protocol/realtime-error.ts';

const limit = { bytesMax: 5_000, tooLarge: 'The body is too large.' };
const json = { 'content-type': 'application/json; charset=utf-8' };

type Body = string | ReadableStream;

function post(body: Body | undefined, headers: Record<string, string> = json): Request {
  return new Request('http://localhost/', { method: 'POST', headers, ...(body === undefined ? {} : { body }) });
}

/** In chunks, so that no header tells its length. */
function chunked(text: string): ReadableStream {
  const chunks = text.match(/[^]{1,1000}/g) ?? [];
  return new ReadableStream({
    pull(controller) {
      const chunk = chunks.shift();
      if (chunk === undefined) controller.close();
      else controller.enqueue(new TextEncoder().encode(chunk));
    },
  });
}

async function refusal(request: Request, read = readJsonBody): Promise<string> {
  try {
    await read(request, limit);
    return 'none';
  } catch (error) {
    const { code, message } = error as RealtimeError;
    return `${code}: ${message}`;
  }
}

const deep = (depth: number): string => `{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`;

test('an object is read, with its text as it came', async () => {
  for (const body of ['{"a": 12345678901234567890}', chunked('{"a": 12345678901234567890}')]) {
    const { text, members } = await readJsonBody(post(body), limit);
    expect(text).toBe('{"a": 12345678901234567890}');
    expect(Object.keys(members)).toEqual(['a']);
  }
});

test.each<[string, Body | undefined, string]>([
  ['nothing', undefined, 'bad_request: The body is not valid JSON.'],
  ['half an object', '{"a"', 'bad_request: The body is not valid JSON.'],
  ['a list', '[{}]', 'bad_request: The body is not a JSON object.'],
  ['null', 'null', 'bad_request: The body is not a JSON object.'],
  ['a text', '"text"', 'bad_request: The body is not a JSON object.'],
  ['a large one', `{"a":"${'x'.repeat(5_000)}"}`, 'too_large: The body is too large.'],
  ['a large one in chunks', chunked(`{"a":"${'x'.repeat(5_000)}"}`), 'too_large: The body is too large.'],
  ['a deep one', deep(1_001), 'bad_request: The body is nested more than 1000 deep.'],
])('%s is refused', async (_what, body, expected) => {
  expect(await refusal(post(body))).toBe(expected);
});

// Each character of such a body was replaced by another one, and published so.
test('a body that is no UTF-8 is refused, or that may be by chance and is said not to be', async () => {
  const refusalOf = (body: Buffer, charset: string): Promise<string> =>
    refusal(
      new Request('http://localhost/', {
        method: 'POST',
        headers: { 'content-type': `application/json${charset}` },
        body,
      }),
    );
  const notUtf8 = 'bad_request: The body is not UTF-8.';
  const misnamed = 'bad_request: The body must be UTF-8; its content-type names another charset.';
  const latin = Buffer.from('{"a":"caf\u00e9"}', 'latin1');
  expect(await refusalOf(latin, '')).toBe(notUtf8);
  expect(await refusalOf(latin, '; charset=utf-8')).toBe(notUtf8);
  expect(await refusalOf(latin, '; charset=iso-8859-1')).toBe(misnamed);
  // Six characters of Latin 1, of which the last two were read as one of UTF-8.
  const chance = Buffer.from('{"a":"caf\u00c3\u00a9"}', 'latin1');
  expect(await refusalOf(chance, '; charset=latin1')).toBe(misnamed);
  expect(await refusalOf(chance, '; charset="UTF-8"')).toBe('none');
  expect(await refusalOf(Buffer.from('{"a":"cafe"}'), '; charset=latin1')).toBe('none');
  expect(await refusalOf(Buffer.from('{"a":"+AOk-"}'), '; charset=utf-7')).toBe(misnamed);
  expect((await readJsonBody(post('{"a":"caf\u00e9 \ufffd"}'), limit)).members).toEqual({ a: 'café \ufffd' });
});

test('as deep as is allowed is read', async () => {
  expect(await refusal(post(deep(999)))).toBe('none');
});

test('a length that is too large is refused before the body is read', async () => {
  const request = post(chunked('{}'), { ...json, 'content-length': '5001' });
  expect(await refusal(request)).toBe('too_large: The body is too large.');
  expect(request.bodyUsed).toBe(false);
});

test('another content type is refused, whatever the text; no body at all may be allowed', async () => {
  const words = 'bad_request: The body must be JSON, with content-type: application/json.';
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp', 'application/json-seq']) {
    for (const read of [readJsonBody, readOptionalJsonBody]) {
      expect([type, await refusal(post('{}', { 'content-type': type }), read)]).toEqual([type, words]);
    }
  }
  expect(await readOptionalJsonBody(post(undefined, {}), limit)).toEqual({ text: '', members: {} });
  expect((await readOptionalJsonBody(post('{"a":1}'), limit)).members).toEqual({ a: 1 });
});
