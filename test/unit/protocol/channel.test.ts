// Channel names and positions: what is valid, and nothing else.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { channelPart, isChannelName, isServerChannel, namespaceOf, partValue } from '../../../src/protocol/channel.ts';
import { errorCodes } from '../../../src/protocol/codes.ts';
import { isPosition } from '../../../src/protocol/position.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';

test('1 to 256 characters of A-Z a-z 0-9 _ . : - @ / and %XX are a name, after an optional $', () => {
  const plain = ['a', 'A-Z', 'chat:42', 'user:ann@example.org', '/a/b', '$system', '_', '...', 'x'.repeat(256), ':'];
  const valid = [...plain, '%20', 'user:auth0%7Cx', 'a%2bb', '%00'.repeat(85)];
  expect(valid.filter((name) => !isChannelName(name))).toEqual([]);
  const invalid = ['', '$', '$$a', 'a$', 'a b', 'a,b', 'a\n', '\na', 'ä', 'a*', 'a\u0000', 'x'.repeat(257), '"', '\\'];
  expect([...invalid, '%', 'a%2', '%zz', '%%20', 'a%2:0', '100%'].filter(isChannelName)).toEqual([]);
  expect([undefined, null, 1, {}, ['a'], new String('a')].filter(isChannelName)).toEqual([]);
});

test('a name holds nothing that JSON, a line or a list of names would take for its own', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.string({ maxLength: 4 })), (name) => {
      if (!isChannelName(name)) return;
      expect(JSON.stringify(name)).toBe(`"${name}"`);
      expect(name).not.toMatch(/[\s,]/);
      expect(name.length).toBeLessThanOrEqual(256);
    }),
    { numRuns: 5_000 },
  );
});

// Ids such as `auth0|7`, `a+b@x` or those of other alphabets could connect, and had no channel of their own.
test('any value is one part of a name, from which it can be read back', () => {
  const parts = [
    'ann',
    'ann@example.org',
    'a/b',
    'auth0|7',
    'a+b@x',
    'two words',
    'a:b',
    '100%',
    '%7C',
    'Ж',
    '👩',
    "(!'*~)",
  ];
  expect(parts.map(channelPart)).toEqual([
    ...['ann', 'ann@example.org', 'a/b', 'auth0%7C7', 'a%2Bb@x', 'two%20words', 'a%3Ab', '100%25', '%257C'],
    ...['%D0%96', '%F0%9F%91%A9', '%28%21%27%2A%7E%29'],
  ]);
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }), (value) => {
      const part = channelPart(value);
      expect(partValue(part)).toBe(value);
      expect(part).toMatch(/^(?:[\w.\-@/]|%[0-9A-F]{2})+$/);
    }),
    { numRuns: 5_000 },
  );
  // Half of a pair is no text; where it comes in all the same, it is one part as well.
  expect(partValue(channelPart('a\ud800'))).toBe('a\ufffd');
});

test('several parts have no value, nor has what is not UTF-8; other spellings of a value are read alike', () => {
  expect(['a:b', ':', 'a:', '%FF', '%C3', 'a%E0%A4%A'].map(partValue)).toEqual(Array(6).fill(undefined));
  expect(['a%2bb', '%61', '%3A', ''].map(partValue)).toEqual(['a+b', 'a', ':', '']);
});

test('the namespace is what stands before the first colon', () => {
  const names = ['chat:42', 'a:b:c', 'plain', ':x', '$system', '__proto__:x'];
  expect(names.map(namespaceOf)).toEqual(['chat', 'a', 'plain', '', '$system', '__proto__']);
});

test('names that begin with $ are the server’s own', () => {
  expect(['$a', 'a', 'a$', ''].map(isServerChannel)).toEqual([true, false, false, false]);
});

test('a position is an epoch of at most 64 characters and a safe offset from 0', () => {
  expect([0, 1, Number.MAX_SAFE_INTEGER].every((offset) => isPosition({ epoch: 'e', offset }))).toBe(true);
  expect(
    [-1, 0.5, NaN, Infinity, 2 ** 53, '1', null, undefined].some((offset) => isPosition({ epoch: 'e', offset })),
  ).toBe(false);
  expect([undefined, null, 1, 'x'.repeat(65)].some((epoch) => isPosition({ epoch, offset: 1 }))).toBe(false);
  expect([undefined, null, 'e', 1, []].some(isPosition)).toBe(false);
});

test('an error carries its code’s text, status and whether a retry can help; details stay inside', () => {
  for (const [code, { message, status, retryable }] of Object.entries(errorCodes)) {
    const error = new RealtimeError(code as keyof typeof errorCodes, undefined, { cause: new Error('secret') });
    expect(error.body()).toEqual({ code: code as keyof typeof errorCodes, message, retryable });
    expect(error.status).toBe(status);
    expect(JSON.stringify(error.body())).not.toContain('secret');
  }
  expect(new RealtimeError('rate_limited', undefined, { retryAfter: 3 }).body()).toMatchObject({ retryAfter: 3 });
});
