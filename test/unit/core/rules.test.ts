// Channel rules: the first match wins, patterns match whole names, and every fault is told at once.

import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { configFaults } from '../../../src/rules/faults.ts';
import type { RealtimeConfig, RuleConfig } from '../../../src/rules/config.ts';
import { Rules } from '../../../src/rules/rules.ts';
import type { SourceConfig, SourceMessage } from '../../../src/rules/source-config.ts';

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

describe('channels that connections join by themselves', () => {
  const joined = (claims: Record<string, unknown>, ...more: RuleConfig[]): readonly string[] =>
    new Rules({
      rules: [
        ...more,
        { channels: 'user:{sub}', join: 'always' },
        { channels: 'tenant:{tenant}:user:{sub}', join: 'always' },
        { channels: 'news', join: 'always' },
        { channels: 'other:{sub}' },
      ],
    }).joined(claims);

  test('have the token’s claims in the place of the captures, each as one part of the name', () => {
    expect(joined({ sub: 'ann', tenant: 7 })).toEqual(['user:ann', 'tenant:7:user:ann', 'news']);
    expect(joined({ sub: 'a:b ü' })).toEqual(['user:a%3Ab%20%C3%BC', 'news']);
  });

  test('are left out where a claim is missing, no value, or inherited; and where the name would be too long', () => {
    expect(joined({})).toEqual(['news']);
    for (const sub of ['', null, true, 0.5, ['ann'], {}, 'x'.repeat(300)]) expect(joined({ sub })).toEqual(['news']);
    expect(joined(Object.create({ sub: 'ann' }) as Record<string, unknown>)).toEqual(['news']);
  });

  test('are left out where an earlier rule decides about the name', () => {
    expect(joined({ sub: 'ann' }, { channels: 'user:a*' })).toEqual(['news']);
    expect(joined({ sub: 'ann' }, { channels: 'user:ann' })).toEqual(['news']);
    expect(joined({ sub: 'bob' }, { channels: 'user:ann' })).toEqual(['user:bob', 'news']);
  });
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

describe('each fault is told with its rule and member', () => {
  // As a file may hold them that was never type-checked.
  const rule = (members: object): unknown => ({ rules: [{ channels: 'a:{sub}', ...members }] });
  const allow = (who: unknown): unknown => rule({ allow: { subscribe: who } });
  const faulty: readonly [string, unknown, string][] = [
    ['no object', 'rules', 'the configuration is not an object'],
    ['nothing', undefined, 'the configuration is not an object'],
    ['no rules', { rules: [] }, 'rules: at least one rule'],
    ['rules that are no list', { rules: {} }, 'rules: at least one rule'],
    ['an unknown member', { rules: [{ channels: '*' }], rule: 1 }, 'rule: there is no such member'],
    ['a rule that is no object', { rules: ['*'] }, 'rules[0]: is not an object'],
    ['no pattern', { rules: [{}] }, 'rules[0].channels: is not'],
    ['an empty pattern', { rules: [{ channels: '' }] }, 'rules[0].channels: "" is not'],
    ['a space', { rules: [{ channels: 'a b' }] }, 'rules[0].channels: "a b" is not'],
    ['an unclosed capture', { rules: [{ channels: 'a:{b' }] }, 'rules[0].channels: "a:{b" is not'],
    ['a capture without a name', { rules: [{ channels: 'a:{}' }] }, 'rules[0].channels: "a:{}": {} is not a capture'],
    ['a capture with a bad name', { rules: [{ channels: 'a:{b-c}' }] }, '{b-c} is not a capture'],
    ['a capture twice', { rules: [{ channels: '{a}:{a}' }] }, 'each capture has a name of its own'],
    ['half a part captured', { rules: [{ channels: 'a-{b}' }] }, 'a capture is a whole part'],
    ['two captures in one part', { rules: [{ channels: '{a}{b}' }] }, 'a capture is a whole part'],
    ['a capture beside *', { rules: [{ channels: '*{a}' }] }, 'a capture is a whole part'],
    ['captures between two *', { rules: [{ channels: '*:{a}:*' }] }, 'one "*" at most'],
    ['a misspelled member of a rule', rule({ historySize: 5 }), 'rules[0].historySize: there is no such member'],
    ['a word for true', rule({ recoverable: 'yes' }), 'rules[0].recoverable: is not true or false'],
    ['a number as history', rule({ history: 5 }), 'rules[0].history: is not an object'],
    ['an unknown member of history', rule({ history: { age: 5 } }), 'rules[0].history.age: there is no such member'],
    ['a size of 0', rule({ history: { size: 0 } }), 'rules[0].history.size: 0 is not a whole number'],
    ['half a second', rule({ history: { seconds: 0.5 } }), 'rules[0].history.seconds: 0.5 is not'],
    [
      'history of an ephemeral channel',
      rule({ recoverable: false, history: { size: 1 } }),
      'rules[0].history: ephemeral',
    ],
    ['allow as a word', rule({ allow: 'everyone' }), 'rules[0].allow: is not an object'],
    ['an unknown action', rule({ allow: { read: 'users' } }), 'rules[0].allow.read: there is no such member'],
    ['an unknown who', allow('admins'), 'rules[0].allow.subscribe: "admins" is none of'],
    ['a who that is no text', allow([true]), 'rules[0].allow.subscribe: true is none of'],
    ['a who from the prototype', allow('toString'), 'rules[0].allow.subscribe: "toString" is none of'],
    ['an empty list of who', allow([]), "rules[0].allow.subscribe: names no one; write 'nobody'"],
    ['nobody and somebody', allow(['nobody', 'users']), "rules[0].allow.subscribe: 'nobody' stands alone"],
    ['authorize without a function', allow('authorize'), "'authorize' needs the function rules[0].authorize"],
    [
      'owner without a capture',
      { rules: [{ channels: 'a:*', allow: { history: 'owner' } }] },
      "'owner' needs a capture",
    ],
    ['publish to $', { rules: [{ channels: '$a', allow: { publish: 'users' } }] }, 'clients never publish to'],
    ['authorize that is no function', rule({ authorize: true }), 'rules[0].authorize: is not a function'],
    ['no member at all', rule({ membersMax: 0 }), 'rules[0].membersMax: 0 is not a whole number'],
    ['a join of no word', rule({ join: 'sometimes' }), `rules[0].join: "sometimes" is not 'always'`],
    [
      'a join of many channels',
      { rules: [{ channels: 'a:*', join: 'always' }] },
      "rules[0].join: 'always' needs one channel",
    ],
    ['no subscriber at all', rule({ subscribersMax: 0 }), 'rules[0].subscribersMax: 0 is not a whole number'],
    ['authorize as a number', { authorize: 5, rules: [{ channels: '*' }] }, 'authorize: is not an object'],
    [
      'a cache without end',
      { authorize: { cacheSeconds: 1e9 }, rules: [{ channels: '*' }] },
      'authorize.cacheSeconds: ',
    ],
    ['no time to answer', { authorize: { timeoutMs: 0 }, rules: [{ channels: '*' }] }, 'authorize.timeoutMs: 0 is not'],
    ['an unknown option', { authorize: { ttl: 5 }, rules: [{ channels: '*' }] }, 'authorize.ttl: there is no such'],
    [
      'a rule that nothing reaches',
      { rules: [{ channels: 'a:*' }, { channels: 'b' }, { channels: 'a:{sub}:c' }] },
      'rules[2].channels: "a:{sub}:c" is never reached: rules[0]',
    ],
  ];
  test.each(faulty)('%s', (_title, config, fault) => {
    const faults = configFaults(config as RealtimeConfig);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toContain(fault);
    expect(() => new Rules(config as RealtimeConfig)).toThrow('realtime.config.ts');
  });

  test('all of them at once', () => {
    const config = {
      rules: [
        { channels: '?', history: { size: -1, seconds: 1e12 } },
        { channels: 'b', allow: { publish: 'all' }, subscribersMax: '5' },
      ],
    };
    expect(
      configFaults(config as unknown as RealtimeConfig).map((fault) => fault.slice(0, fault.indexOf(': '))),
    ).toEqual([
      'rules[0].channels',
      'rules[0].history.size',
      'rules[0].history.seconds',
      'rules[1].subscribersMax',
      'rules[1].allow.publish',
    ]);
  });
});

describe('a change of how logs are kept is named', () => {
  const before: readonly RuleConfig[] = [
    { channels: 'ephemeral:*', recoverable: false },
    { channels: '*', history: { size: 100 } },
  ];
  const changes = (...rules: RuleConfig[]): string[] => new Rules({ rules }).logChanges(new Rules({ rules: before }));

  test('rights and limits are none', () => {
    expect(changes(...before)).toEqual([]);
    expect(changes({ ...before[0]!, allow: { publish: 'users' } }, { ...before[1]!, subscribersMax: 5 })).toEqual([]);
  });

  test('a new rule whose channels are kept as they were is none', () => {
    expect(changes({ channels: 'chat:{room}', history: { size: 100 } }, ...before)).toEqual([]);
    expect(changes({ channels: 'ephemeral:typing', recoverable: false }, ...before)).toEqual([]);
  });

  test('whatever is kept otherwise is named', () => {
    expect(changes({ channels: 'chat:{room}', history: { size: 5 } }, ...before)).toEqual(['chat:{room}']);
    expect(changes({ channels: 'ephemeral:kept', history: { size: 100 } }, ...before)).toEqual(['ephemeral:kept']);
    expect(changes(before[0]!, { channels: '*', history: { size: 200 } })).toEqual(['*']);
    expect(changes(before[1]!)).toEqual(['*']);
  });
});

test('sources that a configuration adds, changes or leaves out are named', () => {
  const before: readonly SourceConfig[] = [
    { kafka: { topic: 'same', channel: ({ key }) => `of:${key}` } },
    { kafka: { topic: 'moved', channel: 'a' } },
    { redisStream: { key: 'gone', channel: 'a' } },
  ];
  const rules = [{ channels: '*' }];
  const changes = (...sources: SourceConfig[]): string[] =>
    new Rules({ rules, sources }).sourceChanges(new Rules({ rules, sources: before }));
  expect(changes(...before)).toEqual([]);
  const same = { kafka: { topic: 'same', channel: ({ key }: SourceMessage) => `of:${key}` } };
  expect(changes(same, { kafka: { topic: 'moved', channel: 'b' } }, { nats: { stream: 'new', channel: 'a' } })).toEqual(
    ['kafka:moved', 'redisStream:gone', 'nats:new'],
  );
  expect(changes({ ...same, kafka: { ...same.kafka, channel: () => null } }, ...before.slice(1))).toEqual([
    'kafka:same',
  ]);
});
