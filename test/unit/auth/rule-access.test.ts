// Who may do what by rules, token and database: every condition, and what stands above the rules.

import { describe, expect, test } from 'bun:test';
import type { DatabaseAuthorizer } from '../../../src/auth/database-authorizer.ts';
import { Decisions } from '../../../src/auth/decisions.ts';
import { readGrants } from '../../../src/auth/grants.ts';
import { RuleAccess } from '../../../src/auth/rule-access.ts';
import { anonymous, type Identity } from '../../../src/core/access.ts';
import { channelPart } from '../../../src/protocol/channel.ts';
import { actions, type Action } from '../../../src/rules/config.ts';
import { systemClock } from '../../../src/time/clock.ts';
import type { AuthorizeRequest, RuleConfig, Who } from '../../../src/rules/config.ts';
import { Rules } from '../../../src/rules/rules.ts';

function accessOf(rules: readonly RuleConfig[], isOpen = false): RuleAccess {
  const compiled = new Rules({ rules });
  return new RuleAccess(compiled, {
    isOpen,
    database: undefined,
    decisions: new Decisions(
      { clock: systemClock, decided: () => undefined, failed: () => undefined },
      () => compiled.authorize,
      { total: 500, each: 50 },
    ),
    readRules: () => Promise.resolve(compiled),
  });
}

function userOf(sub: string, claims: Record<string, unknown> = {}): Identity {
  return { user: sub, grants: readGrants(claims['channels']), claims: { sub, ...claims } };
}

const [ann, bob] = [userOf('ann', { tenant: 'a' }), userOf('bob', { tenant: 'b' })];

test('each who lets in whom it names', () => {
  const may = (who: Who | Who[], identity: Identity, isOpen = false): unknown =>
    accessOf([{ channels: 'c:{sub}', allow: { subscribe: who }, authorize: ({ user }) => user === 'bob' }], isOpen).may(
      identity,
      'subscribe',
      'c:ann',
    );
  const granted = userOf('cat', { channels: { 'c:*': ['subscribe'] } });
  const table: readonly [Who | Who[], boolean, boolean, boolean, boolean, boolean][] = [
    // who, anonymous, ann, bob, cat with a grant, anonymous where there is no key
    ['everyone', true, true, true, true, true],
    ['users', false, true, true, true, true],
    ['owner', false, true, false, false, true],
    ['token', false, false, false, true, true],
    ['authorize', false, false, true, false, false],
    ['nobody', false, false, false, false, false],
    [['owner', 'token'], false, true, false, true, true],
    [['authorize', 'token'], false, false, true, true, true],
  ];
  for (const [who, ...expected] of table) {
    const found = [may(who, anonymous), may(who, ann), may(who, bob), may(who, granted), may(who, anonymous, true)];
    expect([who, ...found]).toEqual([who, ...expected]);
  }
});

test('an action that a rule leaves out needs a grant, or its function', () => {
  const granted = userOf('ann', { channels: { '*': ['publish'] } });
  const plain = accessOf([{ channels: 'a', allow: { subscribe: 'everyone' } }]);
  expect([plain.may(granted, 'publish', 'a'), plain.may(granted, 'history', 'a')]).toEqual([true, false]);
  const asked = accessOf([
    { channels: 'a', allow: { subscribe: 'everyone' }, authorize: ({ action }) => action === 'history' },
  ]);
  expect([asked.may(granted, 'publish', 'a'), asked.may(granted, 'history', 'a')]).toEqual([false, true]);
});

function ownChannel(user: string): string {
  return `user:${channelPart(user)}`;
}

