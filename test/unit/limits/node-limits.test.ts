// All limits of a node together: who is counted with whom, what a refusal says, and that everything is given back.

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import type { Caller } from '../../../src/core/limits.ts';
import { NodeLimits, type NodeLimitsOptions } from '../../../src/limits/node-limits.ts';
import { HandClock } from '../../support/hub.ts';

function createLimits(given: Partial<NodeLimitsOptions> = {}): { limits: NodeLimits; clock: HandClock } {
  const clock = new HandClock();
  const limits = new NodeLimits({
    commandsPerMinute: 0,
    subscribesPerMinute: 0,
    connectionsPerUser: 0,
    connectionsPerAddress: 0,
    connectsPerSecondPerAddress: 0,
    authFailuresPerMinutePerAddress: 0,
    sharedBy: () => undefined,
    whole: { nodes: () => 1, connections: () => Promise.resolve(0) },
    clock,
    ...given,
  });
  return { limits, clock };
}

function caller(id: string, user: string | null): Caller {
  return { id, identity: { user } };
}

test('a user’s connections share one allowance, anonymous ones have one each', () => {
  const { limits } = createLimits({ commandsPerMinute: 2 });
  const ann = [caller('1', 'ann'), caller('2', 'ann')] as const;
  expect([limits.command(ann[0]), limits.command(ann[1])]).toEqual([undefined, undefined]);
  const refusal = { kind: 'commands', code: 'rate_limited', retryAfter: 60, isAbuse: false } as const;
  expect(limits.command(ann[0])).toEqual(refusal);
  expect(limits.command(caller('3', 'bob'))).toBeUndefined();
  const nobody = [caller('4', null), caller('5', null)] as const;
  for (const one of nobody) expect([limits.command(one), limits.command(one)]).toEqual([undefined, undefined]);
  expect(limits.command(nobody[1])).toEqual(refusal);
  // A user who is named like a connection is not that connection.
  expect(limits.command(caller('9', '5'))).toBeUndefined();
});

// It passed, for the price of the whole limit: a user with 5 a minute could publish to 100 channels.
test('what is more than the limit at once is refused, costs nothing, and promises no time', () => {
  const { limits } = createLimits({ commandsPerMinute: 5 });
  const ann = caller('1', 'ann');
  const refusal = { kind: 'commands', code: 'limit_exceeded', retryAfter: undefined, isAbuse: false } as const;
  expect(limits.command(ann, 6)).toEqual(refusal);
  expect(limits.command(ann, 5)).toBeUndefined();
});

// Heartbeats and subscribing used up what a user may say: 30 channels and five reconnects a minute made a page mute.
test('messages, channels and the rest are counted apart', () => {
  const { limits } = createLimits({ commandsPerMinute: 2, subscribesPerMinute: 5 });
  const ann = caller('1', 'ann');
  for (let ping = 0; ping < 1_000; ping++) expect(limits.command(ann, 1, 'others')).toBeUndefined();
  expect(limits.subscribe(ann, 3)).toEqual({ count: 3, refusal: undefined });
  expect([limits.command(ann), limits.command(ann)]).toEqual([undefined, undefined]);
  const refusal = { kind: 'subscribes', code: 'rate_limited', retryAfter: 60, isAbuse: false } as const;
  expect(limits.subscribe(caller('2', 'ann'), 3)).toEqual({ count: 2, refusal });
  expect(limits.subscribe(caller('3', null), 5)).toEqual({ count: 5, refusal: undefined });
  for (let ping = 1_000; ping < 10_000; ping++) void limits.command(ann, 1, 'others');
  expect(limits.command(ann, 1, 'others')).toMatchObject({ kind: 'commands', isAbuse: false });
  expect(limits.command(caller('2', 'ann'), 1, 'others')).toBeUndefined();
  for (const id of ['1', '2', '3']) limits.left(caller(id, id === '3' ? null : 'ann'));
  // What is a user's is kept until the minute is over.
  expect(limits.size).toBe(2);
});

test('leaving and coming back gives a user nothing anew', () => {
  const { limits } = createLimits({ commandsPerMinute: 1 });
  void limits.command(caller('1', 'ann'));
  limits.left(caller('1', 'ann'));
  expect(limits.command(caller('2', 'ann'))).toBeDefined();
});

