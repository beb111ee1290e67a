// What ends a connection that begins without TLS says nothing, and the start said no more than that it was lost.

import { errors } from '@nats-io/transport-node';
import { expect, test } from 'bun:test';
import { engines } from '../../../src/app/engines.ts';
import { engineFault } from '../../../src/app/start-fault.ts';
import { accessFailure } from '../../../src/nats/failure.ts';
import { readSettings } from '../../../src/settings/settings.ts';

const lost = Object.assign(new Error('Connection closed'), { code: 'ECONNRESET' });

function said(sync: string, name: string, url: string): string {
  const settings = readSettings({ DATABASE_URL: 'postgres://app@127.0.0.1/app', SYNC: sync, [name]: url }, engines);
  return String(engineFault(lost, settings, engines));
}

test('a lost connection may need TLS, and the URL that would speak it is named', () => {
  for (const [sync, name, plain, tls] of [
    ['kafka', 'KAFKA_URL', 'kafka://h:9092', 'kafka+ssl://h:9092'],
    ['rabbitmq', 'RABBITMQ_URL', 'amqp://h:5672', 'amqps://h:5671'],
    ['nats', 'NATS_URL', 'nats://h:4222', 'tls://h:4222'],
    ['redis', 'REDIS_URL', 'redis://h:6379', 'rediss://h:6379'],
  ] as const) {
    const begin = `begin ${name} with ${tls.replace(/h:.*/, '')}`;
    expect([sync, said(sync, name, plain)]).toEqual([sync, expect.stringContaining(begin)]);
    expect([sync, said(sync, name, tls)]).toEqual([sync, expect.not.stringContaining('begin ')]);
  }
  expect(said('redis', 'REDIS_URL', 'rediss+cluster://h:6379')).not.toContain('begin ');
});

// An operator read "Rabbitmq", and of a NATS without TLS or with another password what the driver said.
test('an engine is named as its makers write it, and what lasts has its advice', () => {
  for (const [sync, name, url, title] of [
    ['kafka', 'KAFKA_URL', 'kafka://h:9092', 'Kafka'],
    ['rabbitmq', 'RABBITMQ_URL', 'amqp://h:5672', 'RabbitMQ'],
    ['nats', 'NATS_URL', 'nats://h:4222', 'NATS'],
    ['redis', 'REDIS_URL', 'redis://h:6379', 'Redis'],
  ] as const) {
    expect(said(sync, name, url)).toContain(`${title} at h:`);
  }
  const settings = { DATABASE_URL: 'postgres://app@127.0.0.1/app', SYNC: 'nats', NATS_URL: 'tls://ann:secret@h' };
  const ofNats = (error: Error): string =>
    String(engineFault(accessFailure(error), readSettings(settings, engines), engines));
  const untold = ofNats(new errors.ConnectionError(`server does not support 'tls'`));
  expect(untold).toContain('NATS at h (NATS_URL): it offers no TLS at that port.');
  expect(untold).toContain('begin NATS_URL without TLS');
  expect(ofNats(new errors.AuthorizationError('Authorization Violation'))).toContain('it does not let this user in.');
});
