// Channel rules: the first match wins, patterns match whole names, and every fault is told at once.

import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { configFaults } from '../../../src/core/rule-faults.ts';
import { Rules, type RealtimeConfig } from '../../../src/core/rules.ts';

test('the first rule that matches decides, and a channel that none names is kept', () => {
  const rules = new Rules({
    rules: [
      { channels: 'chat:*:typing', recoverable: false },
      { channels: 'chat:*', history: { size: 7 } },
      { channels: '$system', history: { seconds: 5 } },
    ],
  });
  expect(rules.for('chat:1:typing')).toMatchObject({ recoverable: false, historySize: 0, historySeconds: 0 });
  expect(rules.for('chat:1')).toMatchObject({ recoverable: true, historySize: 7, historySeconds: 3_600 });
  expect(rules.for('$system')).toMatchObject({ recoverable: true, historySize: 1_000, historySeconds: 5 });
  expect(rules.for('other')).toMatchObject({ recoverable: true, historySize: 1_000, historySeconds: 3_600 });
});

test('patterns match whole names, and only * is special', () => {
  const matches = (pattern: string, name: string) =>
    new Rules({ rules: [{ channels: pattern, history: { size: 1 } }] }).for(name).historySize === 1;
  expect(matches('a.c', 'abc')).toBe(false);
  expect(matches('a.c', 'a.c')).toBe(true);
  expect(matches('a', 'ab')).toBe(false);
  expect(matches('a', 'ba')).toBe(false);
  expect(matches('a/*', 'a/')).toBe(true);
  expect(matches('$*', '$nodes')).toBe(true);
  expect(matches('$*', 'nodes')).toBe(false);
  expect(matches('*', '$nodes')).toBe(true);
});

test('a pattern without * matches its own name alone', () => {
  const name = fc.stringMatching(/^\$?[A-Za-z0-9_.:\-@/]{1,20}$/);
  fc.assert(
    fc.property(name, name, (pattern, other) => {
      const rules = new Rules({ rules: [{ channels: pattern, history: { size: 1 } }] });
      expect(rules.for(pattern).historySize).toBe(1);
      expect(rules.for(other).historySize === 1).toBe(other === pattern);
    }),
  );
});

describe('faults', () => {
  const faulty: [string, RealtimeConfig, number][] = [
    ['no rules', { rules: [] }, 1],
    ['no pattern', { rules: [{ channels: '' }] }, 1],
    ['a space', { rules: [{ channels: 'a b' }] }, 1],
    ['a size of 0', { rules: [{ channels: '*', history: { size: 0 } }] }, 1],
    ['half a second', { rules: [{ channels: '*', history: { seconds: 0.5 } }] }, 1],
    ['three at once', { rules: [{ channels: '?', history: { size: -1, seconds: 1e12 } }] }, 3],
  ];
  test.each(faulty)('%s', (_title, config, count) => {
    expect(configFaults(config)).toHaveLength(count);
    expect(() => new Rules(config)).toThrow('realtime.config.ts');
  });
});
