// A node that started just when another broker had become the leader gave up at once: Kafka's answer, that it knows its
// newest offset in a moment, counted as one that lasts.

import { AuthenticationError, NetworkError, ProtocolError } from '@platformatic/kafka';
import { expect, test } from 'bun:test';
import { isPassing, KafkaFailure } from '../../src/kafka/failure.ts';

test('what Kafka may answer differently later passes; a missing right, a wrong password and a certificate do not', () => {
  const failure = (error: Error): KafkaFailure => new KafkaFailure(error, 'Kafka cannot be used');
  for (const name of ['OFFSET_NOT_AVAILABLE', 'NOT_ENOUGH_REPLICAS', 'KAFKA_STORAGE_ERROR', 'LEADER_NOT_AVAILABLE']) {
    const { code, message } = failure(new ProtocolError(name));
    expect([code, isPassing(failure(new ProtocolError(name)))]).toEqual([name, true]);
    expect(message).toStartWith('Kafka cannot be used: ');
  }
  for (const name of ['TOPIC_AUTHORIZATION_FAILED', 'POLICY_VIOLATION', 'UNSUPPORTED_VERSION']) {
    expect([name, isPassing(failure(new ProtocolError(name)))]).toEqual([name, false]);
  }
  expect(isPassing(failure(new AuthenticationError('no')))).toBe(false);
  const untrusted = Object.assign(new Error('unable to verify'), { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' });
  expect(isPassing(failure(new NetworkError('failed', { cause: untrusted })))).toBe(false);
  const refused = Object.assign(new Error('refused'), { code: 'ECONNREFUSED' });
  expect(isPassing(failure(new NetworkError('failed', { cause: refused })))).toBe(true);
});
