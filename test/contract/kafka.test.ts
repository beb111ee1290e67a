// The log in PostgreSQL keeps the contract with Kafka as its bus, and the database notifies nobody of it. The URL and the
// settings beside it open a server that asks who comes and what they may, and one that speaks TLS.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { Admin } from '@platformatic/kafka';
import { KafkaFailure } from '../../src/kafka/failure.ts';
import { kafkaUrlFault, parseKafkaUrl } from '../../src/kafka/target.ts';
import type { LogBus } from '../../src/sync/log-bus.ts';
import { kafkaBusAt } from '../support/kafka-harness.ts';
import { startKafka, tlsListener, type TestKafka } from '../support/kafka.ts';
import { patient } from '../support/patience.ts';
import { freePort } from '../support/postgres.ts';
import { postgresHarness } from '../support/postgres-harness.ts';
import { makeCertificates } from '../support/redis-certificates.ts';
import { until } from '../support/tcp-client.ts';
import { syncContract } from './sync-contract.ts';

patient();

let kafka: TestKafka;
let ca: string;
/** Where a user logs in, over TLS. */
let place: string;
beforeAll(async () => {
  const certificates = makeCertificates();
  ca = await Bun.file(certificates.authority).text();
  place = `127.0.0.1:${await freePort()}`;
  const { listeners, lines } = await tlsListener(place, certificates, { admin: 'p@ss', guest: 'guest' });
  const scram = 'org.apache.kafka.common.security.scram.ScramLoginModule required;';
  kafka = await startKafka({
    listeners,
    lines: [
      ...lines,
      'sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512',
      `listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=${scram}`,
      'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'super.users=User:ANONYMOUS;User:admin;User:ann',
    ],
    scramUsers: ['SCRAM-SHA-512=[name=ann,password=p@ss]'],
  });
}, 500_000);
afterAll(() => kafka.close(), 60_000);

syncContract('kafka', {
  traits: { shared: true, durable: true },
  open: () => postgresHarness((nodeId) => kafkaBusAt(kafka.url, nodeId)),
});

function openBus(url: string, told: string[], tlsCa?: string): LogBus {
  return kafkaBusAt(url, `bus${Math.random()}`, tlsCa).open({
    connected: () => told.push('connected'),
    lost: () => told.push('lost'),
    appended: (notice) => told.push(notice),
    envelope: (text) => told.push(text),
    peer: () => undefined,
  });
}

const log = { topic: 'secret', epoch: 'one' };

// It stayed on the log that it was opening for, until its own number had not come back for seconds.
test('a log that is named while the connection to another one opens is followed soon', async () => {
  const told: string[] = [];
  const [one, two] = [openBus(kafka.url, told), openBus(kafka.url, [])];
  await Promise.all([one.start(log), two.start(log)]);
  const startedAt = performance.now();
  // Into the opening, which takes some milliseconds.
  const pauses = [2, 4, 6, 8, 12, 16];
  for (const pause of pauses) {
    const next = { topic: 'secret', epoch: `after ${pause}` };
    two.follow(next);
    one.follow({ topic: 'secret', epoch: `before ${pause}` });
    await Bun.sleep(pause);
    one.follow(next);
    await until(() => {
      void two.send(`after ${pause}`).catch(() => undefined);
      return told.includes(`after ${pause}`);
    }, 'the log is heard');
  }
  expect(performance.now() - startedAt).toBeLessThan(pauses.length * 1_000);
  await Promise.all([one.close(), two.close()]);
});

test('nodes of one log hear each other, in order; nodes of another, and the one that sends, hear nothing', async () => {
  const told: string[][] = [[], [], [], []];
  const [one, two, other, far] = told.map((each) => openBus(kafka.url, each));
  if (one === undefined || two === undefined || other === undefined || far === undefined) throw new Error('not four');
  const epoch = 'another';
  await Promise.all([
    one.start(log),
    two.start(log),
    other.start({ ...log, epoch }),
    far.start({ topic: 'far', epoch }),
  ]);
  expect([one.up, told[0]]).toEqual([true, ['connected']]);
  one.tell?.('5 one');
  await Promise.all([one.send('first'), one.send('x'.repeat(1 << 20)), one.send('last')]);
  await two.send('back');
  await Promise.all([one.probe(20_000), two.probe(20_000), other.probe(20_000), far.probe(20_000)]);
  expect(told[1]?.map((text) => text.length)).toEqual(
    ['connected', '5 one', 'first', 'x'.repeat(1 << 20), 'last'].map((text) => text.length),
  );
  expect([told[0], told[2], told[3]]).toEqual([['connected', 'back'], ['connected'], ['connected']]);

  // The log is set back: whoever follows hears the others there.
  two.follow({ ...log, epoch });
  await until(() => two.up && told[1]?.at(-1) === 'connected', 'the other log is followed', 20_000);
  await other.send('there');
  await two.probe(20_000);
  expect(told[1]?.at(-1)).toBe('there');
  await Promise.all([one, two, other, far].map((bus) => bus.close()));
}, 90_000);

