// A topic of Kafka as a source, on a real broker: alone, and to many browsers.

import { Admin, Producer } from '@platformatic/kafka';
import { afterAll, expect, test } from 'bun:test';
import { startKafka, type TestKafka } from '../support/kafka.ts';
import type { RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { patient } from '../support/patience.ts';
import { Crowd } from './crowd.ts';
import { metric, SourceStage, testSource } from './source-contract.ts';

patient();

let started: Promise<TestKafka> | undefined;
const theKafka = (): Promise<TestKafka> => (started ??= startKafka());

afterAll(async () => (await theKafka()).close(), 60_000);

testSource('kafka', async () => {
  const kafka = await theKafka();
  const options = { clientId: 'test', bootstrapBrokers: [kafka.broker] };
  const open = (): Producer => {
    const producer = new Producer({ ...options, retries: 20 });
    producer.connections.on('connecting', ({ connection }) => connection.on('error', () => undefined));
    return producer;
  };
  let producer = open();
  return {
    config: (what) => `kafka: { topic: '${what}', group: 'watchers', url: '${kafka.url}'`,
    prepare: async (what) => {
      const admin = new Admin(options);
      await admin.createTopics({ topics: [what], partitions: 1, replicas: 1 });
      await admin.close();
    },
    send: async (what, bodies) => {
      const messages = bodies.map((body) => ({ topic: what, partition: 0, value: Buffer.from(body) }));
      await producer.send({ messages, acks: -1 });
    },
    startsFast: false,
    kill9: () => kafka.kill9(),
    start: async () => {
      await kafka.start();
      await producer.close();
      producer = open();
    },
    close: () => producer.close(),
  };
});

const long = process.env['LONG'] === '1';

test('a topic to a crowd of browsers, and one of the two nodes that read it is killed -9', async () => {
  const kafka = await theKafka();
  const partitions = 4;
  const { browsers, channels, perSecond, count } = long
    ? { browsers: 1_000, channels: 200, perSecond: 5_000, count: 100_000 }
    : { browsers: 50, channels: 10, perSecond: 1_000, count: 2_000 };
  const options = { clientId: 'crowd', bootstrapBrokers: [kafka.broker] };
  const admin = new Admin(options);
  await admin.createTopics({ topics: ['live'], partitions, replicas: 1 });
  await admin.close();
  const stage = await SourceStage.open(
    `{ kafka: { topic: 'live', url: '${kafka.url}', channel: ({ key }) => 'customer:' + key } }`,
    { MAX_CONNECTIONS: '15000' },
  );
  await Promise.all([stage.startNode(), stage.startNode()]);
  const reads = (node: RunningServer): Promise<string | undefined> =>
    metric(node, 'sobranie_source_partitions{source="kafka:live"}');
  await until(
    async () => (await Promise.all(stage.nodes.map(reads))).join() === '2,2',
    'each node reads two of the partitions',
    60_000,
    50,
  );
  const crowd = await Crowd.open(() => stage.nodes, browsers, channels);
  const producer = new Producer({ ...options, retries: 20 });
  const startedAt = performance.now();
  const sent = Array.from({ length: channels }, () => 0);
  const messageOf = (place: number): { topic: string; partition: number; key: Buffer; value: Buffer } => {
    const channel = place % channels;
    const value = JSON.stringify({ n: ++sent[channel]!, at: Date.now() });
    return {
      topic: 'live',
      partition: channel % partitions,
      key: Buffer.from(String(channel)),
      value: Buffer.from(value),
    };
  };
  const produce = async (from: number, end: number): Promise<void> => {
    const some = perSecond / 20;
    for (let place = from; place < end; place += some) {
      const messages = Array.from({ length: Math.min(some, end - place) }, (_, each) => messageOf(place + each));
      await producer.send({ messages, acks: -1 });
      const aheadMs = (place / perSecond) * 1_000 - (performance.now() - startedAt);
      if (aheadMs > 0) await Bun.sleep(aheadMs);
    }
  };
  await produce(0, count / 2);
  const [victim] = stage.nodes;
  const killing = stage.kill(victim!);
  await produce(count / 2, count);
  await killing;
  const producedMs = performance.now() - startedAt;
  await crowd.reaches(sent);
  if (long) {
    const rate = Math.round(count / (producedMs / 1_000));
    const told = `${browsers} browsers, ${rate} messages/s produced, ${crowd.deliveries} deliveries; ${crowd.delays()}`;
    process.stdout.write(`${told}\n`);
  }
  expect(crowd.faults).toEqual([]);
  expect(await stage.sql`select count(*)::int as parked from realtime.parked`).toMatchObject([{ parked: 0 }]);
  await crowd.close();
  await producer.close();
  await stage.close();
}, 300_000);

test('what a producer took back is not published; a tombstone is parked', async () => {
  const kafka = await theKafka();
  const options = { clientId: 'undone', bootstrapBrokers: [kafka.broker] };
  const admin = new Admin(options);
  await admin.createTopics({ topics: ['undone'], partitions: 1, replicas: 1 });
  await admin.close();
  const stage = await SourceStage.open(`{ kafka: { topic: 'undone', url: '${kafka.url}', channel: 'undone' } }`);
  await stage.startNode();
  const producer = new Producer({ ...options, idempotent: true, transactionalId: 'undone', acks: -1 });
  for (const [value, commits] of [
    ['1', true],
    ['2', false],
    ['3', false],
    ['4', true],
  ] as const) {
    const transaction = await producer.beginTransaction();
    await transaction.send({ messages: [{ topic: 'undone', value: Buffer.from(value) }] });
    await (commits ? transaction.commit() : transaction.abort());
  }
  await producer.close();
  const plain = new Producer(options);
  await plain.send({ messages: [{ topic: 'undone' }, { topic: 'undone', value: Buffer.from('5') }], acks: -1 });
  await plain.close();
  await until(async () => (await stage.logged('undone')) >= 3, 'the last one is logged', 60_000, 20);
  expect(await stage.log('undone')).toEqual([1, 4, 5]);
  expect(await stage.sql`select error from realtime.parked`).toMatchObject([
    { error: expect.stringContaining('the body is not JSON') },
  ]);
  await stage.close();
}, 120_000);
