// Kafka as the bus beside the log: what holds over every bus, and a Kafka that is replaced by an empty one.

import { test } from 'bun:test';
import { startKafka, type TestKafka } from '../support/kafka.ts';
import { patient } from '../support/patience.ts';
import { freePort } from '../support/postgres.ts';
import { startProxy } from '../support/proxy.ts';
import { busContract, BusScene } from './bus-contract.ts';

patient();

const long = process.env['LONG'] === '1';

async function open(): Promise<BusScene<TestKafka>> {
  const port = await freePort();
  const proxy = await startProxy({ port });
  // Clients that have come are led where Kafka says, so it names the proxy.
  const kafka = await startKafka({ port, advertisedPort: proxy.port });
  return BusScene.open(kafka, proxy, { SYNC: 'kafka', KAFKA_URL: `kafka://127.0.0.1:${proxy.port}` });
}

busContract('Kafka', open, (scene) => {
  // Kafka ends itself when it cannot write to its only folder.
  test.if(long)(
    'its disk is full as a new node starts, and has room again later: nobody misses anything',
    async () => {
      const { server, stage } = scene();
      const load = await stage.load({ databaseUrl: stage.databaseUrl });
      await scene().loses(load, () => server.fillDisk());
      await load.finish({ timeoutMs: 40_000 });
    },
    600_000,
  );

  test('Kafka is replaced by an empty one as a new node starts: the topic is made again, and nobody misses anything', async () => {
    const { server, stage } = scene();
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    await scene().loses(load, () => server.replace());
    await load.finish({ timeoutMs: 40_000 });
  }, 600_000);
});
