// RabbitMQ as the bus beside the log: what holds over every bus, and a RabbitMQ that is full or was replaced by an empty one.

import { test } from 'bun:test';
import { patient } from '../support/patience.ts';
import type { RunningServer } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';
import { startRabbit, type TestRabbit } from '../support/rabbitmq.ts';
import { until } from '../support/tcp-client.ts';
import { busContract, BusScene } from './bus-contract.ts';

patient();

const healthOf = async ({ url }: RunningServer): Promise<string> => (await fetch(`${url}/health/ready`)).text();

const long = process.env['LONG'] === '1';

async function open(): Promise<BusScene<TestRabbit>> {
  const rabbit = await startRabbit();
  const proxy = await startProxy({ port: rabbit.port });
  return BusScene.open(rabbit, proxy, { SYNC: 'rabbitmq', RABBITMQ_URL: proxy.through(rabbit.url) });
}

busContract('RabbitMQ', open, (scene) => {
  test('its memory or its disk is full: publishers are not read from, and the log is found without it', async () => {
    const { server, stage } = scene();
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    for (const alarm of [server.alarm, server.diskAlarm]) {
      await alarm(true);
      const isSaid = async (): Promise<boolean> =>
        (await Promise.all(stage.nodes.map(healthOf))).every((text) => text.includes('its memory or its disk is full'));
      if (alarm === server.alarm) await until(isSaid, 'both say why', 60_000, 50);
      await load.arrives(40, 40_000);
      await alarm(false);
      await scene().connected();
      await load.arrives(40, 40_000);
    }
    await load.finish({ timeoutMs: 40_000 });
  }, 300_000);

  test.if(long)(
    'it is replaced by an empty one as a new node starts: the exchange is made again, and nobody misses anything',
    async () => {
      const { server, stage } = scene();
      const load = await stage.load({ databaseUrl: stage.databaseUrl });
      await scene().loses(load, () => server.replace());
      await load.finish({ timeoutMs: 40_000 });
    },
    600_000,
  );
});
