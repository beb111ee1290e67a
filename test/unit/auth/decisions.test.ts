// Answers of the application's deciders: remembered, shared, timed out, and failing for those alone who asked.

import { expect, test } from 'bun:test';
import { Decisions, type DecisionOutcome } from '../../../src/auth/decisions.ts';
import { HandClock, idle } from '../../support/hub.ts';

function harness(limits = { cacheSeconds: 5, timeoutMs: 50 }) {
  const clock = new HandClock();
  const outcomes: DecisionOutcome[] = [];
  const failures: { error: unknown; more: number }[] = [];
  const decisions = new Decisions(
    {
      clock,
      decided: (outcome) => outcomes.push(outcome),
      failed: (error, more) => failures.push({ error, more }),
    },
    () => limits,
    { total: 500, each: 50 },
  );
  return { clock, outcomes, failures, decisions };
}

const question = (user: string, channel = 'a') =>
  ({ identity: { user, claims: { sub: user } }, account: user, action: 'subscribe', channel }) as const;
const unavailable = expect.objectContaining({ code: 'unavailable', retryable: true }) as unknown;

test('an answer is remembered for its time, by what the token says', async () => {
  const { clock, decisions, outcomes } = harness();
  const ask = (user: string, channel = 'a') => decisions.ask(question(user, channel), () => Promise.resolve(true));
  expect(await ask('ann')).toBe(true);
  // Another connection of the same token: known, and so at once.
  expect(ask('ann')).toBe(true);
  expect(outcomes).toHaveLength(1);
  expect(ask('bob')).toBeInstanceOf(Promise);
  expect(ask('ann', 'b')).toBeInstanceOf(Promise);
  clock.advance(5_001);
  expect(ask('ann')).toBeInstanceOf(Promise);
  await idle();
  expect(outcomes).toHaveLength(4);
});

test('however many ask at once, it is asked once', async () => {
  const { decisions } = harness({ cacheSeconds: 0, timeoutMs: 1_000 });
  const answer = Promise.withResolvers<boolean>();
  let calls = 0;
  const ask = () =>
    decisions.ask(question('ann'), () => {
      calls++;
      return answer.promise;
    });
  const asked = Array.from({ length: 100 }, ask);
  answer.resolve(false);
  expect(new Set(await Promise.all(asked))).toEqual(new Set([false]));
  expect(calls).toBe(1);
});

test('no answer in time is unavailable, the signal says so, and it is not remembered', async () => {
  const { decisions, outcomes } = harness();
  let aborted = false;
  const hangs = (signal: AbortSignal) => {
    signal.addEventListener('abort', () => (aborted = true));
    return new Promise(() => undefined);
  };
  const startedAt = performance.now();
  await expect(Promise.resolve(decisions.ask(question('ann'), hangs))).rejects.toEqual(unavailable);
  expect(performance.now() - startedAt).toBeLessThan(2_000);
  expect(aborted).toBe(true);
  expect(await decisions.ask(question('ann'), () => Promise.resolve(true))).toBe(true);
  expect(outcomes).toEqual(['failed', 'allowed']);
});

test('a failure is told once in a while, with how many were not', async () => {
  const { clock, decisions, failures } = harness();
  const broken = new Error('broken');
  const fail = () => {
    throw broken;
  };
  expect(() => decisions.ask(question('ann'), fail)).toThrow(unavailable);
  for (let time = 0; time < 3; time++) {
    await expect(Promise.resolve(decisions.ask(question('ann'), () => Promise.reject(broken)))).rejects.toEqual(
      unavailable,
    );
  }
  expect(failures).toEqual([{ error: broken, more: 0 }]);
  clock.advance(30_000);
  expect(() => decisions.ask(question('ann'), fail)).toThrow();
  expect(failures[1]).toEqual({ error: broken, more: 3 });
});

test('what was asked before it is forgotten is not remembered after', async () => {
  const { decisions } = harness();
  const [before, after] = [Promise.withResolvers<boolean>(), Promise.withResolvers<boolean>()];
  const early = decisions.ask(question('ann'), () => before.promise);
  decisions.forget('bob');
  expect(decisions.ask(question('ann'), () => after.promise)).toBeInstanceOf(Promise);
  decisions.forget('ann');
  const late = decisions.ask(question('ann'), () => after.promise);
  before.resolve(true);
  expect(await early).toBe(true);
  after.resolve(false);
  expect(await late).toBe(false);
  expect(decisions.ask(question('ann'), () => Promise.resolve(true))).toBe(false);
});

test('a user whose answers take long waits for himself, and others do not', async () => {
  const { decisions } = harness({ cacheSeconds: 5, timeoutMs: 5_000 });
  const answer = Promise.withResolvers<boolean>();
  let calls = 0;
  const slow = Array.from({ length: 200 }, (_, index) =>
    decisions.ask(question('slow', `c${index}`), () => {
      calls++;
      return answer.promise;
    }),
  );
  expect(calls).toBe(50);
  expect(await decisions.ask(question('fast'), () => Promise.resolve(true))).toBe(true);
  answer.resolve(true);
  expect(new Set(await Promise.all(slow))).toEqual(new Set([true]));
  expect(calls).toBe(200);
});

test('ten thousand answers are remembered, and the oldest make room for more', () => {
  const { decisions } = harness();
  let calls = 0;
  const ask = (index: number): void => {
    void decisions.ask(question('ann', `c${index}`), () => {
      calls++;
      return true;
    });
  };
  for (let index = 0; index < 10_001; index++) ask(index);
  expect(calls).toBe(10_001);
  ask(10_000);
  ask(1);
  expect(calls).toBe(10_001);
  ask(0);
  expect(calls).toBe(10_002);
});

test('functions that throw take nobody’s turn', () => {
  const { decisions } = harness();
  const fails = () => {
    throw new Error('broken');
  };
  for (let times = 0; times < 1_000; times++) expect(() => decisions.ask(question('ann'), fails)).toThrow();
  expect(decisions.ask(question('ann'), () => true)).toBe(true);
});

test('what was asked for before a renewal, and fails after it, leaves the question alone that came since', async () => {
  const { decisions } = harness({ cacheSeconds: 5, timeoutMs: 1_000 });
  const [before, after] = [Promise.withResolvers<boolean>(), Promise.withResolvers<boolean>()];
  const early = decisions.ask(question('ann'), () => before.promise) as Promise<boolean>;
  decisions.forget('ann');
  let calls = 0;
  const ask = () =>
    decisions.ask(question('ann'), () => {
      calls++;
      return after.promise;
    });
  const late = ask();
  before.reject(new Error('broken'));
  await expect(early).rejects.toEqual(unavailable);
  const later = ask();
  after.resolve(true);
  expect(await Promise.all([late, later])).toEqual([true, true]);
  expect(calls).toBe(1);
});
