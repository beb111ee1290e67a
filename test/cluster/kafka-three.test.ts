// A Kafka of three brokers, as the bus and as a source: whoever leads is killed -9 under load, and every accepted message
// is accounted for. Three of them need too much of a machine for every run.

import { Admin, Producer } from '@platformatic/kafka';
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { startKafkaCluster, type TestKafkaCluster } from '../support/kafka.ts';
import { becomesReady } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { RedisStage } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';
import { SourceStage } from '../sources/source-contract.ts';

patient();

const rounds = 3;

describe.if(process.env['LONG'] === '1')('Kafka of three brokers', () => {
  let kafka: TestKafkaCluster;
  beforeAll(async () => {
    kafka = await startKafkaCluster();
  }, 500_000);
  afterAll(() => kafka.close(), 60_000);

  test('as the bus: the leader of its topic is killed -9 under load, and nobody misses anything', async () => {
    const place = { url: kafka.url, close: () => Promise.resolve() };
    const environment = { SYNC: 'kafka', KAFKA_URL: kafka.url, REDIS_URL: undefined };
    const stage = await RedisStage.on(place, { environment, database: true });
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    for (let round = 0; round < rounds; round++) {
      const leader = await kafka.leaderOf('sobranie-');
      await leader.kill9();
      await load.arrives(40, 60_000);
      // The two that are left are enough.
      await Promise.all(stage.nodes.map((node) => becomesReady(node, 120_000)));
      await load.arrives(40, 60_000);
      await leader.start();
    }
    await load.finish({ timeoutMs: 60_000 });
    await stage.close();
  }, 600_000);

  test('as a source: the leader of its topic is killed -9 under load, and each accepted message is published once', async () => {
    const options = { clientId: 'test', bootstrapBrokers: [...kafka.brokers] };
    const admin = new Admin({ ...options, retries: 20 });
    await admin.createTopics({ topics: ['orders'], partitions: 1, replicas: 3 });
    const stage = await SourceStage.open(`{ kafka: { topic: 'orders', url: '${kafka.url}', channel: 'orders' } }`, {
      SYNC: 'postgres',
    });
    await Promise.all([stage.startNode(), stage.startNode()]);
    const producer = new Producer({ ...options, retries: false, timeout: 5_000 });
    producer.connections.on('connecting', ({ connection }) => connection.on('error', () => undefined));
    let [accepted, isSending] = [0, true];
    const sending = (async () => {
      while (isSending) {
        try {
          await producer.send({ messages: [{ topic: 'orders', value: Buffer.from(String(accepted)) }], acks: -1 });
          accepted++;
        } catch {
          // It may have been taken all the same, and is sent again.
          await Bun.sleep(50);
          await producer.metadata({ topics: ['orders'], forceUpdate: true }).catch(() => undefined);
        }
      }
    })();
    for (let round = 0; round < rounds; round++) {
      const goal = accepted + 200;
      await until(() => accepted >= goal, 'more are accepted', 120_000, 20);
      const leader = await kafka.leaderOf('orders');
      await leader.kill9();
      const further = accepted + 200;
      await until(() => accepted >= further, 'more are accepted without it', 120_000, 20);
      await leader.start();
    }
    isSending = false;
    await sending;
    const offsets = await admin.listOffsets({
      topics: [{ name: 'orders', partitions: [{ partitionIndex: 0, timestamp: -1n }] }],
    });
    const kept = Number(offsets[0]?.partitions[0]?.offset);
    await until(async () => (await stage.logged('orders')) >= kept, 'all are logged', 120_000, 50);
    const log = await stage.log('orders');
    expect(log.length).toBe(kept);
    expect(log.filter((data, place) => data !== log[place - 1])).toEqual(
      Array.from({ length: accepted }, (_, place) => place),
    );
    process.stdout.write(`${accepted} accepted, ${kept} kept by Kafka, ${log.length} published\n`);
    await producer.close();
    await admin.close();
    await stage.close();
  }, 600_000);
});
