// An authority for the broker of a source alone stopped the start: its engine's URL was not set, and so used no TLS.

import { expect, test } from 'bun:test';
import { authorityFaults } from '../../../src/app/broker-tls.ts';
import { engines } from '../../../src/app/engines.ts';
import { namedSources, type SourceConfig } from '../../../src/rules/source-config.ts';
import { readSettings, type Environment } from '../../../src/settings/settings.ts';
import { makeCertificates } from '../../support/redis-certificates.ts';

const { authority } = makeCertificates();

function faults(environment: Environment, ...sources: readonly SourceConfig[]): readonly string[] {
  const settings = readSettings({ DATABASE_URL: 'postgres://app@127.0.0.1/app', ...environment }, engines);
  return authorityFaults(settings, namedSources(sources), engines);
}

test('an authority is a fault where neither the URL of its engine nor that of a source uses TLS', () => {
  for (const [name, setting, plain, tls] of [
    ['REDIS', 'redisStream', 'redis://h', 'rediss+sentinel://h/master'],
    ['NATS', 'nats', 'nats://h', 'tls://h'],
    ['RABBITMQ', 'rabbitmq', 'amqp://h', 'amqps://h'],
    ['KAFKA', 'kafka', 'kafka://h', 'kafka+ssl://h'],
  ] as const) {
    const ca = { [`${name}_TLS_CA`]: authority };
    const source = (url: string): SourceConfig =>
      ({ [setting]: { [setting === 'redisStream' ? 'key' : 'subject']: 'x', channel: 'x', url } }) as never;
    const refused = [expect.stringContaining(`${name}_TLS_CA is set and ${name}_URL uses no TLS: begin it with `)];
    expect(faults(ca)).toEqual(refused);
    expect(faults({ ...ca, [`${name}_URL`]: plain })).toEqual(refused);
    expect(faults({ ...ca, [`${name}_URL`]: plain }, source(plain))).toEqual(refused);
    expect(faults({ ...ca, [`${name}_URL`]: tls })).toEqual([]);
    expect(faults({ ...ca, [`${name}_URL`]: plain }, source(tls))).toEqual([]);
    expect(faults(ca, source(tls))).toEqual([]);
    expect(faults({ [`${name}_URL`]: plain }, source(plain))).toEqual([]);
  }
});