describe('an owner has all captures as claims', () => {
  const rules: RuleConfig[] = [
    { channels: 'tenant:{tenant}:{sub}', allow: { subscribe: 'owner' } },
    { channels: 'proto:{__proto__}', allow: { subscribe: 'owner' } },
    { channels: 'inherited:{toString}', allow: { subscribe: 'owner' } },
    { channels: 'number:{team}', allow: { subscribe: 'owner' } },
  ];
  const access = accessOf(rules);
  const may = (identity: Identity, channel: string): unknown => access.may(identity, 'subscribe', channel);

  test('as text, and exactly', () => {
    expect(may(ann, 'tenant:a:ann')).toBe(true);
    for (const channel of [
      'tenant:b:ann',
      'tenant:a:bob',
      'tenant:A:ann',
      'tenant:a:Ann',
      'tenant:a:ann:x',
      'tenant::ann',
    ]) {
      expect([channel, may(ann, channel)]).toEqual([channel, false]);
    }
  });

  test('a claim that the token lacks is nobody’s, whatever the others say', () => {
    expect(may(userOf('ann'), 'tenant:a:ann')).toBe(false);
    expect(may(userOf('ann', { tenant: undefined }), 'tenant:undefined:ann')).toBe(false);
    expect(may(userOf('ann', { tenant: null }), 'tenant:null:ann')).toBe(false);
    expect(may(anonymous, 'tenant:a:ann')).toBe(false);
  });

  test('numbers count as they are written; lists, objects and truths do not', () => {
    expect(may(userOf('ann', { team: 7 }), 'number:7')).toBe(true);
    for (const team of [['7'], { 7: 7 }, true, 7.5, '']) {
      for (const name of ['number:7', 'number:true', 'number:7.5', 'number:*']) {
        expect([team, name, may(userOf('ann', { team }), name)]).toEqual([team, name, false]);
      }
    }
  });

  test('names of prototypes are claims of nobody', () => {
    expect(may(ann, 'proto:x')).toBe(false);
    expect(may(ann, 'inherited:x')).toBe(false);
    const own = JSON.parse('{"__proto__": "x", "toString": "y"}') as Record<string, unknown>;
    const odd: Identity = { user: 'odd', claims: own };
    expect([may(odd, 'proto:x'), may(odd, 'inherited:y'), may(odd, 'inherited:x')]).toEqual([true, true, false]);
  });
});

describe('what stands above the rules', () => {
  const all: Who = 'everyone';
  const everything = { subscribe: all, publish: all, history: all, presence: all } as const;
  const generous = userOf('eve', { channels: { '*': [...actions], 'u*': [...actions] } });

  test('another’s own channel is closed to a rule for all and to a grant of *', () => {
    const access = accessOf([{ channels: '*', allow: everything }]);
    for (const action of actions) {
      expect([action, access.may(generous, action, 'user:ann')]).toEqual([action, false]);
      expect([action, access.may(ann, action, 'user:ann')]).toEqual([action, true]);
      expect([action, access.may(anonymous, action, 'user:null')]).toEqual([action, false]);
    }
    const odd = ['*', 'a:b', '{sub}', 'a*', '__proto__', 'auth0|7', 'a+b@x', 'Ж', '100%', '%41'];
    for (const sub of odd) {
      for (const channel of ['user:ann', 'user:*', 'user:a:b', 'user:{sub}', 'user:A', ...odd.map(ownChannel)]) {
        expect([sub, channel, access.may(userOf(sub), 'subscribe', channel)]).toEqual([
          sub,
          channel,
          channel === ownChannel(sub) || (channel === `user:${sub}` && !/[:%]/.test(sub)),
        ]);
      }
    }
  });

  test('a rule that begins with user: may open it, and then a grant that begins so counts', () => {
    const rules: RuleConfig[] = [
      { channels: 'user:{id}', allow: { subscribe: 'token', history: 'users', publish: 'nobody' } },
    ];
    const access = accessOf(rules);
    expect(access.may(generous, 'subscribe', 'user:ann')).toBe(false);
    const named = userOf('eve', { channels: { 'user:ann': ['subscribe'] } });
    expect(access.may(named, 'subscribe', 'user:ann')).toBe(true);
    expect(access.may(bob, 'history', 'user:ann')).toBe(true);
    expect(access.may(ann, 'publish', 'user:ann')).toBe(false);
    // What it says nothing of stays as it was.
    expect([access.may(ann, 'presence', 'user:ann'), access.may(bob, 'presence', 'user:ann')]).toEqual([true, false]);
  });

  test('nobody holds for one’s own channel and the server’s too', () => {
    const access = accessOf([{ channels: '*', allow: { publish: 'nobody', subscribe: 'nobody' } }]);
    expect(access.may(ann, 'publish', 'user:ann')).toBe(false);
    const named = userOf('eve', { channels: { $system: ['subscribe'] } });
    expect(access.may(named, 'subscribe', '$system')).toBe(false);
  });

  test('the server’s channels need a rule or a grant that begins with $, and are never published to', () => {
    for (const isOpen of [false, true]) {
      const access = accessOf(
        [
          { channels: '$open', allow: { subscribe: 'everyone' } },
          { channels: '*', allow: everything },
        ],
        isOpen,
      );
      expect([access.may(anonymous, 'subscribe', '$open'), access.may(anonymous, 'publish', '$open')]).toEqual([
        true,
        false,
      ]);
      expect(access.may(generous, 'subscribe', '$system')).toBe(isOpen);
      const named = userOf('eve', { channels: { '$*': [...actions] } });
      expect(access.may(named, 'subscribe', '$system')).toBe(true);
      expect(access.may(named, 'publish', '$system')).toBe(false);
    }
  });
});

