// Refused connections in the log: what a line tells, and that a flood does not fill the disk.

import { expect, test } from 'bun:test';
import { RealtimeError } from '../../src/protocol/realtime-error.ts';
import { RefusalLog } from '../../src/transports/refusal-log.ts';
import { HandClock } from '../support/hub.ts';

function createLog(): { log: RefusalLog; lines: Readonly<Record<string, unknown>>[]; clock: HandClock } {
  const lines: Readonly<Record<string, unknown>>[] = [];
  const clock = new HandClock();
  const log = new RefusalLog({ write: (fields) => lines.push(fields), addressOf: () => '192.0.2.1', clock });
  return { log, lines, clock };
}

test('a line tells which check failed, and from where', () => {
  const { log, lines } = createLog();
  const request = new Request('http://a/realtime/ws?token=secret', {
    headers: { origin: `https://${'x'.repeat(500)}` },
  });
  log.note('websocket', request, new RealtimeError('unauthorized', 'The token has no "sub".'));
  expect(lines).toEqual([
    {
      transport: 'websocket',
      code: 'unauthorized',
      reason: 'The token has no "sub".',
      address: '192.0.2.1',
      origin: `https://${'x'.repeat(192)}`,
      leftOut: undefined,
    },
  ]);
});

test('a flood writes a few lines, and then how many were left out', () => {
  const { log, lines, clock } = createLog();
  const request = new Request('http://a/');
  for (let count = 0; count < 1_000; count++) log.note('sse', request, new RealtimeError('unauthorized'));
  expect(lines).toHaveLength(100);
  clock.advance(10_000);
  for (let count = 0; count < 2; count++) log.note('sse', request, new RealtimeError('unauthorized'));
  expect(lines.slice(100).map(({ leftOut }) => leftOut)).toEqual([900, undefined]);
});
