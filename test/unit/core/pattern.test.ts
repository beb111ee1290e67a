// Patterns: whole names, one way to read each, the same in JavaScript's regular expressions, and never slow.

import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { ChannelPattern } from '../../../src/rules/pattern.ts';

const captured = (pattern: string, channel: string): object => ({ ...new ChannelPattern(pattern).capture(channel) });

test('a capture is one whole part', () => {
  expect(captured('user:{sub}', 'user:ann')).toEqual({ sub: 'ann' });
  expect(captured('tenant:{tenant}:orders:{id}', 'tenant:a:orders:7')).toEqual({ tenant: 'a', id: '7' });
  expect(captured('{a}:*', 'x:y:z')).toEqual({ a: 'x' });
  expect(captured('*:{a}', 'x:y:z')).toEqual({ a: 'z' });
  for (const [pattern, name] of [
    ['user:{sub}', 'user:'],
    ['user:{sub}', 'user:a:b'],
    ['user:{sub}', 'User:a'],
    ['user:{sub}', 'xuser:a'],
    ['tenant:{tenant}:orders', 'tenant::orders'],
    ['files/{tenant}/{name}', 'files/a/b/c'],
  ] as const) {
    expect([pattern, name, new ChannelPattern(pattern).matches(name)]).toEqual([pattern, name, false]);
    expect(captured(pattern, name)).toEqual({});
  }
});

test('a / separates parts where the pattern has one, and is a character like any other elsewhere', () => {
  expect(captured('files/{tenant}/{name}', 'files/a/b')).toEqual({ tenant: 'a', name: 'b' });
  expect(captured('doc:{path}', 'doc:a/b')).toEqual({ path: 'a/b' });
});

// A tenant named `a:b` could not be told from the channel b of the tenant a.
test('a capture is the value that became its part', () => {
  expect(captured('tenant:{tenant}:orders', 'tenant:a%3Ab:orders')).toEqual({ tenant: 'a:b' });
  expect(captured('user:{sub}', 'user:auth0%7C7')).toEqual({ sub: 'auth0|7' });
  // What is not UTF-8 became of no value: it is shown as it is, and equals nothing.
  expect(captured('user:{sub}', 'user:%FF')).toEqual({ sub: '%FF' });
  expect(new ChannelPattern('user:{sub}').everyCapture('user:%FF', () => true)).toBe(false);
});

test('names of prototypes are names', () => {
  const found = new ChannelPattern('{__proto__}:{constructor}').capture('a:b');
  expect(Object.getPrototypeOf(found)).toBeNull();
  expect(Object.entries(found)).toEqual([
    ['__proto__', 'a'],
    ['constructor', 'b'],
  ]);
});

test('without captures a pattern matches what its regular expression does', () => {
  const text = (max: number) => fc.stringMatching(new RegExp(`^[ab.:*]{1,${max}}$`));
  const name = fc.stringMatching(/^[ab.:]{1,12}$/);
  fc.assert(
    fc.property(text(8), name, (pattern, channel) => {
      const compiled = new ChannelPattern(pattern);
      expect(compiled.matches(channel)).toBe(new RegExp(compiled.source).test(channel));
    }),
    { numRuns: 5_000 },
  );
});

test('many * take no longer than few', () => {
  const pattern = new ChannelPattern(`${'*a'.repeat(60)}*b`);
  const startedAt = performance.now();
  for (let round = 0; round < 1_000; round++) expect(pattern.matches('a'.repeat(128))).toBe(false);
  expect(performance.now() - startedAt).toBeLessThan(2_000);
});

describe('which patterns meet', () => {
  const meets = (a: string, b: string): boolean => new ChannelPattern(a).mayMeet(new ChannelPattern(b));
  const covers = (a: string, b: string): boolean => new ChannelPattern(a).covers(new ChannelPattern(b));

  test('those that no name can match both do not', () => {
    expect(meets('a:*', 'b:*')).toBe(false);
    expect(meets('a', 'b')).toBe(false);
    expect(meets('a:{x}', 'a:b:c')).toBe(false);
    expect(meets('a:*', 'a:b')).toBe(true);
    expect(meets('*', 'a:{x}')).toBe(true);
  });

  test('one that surely matches all that another does covers it', () => {
    expect(covers('*', '$a:{x}')).toBe(true);
    expect(covers('a:*', 'a:{x}:b')).toBe(true);
    expect(covers('a:{x}', 'a:{x}')).toBe(true);
    expect(covers('a:*b', 'a:b')).toBe(false);
    expect(covers('a:{x}', 'a:b')).toBe(false);
    expect(covers('a:*', 'a')).toBe(false);
  });
});