test('without a token key all may do everything, but what is forbidden or asked for', () => {
  const rules: RuleConfig[] = [
    { channels: 'shut', allow: { subscribe: 'nobody' } },
    { channels: 'asked', authorize: ({ user }) => user !== null },
  ];
  const access = accessOf(rules, true);
  const may = (action: Action, channel: string): unknown => access.may(anonymous, action, channel);
  expect([may('subscribe', 'any'), may('publish', 'user:ann'), may('history', 'tenant:a')]).toEqual([true, true, true]);
  expect([may('subscribe', 'shut'), may('publish', 'shut'), may('subscribe', 'asked')]).toEqual([false, true, false]);
});

test('a function is told who asks, for what and where, and only true is a yes', async () => {
  const asked: AuthorizeRequest[] = [];
  let answer: unknown = true;
  const access = accessOf([
    {
      channels: 'chat:{room}:{thread}',
      authorize: (request) => {
        asked.push(request);
        return answer as boolean;
      },
    },
  ]);
  expect(access.may(ann, 'history', 'chat:1:2')).toBe(true);
  expect(asked).toMatchObject([
    {
      user: 'ann',
      claims: { sub: 'ann', tenant: 'a' },
      channel: 'chat:1:2',
      action: 'history',
      captures: { room: '1', thread: '2' },
    },
  ]);
  expect(access.may(anonymous, 'subscribe', 'chat:1:2')).toBe(true);
  expect(asked[1]).toMatchObject({ user: null, claims: {} });
  for (answer of [1, 'true', {}, [], undefined, null, Promise.resolve(1), Promise.resolve(null)]) {
    await access.renew(undefined);
    expect([answer, await access.may(ann, 'subscribe', 'chat:1:2')]).toEqual([answer, false]);
  }
});

test('the database is not asked whether clients may publish to the server’s channels', () => {
  const rules = new Rules({ rules: [{ channels: '*' }] });
  const decisions = new Decisions(
    { clock: systemClock, decided: () => undefined, failed: () => undefined },
    () => rules.authorize,
    { total: 500, each: 50 },
  );
  const database = { ask: () => true } as unknown as DatabaseAuthorizer;
  const access = new RuleAccess(rules, { isOpen: false, decisions, database, readRules: () => Promise.resolve(rules) });
  expect([access.may(ann, 'publish', '$system'), access.may(ann, 'publish', 'any')]).toEqual([false, true]);
});

test('an answer that a renewal has overtaken is asked for again', async () => {
  const answers = [Promise.withResolvers<boolean>(), Promise.withResolvers<boolean>()];
  let asked = 0;
  const access = accessOf([{ channels: 'a', authorize: () => answers[asked++]!.promise }]);
  const early = access.may(ann, 'publish', 'a');
  await access.renew('ann');
  answers[0]!.resolve(true);
  answers[1]!.resolve(false);
  expect(await early).toBe(false);
  expect(asked).toBe(2);
  // It is the later answer that is remembered.
  expect(access.may(ann, 'publish', 'a')).toBe(false);
});

test('of two readings of the rules the one that began later counts, whichever ends first', async () => {
  const [shut, open] = [['nobody'], ['everyone']].map(
    (subscribe) => new Rules({ rules: [{ channels: 'a', allow: { subscribe: subscribe as Who[] } }] }),
  );
  const readings: ((rules: Rules) => void)[] = [];
  const decisions = new Decisions(
    { clock: systemClock, decided: () => undefined, failed: () => undefined },
    () => open!.authorize,
    { total: 500, each: 50 },
  );
  const readRules = (): Promise<Rules> => new Promise((resolve) => readings.push(resolve));
  const access = new RuleAccess(open!, { isOpen: false, database: undefined, decisions, readRules });
  const renewals = [access.renew(undefined), access.renew(undefined)];
  readings[1]!(shut!);
  readings[0]!(open!);
  await Promise.all(renewals);
  expect(access.may(ann, 'subscribe', 'a')).toBe(false);
});

test('a grant with a capture is refused: it would match what a star does, and look as if it did not', () => {
  expect(() => readGrants({ 'room:{id}': ['subscribe'] })).toThrow('channels');
  expect(readGrants({ 'room:*': ['subscribe'] })).toHaveLength(1);
});
