// RabbitMQ as the bus beside the log: what holds over every bus, and a RabbitMQ whose memory is full.

import { test } from 'bun:test';
import { patient } from '../support/patience.ts';
import { startProxy } from '../support/proxy.ts';
import { startRabbit, type TestRabbit } from '../support/rabbitmq.ts';
import { busContract, BusScene } from './bus-contract.ts';

patient();

async function open(): Promise<BusScene<TestRabbit>> {
  const rabbit = await startRabbit();
  const proxy = await startProxy({ port: rabbit.port });
  return BusScene.open(rabbit, proxy, { SYNC: 'rabbitmq', RABBITMQ_URL: proxy.through(rabbit.url) });
}

busContract('RabbitMQ', open, (scene) => {
  test('its memory is full: publishers are not read from, and the log is found without it', async () => {
    const { server, stage } = scene();
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    await server.alarm(true);
    await load.arrives(40, 40_000);
    await server.alarm(false);
    await scene().connected();
    await load.arrives(40, 40_000);
    await load.finish({ timeoutMs: 40_000 });
  }, 200_000);
});
