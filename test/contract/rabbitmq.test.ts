// The log in PostgreSQL keeps the contract with RabbitMQ as its bus, and the database notifies nobody of it. The URL and
// the settings beside it open a server that asks who comes, and one that speaks TLS.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { plainCause } from '../../src/app/causes.ts';
import { RabbitLine } from '../../src/rabbitmq/line.ts';
import { parseRabbitUrl, rabbitUrlFault } from '../../src/rabbitmq/target.ts';
import type { LogBus } from '../../src/sync/log-bus.ts';
import { patient } from '../support/patience.ts';
import { postgresHarness } from '../support/postgres-harness.ts';
import { rabbitBusAt } from '../support/rabbitmq-harness.ts';
import { startRabbit, type TestRabbit } from '../support/rabbitmq.ts';
import { makeCertificates } from '../support/redis-certificates.ts';
import { syncContract } from './sync-contract.ts';

patient();

let rabbit: TestRabbit;
let ca: string;
beforeAll(async () => {
  const certificates = makeCertificates();
  ca = await Bun.file(certificates.authority).text();
  rabbit = await startRabbit(certificates);
}, 500_000);
afterAll(() => rabbit.close(), 60_000);

syncContract('rabbitmq', {
  traits: { shared: true, durable: true },
  open: () => postgresHarness((nodeId) => rabbitBusAt(rabbit.url, nodeId)),
});

function openBus(url: string, told: string[], tlsCa?: string): LogBus {
  return rabbitBusAt(url, `bus${Math.random()}`, tlsCa).open({
    connected: () => told.push('connected'),
    lost: () => told.push('lost'),
    appended: (notice) => told.push(notice),
    envelope: (text) => told.push(text),
    peer: () => undefined,
  });
}

const log = { topic: 'secret', epoch: 'one' };

test('nodes of one log hear each other, in order; nodes of another, and the one that sends, hear nothing', async () => {
  const told: string[][] = [[], [], []];
  const [one, two, other] = told.map((each) => openBus(rabbit.url, each));
  if (one === undefined || two === undefined || other === undefined) throw new Error('there are not three');
  await Promise.all([one.start(log), two.start(log), other.start({ ...log, epoch: 'another' })]);
  expect([one.up, told[0]]).toEqual([true, ['connected']]);
  one.tell?.('5 one');
  await Promise.all([one.send('first'), one.send('x'.repeat(1 << 20)), one.send('last')]);
  await two.send('back');
  await Promise.all([one.probe(10_000), two.probe(10_000), other.probe(10_000)]);
  expect(told[1]?.map((text) => text.length)).toEqual(
    ['connected', '5 one', 'first', 'x'.repeat(1 << 20), 'last'].map((text) => text.length),
  );
  expect([told[0], told[2]]).toEqual([['connected', 'back'], ['connected']]);

  // The log is set back: whoever follows hears the others there.
  two.follow({ ...log, epoch: 'another' });
  await waitFor(() => two.up && told[1]?.at(-1) === 'connected');
  await other.send('there');
  await two.probe(10_000);
  expect(told[1]?.at(-1)).toBe('there');
  await Promise.all([one, two, other].map((bus) => bus.close()));
}, 60_000);

test('there is room again for what RabbitMQ has confirmed, however much it was', async () => {
  const bus = openBus(rabbit.url, []);
  await bus.start({ ...log, topic: 'room' });
  // A third more than may wait.
  for (let sent = 0; sent < 43; sent++) await bus.send('x'.repeat(1 << 20));
  await bus.close();
}, 60_000);

// A node that RabbitMQ did not let in ended with a stack of the driver's, and nothing said what to mend.
test('a wrong password, virtual host or authority, a missing right and a port without TLS are told in plain words', async () => {
  const causeOf = async (url: string, tlsCa?: string): Promise<string | undefined> => {
    const bus = openBus(url, [], tlsCa);
    try {
      await bus.start(log);
      await bus.close();
      return 'started';
    } catch (error) {
      return plainCause(error) ?? String(error);
    }
  };
  await rabbit.addUser('narrow', 'p@ss', '^elsewhere');
  const other = await Bun.file(makeCertificates().authority).text();
  expect(await causeOf(rabbit.tlsUrl, ca)).toBe('started');
  expect(await causeOf(rabbit.tlsUrl)).toBe('its certificate is not trusted');
  expect(await causeOf(rabbit.tlsUrl, other)).toBe('its certificate is not trusted');
  expect(await causeOf(rabbit.url.replace('amqp:', 'amqps:'))).toBe('it offers no TLS at that port');
  expect(await causeOf(rabbit.url.replace('guest:guest', 'guest:p%40ss'))).toBe('the password or user name is wrong');
  expect(await causeOf(rabbit.url.replace('guest:guest', 'narrow:p%40ss'))).toBe('a right is missing');
  // A bus would wait for it: while RabbitMQ starts, it answers the same.
  const heard = { prepare: () => Promise.resolve(), lost: () => undefined, blocked: () => undefined };
  const opening = new RabbitLine().open(parseRabbitUrl(`${rabbit.url}/none`), 'test', heard);
  expect(plainCause(await opening.catch((error: unknown) => error))).toStartWith('the virtual host does not exist');
}, 90_000);

test('what is no URL of RabbitMQ is told without showing it', () => {
  for (const text of [
    '',
    'host:5672',
    'redis://host',
    'amqp://',
    'amqp://a b',
    'amqp://a%zz@h',
    'amqp://h:0',
    'amqp://h/a/b',
  ]) {
    expect([text, typeof rabbitUrlFault(text)]).toEqual([text, 'string']);
    expect(rabbitUrlFault(text)).not.toContain('zz');
  }
  expect(parseRabbitUrl('amqp://h')).toMatchObject({ port: 5_672, username: 'guest', password: 'guest', vhost: '/' });
  expect(parseRabbitUrl('amqps://u:p%40s@[::1]/a%2Fb')).toMatchObject({
    hostname: '::1',
    port: 5_671,
    password: 'p@s',
    vhost: 'a/b',
  });
  expect(parseRabbitUrl('amqp://u@h:1/').vhost).toBe('/');
});

async function waitFor(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(5);
}
