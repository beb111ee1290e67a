// What ends a connection that begins without TLS says nothing, and the start said no more than that it was lost.

import { expect, test } from 'bun:test';
import { engines } from '../../../src/app/engines.ts';
import { engineFault } from '../../../src/app/start-fault.ts';
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
