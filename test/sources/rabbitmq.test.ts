// A queue of RabbitMQ as a source, on a real server. Half of the messages have an id; the others are known by what they
// hold.

import { connect, type ConfirmChannel } from 'amqplib';
import { patient } from '../support/patience.ts';
import { startRabbit } from '../support/rabbitmq.ts';
import { testSource } from './source-contract.ts';

patient();

testSource('rabbitmq', async () => {
  const rabbit = await startRabbit();
  let channel: ConfirmChannel;
  const open = async (): Promise<void> => {
    const connection = await connect(rabbit.url);
    connection.on('error', () => undefined);
    channel = await connection.createConfirmChannel();
    channel.on('error', () => undefined);
  };
  await open();
  let count = 0;
  return {
    config: (what) => `rabbitmq: { queue: '${what}', url: '${rabbit.url}'`,
    prepare: async (what) => {
      await channel.assertQueue(what, { durable: true });
    },
    send: async (what, bodies) => {
      for (const body of bodies) {
        const named = count++ % 2 === 0 ? { messageId: `message ${count}` } : {};
        channel.sendToQueue(what, Buffer.from(body), { persistent: true, ...named });
      }
      await channel.waitForConfirms();
    },
    startsFast: false,
    kill9: () => rabbit.kill9(),
    start: async () => {
      await rabbit.start();
      await open();
    },
    close: () => rabbit.close(),
  };
});
