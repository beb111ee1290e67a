// Who is let in: what was true when a visitor came is looked at again in the moment in which the visitor enters, and whoever
// guesses tokens is counted.

import { expect, test } from 'bun:test';
import { anonymous } from '../../../src/core/access.ts';
import type { Failures } from '../../../src/core/failures.ts';
import { Slices } from '../../../src/core/slices.ts';
import type { Limits } from '../../../src/core/limits.ts';
import { Origins } from '../../../src/http/origins.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { Admission, type AdmissionOptions } from '../../../src/transports/admission.ts';
import type { RefusalLog } from '../../../src/transports/refusal-log.ts';
import { silentObserver, unlimited } from '../../support/doubles.ts';

const query = new URLSearchParams('token=guessed');
const request = new Request('http://127.0.0.1/realtime/ws');

function admissionOf(options: Partial<AdmissionOptions>): Admission {
  return new Admission({
    sessions: { size: 0 } as AdmissionOptions['sessions'],
    slices: new Slices(1_000),
    limits: unlimited,
    observer: silentObserver,
    failures: {} as Failures,
    authenticate: () => anonymous,
    origins: new Origins(undefined),
    connectionsMax: 10,
    isShuttingDown: () => false,
    addressOf: () => '203.0.113.9',
    refusals: {} as RefusalLog,
    ...options,
  });
}

test('a node that fills up, or begins to shut down, while a visitor is counted lets it in no more', async () => {
  for (const [fills, code] of [
    [true, 'limit_exceeded'],
    [false, 'shutting_down'],
  ] as const) {
    const counted = Promise.withResolvers<void>();
    const sessions = { size: 9 };
    let isShuttingDown = false;
    let opened = 0;
    const admission = admissionOf({
      sessions: sessions as AdmissionOptions['sessions'],
      limits: { ...unlimited, countConnections: () => counted.promise } satisfies Limits,
      isShuttingDown: () => isShuttingDown,
    });
    const admitting = Promise.resolve(admission.admit(request, query, () => void opened++));
    if (fills) sessions.size = 10;
    else isShuttingDown = true;
    counted.resolve();
    await expect(admitting).rejects.toMatchObject({ code });
    expect(opened).toBe(0);
  }
});

test('a token that is refused counts for the address that showed it, and no other failure does', async () => {
  for (const [code, counts] of [
    ['unauthorized', 1],
    ['token_expired', 0],
    ['unavailable', 0],
  ] as const) {
    const failed: unknown[] = [];
    const admission = admissionOf({
      limits: { ...unlimited, authenticationFailed: (address: string | undefined) => void failed.push(address) },
      authenticate: () => Promise.reject(new RealtimeError(code)),
    });
    await expect(Promise.resolve(admission.admit(request, query, () => undefined))).rejects.toMatchObject({ code });
    expect([code, failed]).toEqual([code, Array.from({ length: counts }, () => '203.0.113.9')]);
  }
});