test('who goes on to ten times the limit within a window is abusive, and begins anew in the next', () => {
  const { limits, clock } = createLimits({ commandsPerMinute: 5 });
  const ann = caller('1', 'ann');
  const refusals = Array.from({ length: 60 }, () => limits.command(ann)).map((answer) => {
    if (answer instanceof Promise) throw new Error('asked somebody');
    return answer?.isAbuse;
  });
  expect(refusals.slice(0, 5)).toEqual(Array.from({ length: 5 }, () => undefined));
  expect(refusals.slice(5, 55).some((isAbuse) => isAbuse !== false)).toBe(false);
  expect(refusals[55]).toBe(true);
  clock.advance(60_000);
  expect(limits.command(ann)).toBeUndefined();
});

test('connects of a few seconds may come at once, then so many a second', () => {
  const { limits, clock } = createLimits({ connectsPerSecondPerAddress: 2 });
  for (let attempt = 0; attempt < 10; attempt++) expect(limits.arrival('192.0.2.1')).toBeUndefined();
  expect(limits.arrival('192.0.2.1')).toMatchObject({ kind: 'connects', code: 'rate_limited', retryAfter: 5 });
  expect(limits.arrival('192.0.2.2')).toBeUndefined();
  clock.advance(5_000);
  expect(limits.arrival('192.0.2.1')).toBeUndefined();
});

test('an address whose tokens fail is heard no more until the minute is over', () => {
  const { limits, clock } = createLimits({ authFailuresPerMinutePerAddress: 3 });
  for (let guess = 0; guess < 4; guess++) {
    expect(limits.authentication('192.0.2.1')).toBeUndefined();
    limits.authenticationFailed('192.0.2.1');
  }
  expect(limits.authentication('192.0.2.1')).toMatchObject({ kind: 'authentications', retryAfter: 60 });
  expect(limits.authentication('192.0.2.2')).toBeUndefined();
  clock.advance(60_000);
  expect(limits.authentication('192.0.2.1')).toBeUndefined();
});

test('limits that are off keep nothing', () => {
  const { limits } = createLimits();
  for (let id = 0; id < 100; id++) {
    const one = caller(String(id), id % 2 === 0 ? 'ann' : null);
    void limits.command(one);
    void limits.arrival('192.0.2.1');
    limits.authenticationFailed('192.0.2.1');
    limits.joined(one, '192.0.2.1');
    expect(limits.connection(one.identity, '192.0.2.1')).toBeUndefined();
  }
  expect(limits.size).toBe(0);
});

test('whatever opens and closes in whatever order: the counts are those of what is open, and none is left', () => {
  const users = [null, 'ann', 'bob', 'x'.repeat(5_000), '__proto__'];
  const addresses = [undefined, '192.0.2.1', '192.0.2.2'];
  const action = fc.record({ user: fc.nat(4), address: fc.nat(2), closes: fc.boolean(), which: fc.nat() });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 400 }), (actions) => {
      const { limits } = createLimits({ connectionsPerUser: 5, connectionsPerAddress: 8 });
      const open: { caller: Caller; address: string | undefined }[] = [];
      const count = (fits: (each: (typeof open)[number]) => boolean): number => open.filter(fits).length;
      for (const [id, { user: userIndex, address: addressIndex, closes, which }] of actions.entries()) {
        if (closes) {
          const [gone] = open.splice(which % Math.max(1, open.length), 1);
          if (gone !== undefined) limits.left(gone.caller);
          continue;
        }
        const user = users[userIndex] ?? null;
        const address = addresses[addressIndex];
        const isFull =
          (user !== null && count((each) => each.caller.identity.user === user) >= 5) ||
          (address !== undefined && count((each) => each.address === address) >= 8);
        const refusal = limits.connection({ user }, address);
        expect(refusal?.code).toBe(isFull ? 'limit_exceeded' : undefined);
        if (refusal !== undefined) continue;
        const one = { caller: caller(String(id), user), address };
        limits.joined(one.caller, address);
        open.push(one);
      }
      for (const { caller: one } of open) limits.left(one);
      expect(limits.size).toBe(0);
    }),
  );
});
