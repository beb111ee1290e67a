// A queue of RabbitMQ as a source, on a real server. Half of the messages have an id; the others are known by what they
// hold.

import { connect, type ConfirmChannel } from 'amqplib';
import { expect, test } from 'bun:test';
import { patient } from '../support/patience.ts';
import { startProxy } from '../support/proxy.ts';
import { startRabbit, type TestRabbit } from '../support/rabbitmq.ts';
import { makeCertificates } from '../support/redis-certificates.ts';
import { until } from '../support/tcp-client.ts';
import { testSource, type SourceHarness } from './source-contract.ts';
import { account, keepsToTls } from './tls-contract.ts';

patient();

const certificates = makeCertificates();
let channel: ConfirmChannel;
let rabbit: TestRabbit;

async function start(): Promise<SourceHarness> {
  rabbit = await startRabbit(certificates);
  const proxy = await startProxy({ port: rabbit.port });
  const config = (what: string, url: string): string => `rabbitmq: { queue: '${what}', url: '${url}'`;
  const open = async (): Promise<void> => {
    const connection = await connect(rabbit.url);
    connection.on('error', () => undefined);
    channel = await connection.createConfirmChannel();
    channel.on('error', () => undefined);
  };
  await open();
  let count = 0;
  return {
    config: (what) => config(what, rabbit.url),
    proxy,
    proxied: (what) => config(what, proxy.through(rabbit.url)),
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
    bringsAgain: true,
    startsFast: false,
    kill9: () => rabbit.kill9(),
    start: async () => {
      await rabbit.start();
      await open();
    },
    close: () => rabbit.close(),
  };
}

testSource('rabbitmq', start, {
  sources: async (harness) => {
    await channel.assertQueue('copied', { durable: true, arguments: { 'x-queue-type': 'quorum' } });
    return `{ ${harness.config('copied')}, channel: 'copied' } },`;
  },
  tests: (stage) => {
    test('TLS, by an authority of its own', async () => {
      await rabbit.addUser(account.user, account.password, '.*');
      await channel.assertQueue('secret', { durable: true });
      await keepsToTls({
        setting: 'RABBITMQ_TLS_CA',
        certificates,
        schemes: ['amqps://', 'amqp://'],
        tlsPlace: new URL(rabbit.tlsUrl).host,
        plainPlace: new URL(rabbit.url).host,
        source: `rabbitmq: { queue: 'secret'`,
        send: async () => {
          channel.sendToQueue('secret', Buffer.from('1'), { persistent: true });
          await channel.waitForConfirms();
        },
      });
    }, 300_000);

    // Such a queue writes into a header how often it has brought a message. So the same message looked like another one,
    // and was published twice.
    test('a quorum queue is read in its order, each message once, as the node that reads it is killed -9', async () => {
      const count = 200;
      const send = async (from: number, end: number): Promise<void> => {
        for (let place = from; place < end; place++)
          channel.sendToQueue('copied', Buffer.from(String(place)), { persistent: true });
        await channel.waitForConfirms();
      };
      await send(0, count / 2);
      const killing = stage().kill(await stage().reader('rabbitmq:copied'));
      await send(count / 2, count);
      await killing;
      await stage().startNode();
      await until(async () => (await stage().logged('copied')) >= count, 'all are logged', 120_000, 50);
      expect(await stage().log('copied')).toEqual(Array.from({ length: count }, (_, place) => place));
    }, 200_000);

    // Whoever publishes is not read from; whoever reads is served.
    test('its memory or its disk is full: what it has is published, and what waits for room is afterwards', async () => {
      let sent = await stage().logged('copied');
      const send = (count: number): void => {
        for (const end = sent + count; sent < end; sent++)
          channel.sendToQueue('copied', Buffer.from(String(sent)), { persistent: true });
      };
      const areLogged = (count: number): Promise<void> =>
        until(async () => (await stage().logged('copied')) >= count, `${count} are logged`, 120_000, 50);
      for (const alarm of [rabbit.alarm, rabbit.diskAlarm]) {
        send(50);
        await channel.waitForConfirms();
        const stored = sent;
        await alarm(true);
        send(50);
        await areLogged(stored);
        await alarm(false);
        await channel.waitForConfirms();
        await areLogged(sent);
      }
      expect(await stage().log('copied')).toEqual(Array.from({ length: sent }, (_, place) => place));
    }, 300_000);

    // A quorum queue lets a second consumer in whatever the first one asked for. A source shared its messages with it: with a
    // stranger, or with a reader whose node stood still, and then nobody had their order.
    test('a quorum queue that somebody else reads as well is not read, and the node says why', async () => {
      const from = await stage().logged('copied');
      await stage().reader('rabbitmq:copied');
      const connection = await connect(rabbit.url);
      const other = await connection.createChannel();
      await other.consume('copied', () => undefined);
      const send = (place: number): unknown =>
        channel.sendToQueue('copied', Buffer.from(String(place)), { persistent: true });
      for (let place = from; place < from + 10; place++) send(place);
      const said = async (): Promise<boolean> => {
        const notes = stage().nodes.map(async (node) => (await fetch(`${node.url}/health/ready`)).text());
        return (await Promise.all(notes)).some((text) => text.includes('another consumer reads the queue'));
      };
      await until(said, 'it is said that another one reads', 60_000, 50);
      await connection.close();
      await until(async () => (await stage().logged('copied')) >= from + 10, 'all are logged', 120_000, 50);
      const all = (await stage().log('copied')).slice(from);
      const sorted = all.toSorted((one, other) => Number(one) - Number(other));
      expect(sorted).toEqual(Array.from({ length: 10 }, (_, place) => from + place));
    }, 200_000);
  },
});
