// What the client writes and reads by itself, held against the server's own code: cursors, numbers, the types of frames.

import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import type { Change, DataOf, ErrorCode, Gap, GapReason, Message, Position, Sobranie } from '@sobranie/client';
import { cursorOf } from '../../packages/client/src/cursor.ts';
import { parseExact, printExact } from '../../packages/client/src/exact-json.ts';
import type * as wire from '../../packages/client/src/protocol.ts';
import type * as codes from '../../src/protocol/codes.ts';
import { decodeCursor } from '../../src/protocol/cursor.ts';
import type * as frames from '../../src/protocol/frames.ts';
import { seed } from '../support/random.ts';

test(`the server reads the client's cursors, seed ${seed}`, () => {
  const channel = fc.stringMatching(/^[a-z0-9:]{1,20}$/);
  const position = fc.record({ epoch: fc.constantFrom('k3f9a0', 'p7d2xx'), offset: fc.maxSafeNat() });
  fc.assert(
    fc.property(fc.dictionary(channel, position, { minKeys: 1, maxKeys: 50 }), (positions) => {
      const cursor = decodeCursor(cursorOf(new Map(Object.entries(positions))) ?? '');
      for (const [name, { epoch, offset }] of Object.entries(positions)) {
        expect(cursor?.entry(name, epoch)).toEqual({ kind: 'offset', offset });
        expect(cursor?.entry(name, 'another')).toEqual({ kind: 'epoch_changed' });
      }
    }),
    { seed },
  );
  expect(cursorOf(new Map())).toBeUndefined();
});

describe('numbers', () => {
  const cases: [string, unknown, unknown][] = [
    ['9007199254740991', 9007199254740991, 9007199254740991],
    ['9007199254740993', '9007199254740993', 9007199254740993n],
    ['-9223372036854775808', '-9223372036854775808', -9223372036854775808n],
    ['1.10', 1.1, 1.1],
    ['0.1', 0.1, 0.1],
    ['0.12345678901234567890', '0.12345678901234567890', '0.12345678901234567890'],
    ['123456789.123456789', '123456789.123456789', '123456789.123456789'],
    ['1e3', 1000, 1000],
    ['1.5e300', 1.5e300, 1.5e300],
    ['1e400', '1e400', '1e400'],
    ['-0.0000001', -1e-7, -1e-7],
    ['100000000000000000000.00', 1e20, 1e20],
  ];
  test.each(cases)('%s', (text, asString, asBigint) => {
    const [json, array] = [`{"a":${text}}`, `["${text}","\\"${text}",${text}]`];
    expect(parseExact(json, 'string')).toEqual({ a: asString });
    expect(parseExact(json, 'bigint')).toEqual({ a: asBigint });
    expect(parseExact(array, 'string')).toEqual([text, `"${text}`, asString]);
    expect(parseExact(array, 'bigint')).toEqual([text, `"${text}`, asBigint]);
  });

  test('a large decimal that is exact stays a number', () => {
    expect(parseExact('[1234567890.25, 0.30000000000000004]', 'string')).toEqual([1234567890.25, 0.30000000000000004]);
  });

  test(`no integer is ever rounded, and no other value is touched, seed ${seed}`, () => {
    // Integers of a double that is past 2^53 are such numbers too.
    const isRounded = (value: unknown): boolean => Number.isInteger(value) && !Number.isSafeInteger(value);
    const value = fc.jsonValue().map((json) => JSON.stringify(json, (_key, each) => (isRounded(each) ? 0 : each)));
    fc.assert(
      fc.property(value, fc.bigInt(), fc.constantFrom('#', '##', '"#1', '#12345678901234567890'), (json, big, odd) => {
        const text = `[${json},${big},${JSON.stringify(odd)}]`;
        const exact = big >= -(2n ** 53n - 1n) && big <= 2n ** 53n - 1n ? Number(big) : big;
        expect(parseExact(text, 'bigint')).toEqual([JSON.parse(json), exact, odd]);
        expect(printExact({ big })).toBe(`{"big":${big}}`);
      }),
      { seed },
    );
  });
});

// The types below are the test: they do not compile when they differ.

type Same<One, Other> = [One] extends [Other] ? ([Other] extends [One] ? true : false) : false;
const isTrue = <Fact extends true>(): Fact => true as Fact;

test('codes and frames are those of the server', () => {
  isTrue<Same<ErrorCode, codes.ErrorCode>>();
  isTrue<Same<GapReason, codes.GapReason>>();
  const read = (frame: frames.ServerFrame): wire.ServerFrame => frame;
  const readGap = (gap: frames.GapFrame): Gap => gap;
  const readMessage = (message: frames.MessageFrame): Message => message;
  const readPosition = (frame: frames.GapFrame): Position => frame;
  expect([read, readGap, readMessage, readPosition]).toHaveLength(4);
});

test('channels carry what they were declared to', () => {
  interface Post {
    readonly title: string;
  }
  interface Chat {
    readonly text: string;
  }
  type Declared = { posts: Change<Post>; 'chat:*': Chat; 'tenant:*:orders': number };
  isTrue<Same<DataOf<Declared, 'posts'>, Change<Post>>>();
  isTrue<Same<DataOf<Declared, 'chat:42'>, Chat>>();
  isTrue<Same<DataOf<Declared, 'tenant:7:orders'>, number>>();
  isTrue<Same<DataOf<Record<string, unknown>, 'anything'>, unknown>>();
  const use = (client: Sobranie<Declared>): void => {
    client.channel('chat:42').subscribe(({ data }) => data.text);
    // @ts-expect-error no channel of this name was declared
    client.channel('chatter:42');
    // @ts-expect-error this is not what the channel carries
    void client.channel('chat:42').publish({ title: '' });
  };
  expect(use).toBeFunction();
});
