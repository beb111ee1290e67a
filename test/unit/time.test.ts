// Deadlines and pauses between tries.

import { describe, expect, test } from 'bun:test';
import { backoffCeilingMs, backoffMs } from '../../src/time/backoff.ts';
import { RealtimeError } from '../../src/protocol/realtime-error.ts';
import { isPassingFailure } from '../../src/time/patiently.ts';
import { DeadlineError, isDoneWithin, within } from '../../src/time/within.ts';

const never = new Promise<never>(() => undefined);

describe('within', () => {
  test('answers what the promise answers', async () => {
    expect(await within(Promise.resolve('value'), 10_000, 'it')).toBe('value');
    await expect(within(Promise.reject(new RangeError('its own')), 10_000, 'it')).rejects.toThrow(RangeError);
  });

  test('rejects after the deadline, and says what took how long', async () => {
    const started = performance.now();
    const error: unknown = await within(never, 20, 'the answer').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(DeadlineError);
    expect((error as Error).message).toBe('the answer took over 20 ms');
    expect(performance.now() - started).toBeGreaterThan(15);
  });

  test('a failure after the deadline is nobody’s: it ends no process', async () => {
    const late = Promise.withResolvers<never>();
    const unhandled: unknown[] = [];
    const notice = (reason: unknown): void => void unhandled.push(reason);
    process.on('unhandledRejection', notice);
    try {
      await within(late.promise, 1, 'it').catch(() => 'late');
      late.reject(new Error('too late'));
      await new Promise((resolve) => setImmediate(resolve));
      expect(unhandled).toEqual([]);
    } finally {
      process.off('unhandledRejection', notice);
    }
  });

  // A timer that is left running keeps a process alive as long as the deadline, here for a minute.
  test('leaves no timer behind', async () => {
    const file = JSON.stringify(`${import.meta.dir}/../../src/time/within.ts`);
    const program = `const { within, isDoneWithin } = await import(${file});
      await within(Promise.resolve(), 60_000, 'it');
      await within(Promise.reject(new Error()), 60_000, 'it').catch(() => 0);
      await isDoneWithin(Promise.resolve(), 60_000);`;
    const child = Bun.spawn([process.execPath, '-e', program], { stdio: ['ignore', 'ignore', 'inherit'] });
    try {
      expect(await isDoneWithin(child.exited, 30_000)).toBe(true);
      expect(child.exitCode).toBe(0);
    } finally {
      child.kill('SIGKILL');
    }
  });
});

test('isDoneWithin tells whether the promise was fulfilled in time, and rejects as it does', async () => {
  expect(await isDoneWithin(Promise.resolve(false), 10_000)).toBe(true);
  expect(await isDoneWithin(never, 5)).toBe(false);
  await expect(isDoneWithin(Promise.reject(new RangeError('its own')), 10_000)).rejects.toThrow(RangeError);
});

// Starts ended at once for what passed a second later: a Redis that was about to be promoted, was full, or whose
// Sentinels were away.
test('a failure that may pass is told from one that does not', () => {
  const failure = (message: string, fields: object = {}): Error => Object.assign(new Error(message), fields);
  const passing = [
    failure("READONLY You can't write against a read only replica."),
    failure("OOM command not allowed when used memory > 'maxmemory'."),
    failure('MISCONF Redis is configured to save RDB snapshots'),
    failure('NOREPLICAS Not enough good replicas to write.'),
    failure('BUSY Redis is busy running a script.'),
    failure('All sentinels are unreachable. Retrying from scratch after 1ms. Last error: connect ECONNREFUSED'),
    failure('Failed to refresh slots cache.', { lastNodeError: failure('Command timed out') }),
    failure('None of startup nodes is available'),
    failure('could not resize shared memory', { code: '53100' }),
    failure('too many connections for role "app"', { code: '08P01' }),
    new RealtimeError('unavailable'),
    new Error('wrapped', { cause: failure('LOADING Redis is loading the dataset in memory') }),
  ];
  const lasting = [
    failure('WRONGPASS invalid username-password pair'),
    failure(
      'All sentinels are unreachable. Retrying from scratch after 1ms. Last error: NOAUTH Authentication required.',
    ),
    failure('Failed to refresh slots cache.', { lastNodeError: failure('NOAUTH Authentication required.') }),
    failure('database "none" does not exist', { code: '3D000' }),
    failure('unsupported startup parameter: work_mem', { code: '08P01' }),
    failure('SASL authentication failed', { code: '08P01' }),
    new RealtimeError('unavailable', undefined, { cause: failure('password', { code: '28P01' }) }),
    new RealtimeError('bad_request'),
    'no error',
  ];
  expect(passing.filter((error) => !isPassingFailure(error))).toEqual([]);
  expect(lasting.filter(isPassingFailure)).toEqual([]);
});

describe('backoff', () => {
  const range = { firstMs: 100, maxMs: 2_000 };
  const always = (value: number) => ({ random: () => value });

  test('the ceiling doubles with each failure, up to the maximum, and stays there however many follow', () => {
    const ceilings = [0, 1, 2, 3, 4, 5, 6, 100, 5_000].map((index) => backoffCeilingMs(index, range));
    expect(ceilings).toEqual([100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000, 2_000]);
  });

  test('the pause is drawn from nothing up to the ceiling', () => {
    expect(backoffMs(3, range, always(0))).toBe(0);
    expect(backoffMs(3, range, always(0.5))).toBe(400);
    expect(backoffMs(5_000, range, always(0.75))).toBe(1_500);
  });
});