test('what is too large for the topic is refused alone; the connection and the others’ messages stay', async () => {
  const told: string[] = [];
  const [one, two] = [openBus(kafka.url, []), openBus(kafka.url, told)];
  await Promise.all([one.start(log), two.start(log)]);
  const answers = await Promise.allSettled([one.send('before'), one.send('x'.repeat(9 << 20)), one.send('after')]);
  expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  await two.probe(20_000);
  expect([one.up, told]).toEqual([true, ['connected', 'before', 'after']]);
  await Promise.all([one.close(), two.close()]);
}, 60_000);

test('its topic is deleted, or what a node was about to read is: it reads on from the end, and says so', async () => {
  const told: string[] = [];
  const topic = 'of a topic that is deleted';
  const [one, two] = [openBus(kafka.url, []), openBus(kafka.url, told)];
  await Promise.all([one.start({ ...log, topic }), two.start({ ...log, topic })]);
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: [kafka.broker] });
  const digest = new Bun.CryptoHasher('sha256').update(topic).digest('hex').slice(0, 32);
  await admin.deleteTopics({ topics: [`sobranie-${digest}`] });
  await until(() => told.join() === 'connected,lost,connected' && one.up, 'both read again', 40_000);
  await one.send('again');
  await two.probe(20_000);
  expect(told.at(-1)).toBe('again');
  await Promise.all([one.close(), two.close(), admin.close()]);
}, 90_000);

test('a wrong password, a way to log in that it has not, a missing right and an unknown authority are refused at once', async () => {
  const codeOf = async (url: string, tlsCa?: string): Promise<string> => {
    try {
      await openBus(url, [], tlsCa).start(log);
      return 'started';
    } catch (error) {
      return error instanceof KafkaFailure ? error.code : String(error);
    }
  };
  const tls = `kafka+ssl://admin:p%40ss@${place}`;
  expect(await codeOf(tls, ca)).toBe('started');
  expect(await codeOf(tls.replace('p%40ss', 'wrong'), ca)).toBe('SASL_AUTHENTICATION_FAILED');
  const scram = tls.replace('admin', 'ann');
  expect(await codeOf(`${scram}?sasl=scram-sha-512`, ca)).toBe('started');
  expect(await codeOf(`${scram.replace('p%40ss', 'wrong')}?sasl=scram-sha-512`, ca)).toBe('SASL_AUTHENTICATION_FAILED');
  expect(await codeOf(`${scram}?sasl=scram-sha-256`, ca)).toBe('UNSUPPORTED_SASL_MECHANISM');
  expect(await codeOf(tls.replace('admin:p%40ss', 'guest:guest'), ca)).toBe('TOPIC_AUTHORIZATION_FAILED');
  expect(await codeOf(tls)).toMatch(/SELF_SIGNED_CERT|UNABLE_TO_VERIFY|UNABLE_TO_GET/);
}, 90_000);

test('what is no URL of Kafka is told without showing it', () => {
  for (const text of [
    '',
    'host:9092',
    'redis://host',
    'kafka://',
    'kafka://a b',
    'kafka://a:%zz@h',
    'kafka://zz@h',
    'kafka://h:0',
    'kafka://h/a',
    'kafka://h?sasl=plain',
    'kafka://u:p@h?sasl=zz',
    'kafka://u:p@h?zz=1',
    'kafka://h,kafka+ssl://i',
    'kafka://u:p@h,kafka://u:zz@i',
  ]) {
    expect([text, typeof kafkaUrlFault(text)]).toEqual([text, 'string']);
    expect(kafkaUrlFault(text)).not.toContain('zz');
  }
  expect(parseKafkaUrl('kafka://h')).toEqual({ brokers: ['h:9092'], tls: false, account: undefined });
  expect(parseKafkaUrl('kafka+ssl://u:p%40s@[::1]:1,i/?sasl=scram-sha-256')).toEqual({
    brokers: ['[::1]:1', 'i:9092'],
    tls: true,
    account: { mechanism: 'SCRAM-SHA-256', username: 'u', password: 'p@s' },
  });
  expect(parseKafkaUrl('kafka://u:p@h:1,kafka://i:2').brokers).toEqual(['h:1', 'i:2']);
});
