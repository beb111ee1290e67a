// Health answers: `/health/ready` said only "failed", and "draining: ok" of a node that did not drain.

import { expect, test } from 'bun:test';
import { HealthFault, plainCause, tellingCause } from '../../../src/app/causes.ts';
import { Health } from '../../../src/app/health.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { createLogger } from '../../../src/app/logger.ts';
import { HandClock } from '../../support/hub.ts';

function stage() {
  const clock = new HandClock();
  const lines: string[] = [];
  const log = createLogger({ level: 'info', format: 'json', write: (line) => lines.push(line) });
  let drainingSince: number | undefined;
  const health = new Health({ clock, drainingSince: () => drainingSince, log, timeoutMs: 100 });
  return { clock, lines, health, drain: () => (drainingSince = clock.now()) };
}

const coded = (code: string, cause?: unknown): Error =>
  Object.assign(new Error('db.internal:5432', { cause }), { code });

test('a check says since when it is as it is, and what failed last, in words without addresses', async () => {
  const { clock, lines, health } = stage();
  let failure: Error | undefined;
  health.add('database', () => (failure === undefined ? Promise.resolve() : Promise.reject(failure)));
  const begin = new Date(clock.now()).toISOString();
  expect(await health.ready()).toEqual({
    status: 'ok',
    checks: { database: { ok: true, since: begin, age: 0, lastError: undefined } },
  });
  clock.advance(60_000);
  failure = coded('ECONNREFUSED');
  await health.ready();
  const failedAt = new Date(clock.now()).toISOString();
  clock.advance(7_000);
  const { status, checks } = await health.ready();
  expect([status, checks['database']?.ok, checks['database']?.since]).toEqual(['unavailable', false, failedAt]);
  expect(checks['database']?.lastError?.message).toBe('the connection is refused: nothing listens at that address');
  failure = undefined;
  await health.ready();
  clock.advance(3_000);
  const recovered = await health.ready();
  expect(recovered.status).toBe('ok');
  expect(recovered.checks['database']?.since).toBe(new Date(clock.now() - 3_000).toISOString());
  expect(recovered.checks['database']?.lastError?.at).toBe(new Date(clock.now() - 3_000).toISOString());
  // The log has one line for each change, with what anyone may not read.
  expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual([
    'not ready: database: the connection is refused: nothing listens at that address',
    'ready again: database',
  ]);
  expect(lines[0]).toContain('db.internal');
});

test('started, live and ready are three things', async () => {
  const { health, drain } = stage();
  let works = false;
  health.add('sync', () => (works ? Promise.resolve() : Promise.reject(new Error('secret'))));
  expect(health.live().status).toBe('ok');
  expect((await health.started()).status).toBe('starting');
  expect((await health.ready()).checks['sync']?.lastError?.message).toBe('it failed: the log says why');
  works = true;
  expect((await health.ready()).checks).not.toHaveProperty('draining');
  expect((await health.started()).status).toBe('ok');
  works = false;
  expect((await health.ready()).status).toBe('unavailable');
  expect((await health.started()).status).toBe('ok');
  works = true;
  drain();
  const draining = await health.ready();
  expect(draining).toMatchObject({ status: 'draining', checks: { sync: { ok: true }, draining: { ok: false } } });
  expect((await health.started()).status).toBe('ok');
  expect(health.live().status).toBe('ok');
});

test('where a check saw only that no answer came, what the part noticed of it is the cause', async () => {
  const { clock, health } = stage();
  health.add('sync', () => new Promise(() => undefined));
  health.hint('sync', new Error('Redis could not be reached', { cause: new Error('NOAUTH Authentication required.') }));
  expect((await health.ready()).checks['sync']?.lastError?.message).toBe('it wants a password');
  clock.advance(60_000);
  expect((await health.ready()).checks['sync']?.lastError?.message).toBe('no answer in time');
});

test('answers that are asked for at once share one run', async () => {
  const { health } = stage();
  let runs = 0;
  health.add('sync', async () => {
    runs++;
    await Bun.sleep(1);
  });
  await Promise.all(Array.from({ length: 100 }, () => health.ready()));
  expect(runs).toBe(1);
});

test('causes are found below what wraps them', () => {
  expect(plainCause(new Error('x', { cause: coded('28P01') }))).toBe('the password is wrong');
  expect(plainCause(new Error('x', { cause: new HealthFault('the relay stands still') }))).toBe(
    'the relay stands still',
  );
  expect(plainCause(new Error('ERR max number of clients reached'))).toBe('it has no room for another client');
  // Of what the driver says of itself, too; it tells less than what went before.
  const late = new Error('wrapped', { cause: new Error('Command timed out') });
  expect([plainCause(late), tellingCause(late)]).toEqual(['no answer in time', undefined]);
  expect(plainCause(new RealtimeError('unavailable'))).toBe('there is no connection to it now');
  expect(plainCause(new Error('Something else'))).toBeUndefined();
  expect(plainCause('text')).toBeUndefined();
});
