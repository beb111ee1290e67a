// Which failures of NATS a start waits for. A cluster that was not whole for a moment ended the node that came then.

import { expect, test } from 'bun:test';
import { JetStreamApiError } from '@nats-io/jetstream';
import { isPassing } from '../../../src/sync/nats/failure.ts';

const answer = (description: string): JetStreamApiError =>
  new JetStreamApiError({ code: 400, err_code: 10_005, description });

test('a member of the cluster that is away comes back, one that was never there does not', () => {
  expect(isPassing(answer('no suitable peers for placement, peer offline'))).toBe(true);
  expect(isPassing(answer('no suitable peers for placement, insufficient storage'))).toBe(false);
});
