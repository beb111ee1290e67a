// Members of an object are taken out as they were written, whatever they hold.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { isNestedTooDeeply, memberText, nestingMax, singleLine } from '../../../src/protocol/json-text.ts';

/** Objects as people and libraries write them: with spaces or without, names that need escapes, values of any shape. */
const written = fc
  .tuple(fc.dictionary(fc.oneof(fc.string(), fc.constantFrom('data', 'a"b', '__proto__')), fc.jsonValue()), fc.nat(3))
  .map(([object, indent]) => ({ object, text: JSON.stringify(object, null, indent) }));

test('a member is the text of what JSON.parse reads there', () => {
  fc.assert(
    fc.property(written, ({ object, text }) => {
      for (const name of [...Object.keys(object), 'absent', 'data']) {
        const member = memberText(text, name);
        if (!Object.hasOwn(object, name)) expect(member).toBeUndefined();
        else expect(JSON.stringify(JSON.parse(member ?? 'null'))).toBe(JSON.stringify(object[name]));
      }
    }),
    { numRuns: 2_000 },
  );
});

test('numbers keep their digits, and names their meaning', () => {
  expect(memberText('{"data":12345678901234567890}', 'data')).toBe('12345678901234567890');
  expect(memberText('{"data" : 1e400 }', 'data')).toBe('1e400');
  expect(memberText('{"a":{"data":1},"data":[{"data":2}],"z":"\\"}', 'data')).toBe('[{"data":2}]');
  expect(memberText('{"\\u0064ata":7}', 'data')).toBe('7');
  expect(memberText('{"data":1,"data":2}', 'data')).toBe('2');
  expect(memberText('{"x":"data","y":"\\\\"}', 'data')).toBeUndefined();
  expect(memberText('{}', 'data')).toBeUndefined();
});

test('depth is counted outside of strings', () => {
  const deep = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
  expect(isNestedTooDeeply(deep(nestingMax))).toBe(false);
  expect(isNestedTooDeeply(deep(nestingMax + 1))).toBe(true);
  expect(isNestedTooDeeply(JSON.stringify(deep(3 * nestingMax)))).toBe(false);
});

test('singleLine changes how JSON is written, not what it says', () => {
  const spaced = fc
    .jsonValue()
    .map((value) => ({ value, text: JSON.stringify(value, null, 2).replaceAll('\n', '\r\n') }));
  fc.assert(
    fc.property(spaced, ({ value, text }) => {
      expect(singleLine(text)).not.toMatch(/[\n\r]/);
      expect(JSON.stringify(JSON.parse(singleLine(text)))).toBe(JSON.stringify(value));
    }),
  );
});
