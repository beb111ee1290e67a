// Channel names and positions: what is valid, and nothing else.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { isChannelName, isServerChannel, namespaceOf } from '../../../src/protocol/channel.ts';
import { errorCodes } from '../../../src/protocol/codes.ts';
import { isPosition } from '../../../src/protocol/position.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';

test('1 to 128 characters of A-Z a-z 0-9 _ . : - @ / are a name, after an optional $', () => {
  const valid = ['a', 'A-Z', 'chat:42', 'user:ann@example.org', '/a/b', '$system', '_', '...', 'x'.repeat(128), ':'];
  expect(valid.filter((name) => !isChannelName(name))).toEqual([]);
  const invalid = ['', '$', '$$a', 'a$', 'a b', 'a,b', 'a\n', '\na', 'ä', 'a*', 'a\u0000', 'x'.repeat(129), '"', '\\'];
  expect(invalid.filter(isChannelName)).toEqual([]);
  expect([undefined, null, 1, {}, ['a'], new String('a')].filter(isChannelName)).toEqual([]);
});

test('a name holds nothing that JSON, a line or a list of names would take for its own', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.string({ maxLength: 4 })), (name) => {
      if (!isChannelName(name)) return;
      expect(JSON.stringify(name)).toBe(`"${name}"`);
      expect(name).not.toMatch(/[\s,]/);
      expect(name.length).toBeLessThanOrEqual(128);
    }),
    { numRuns: 5_000 },
  );
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
