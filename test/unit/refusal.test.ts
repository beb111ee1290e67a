// Whether a row is parked or comes again. A command to Redis that timed out on a busy machine was taken for a row that
// Redis refused: twenty rows were parked, and their channels had gaps that nothing had caused.

import { expect, test } from 'bun:test';
import { refusalOf } from '../../src/changes/refusal.ts';
import { TermEnded } from '../../src/core/sync-adapter.ts';
import { RealtimeError } from '../../src/protocol/realtime-error.ts';
import { DeadlineError } from '../../src/time/within.ts';

const reply = (message: string): Error => Object.assign(new Error(message), { name: 'ReplyError' });
const wrapped = (cause: unknown): Error => new RealtimeError('unavailable', undefined, { cause });

test('what the layer could not be asked, or refuses to everybody now, is no refusal of a row', () => {
  for (const error of [
    new Error('Command timed out'),
    new Error('Connection is closed.'),
    Object.assign(new Error('Reached the max retries'), { name: 'MaxRetriesPerRequestError' }),
    Object.assign(new Error('reset'), { code: 'ECONNRESET' }),
    new DeadlineError('it took over 1000 ms'),
    reply('NOTNEXT a publication before this one is missing'),
    new TermEnded(7, { cause: reply('TERMENDED 7') }),
    reply('LOADING Redis is loading the dataset in memory'),
  ]) {
    expect([error.message, refusalOf(error), refusalOf(wrapped(error))]).toEqual([error.message, undefined, undefined]);
  }
});

test('what is refused because of the row itself is named', () => {
  expect(refusalOf(wrapped(reply('ERR value is too long')))).toBe('ERR');
  expect(refusalOf(wrapped(new RangeError('Out of memory')))).toBe('RangeError');
  expect(refusalOf(new RealtimeError('bad_channel'))).toBe('bad_channel');
});
