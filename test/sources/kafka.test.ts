// A topic of Kafka as a source, on a real broker: alone, and to many browsers.

import { Admin, Producer } from '@platformatic/kafka';
import { expect, test } from 'bun:test';
import { startKafka, tlsListener, type TestKafka } from '../support/kafka.ts';
import { freePort } from '../support/postgres.ts';
import { startProxy } from '../support/proxy.ts';
import { makeCertificates } from '../support/redis-certificates.ts';
import { until } from '../support/tcp-client.ts';
import { patient } from '../support/patience.ts';
import { Crowd } from './crowd.ts';
import { testSource, type SourceHarness } from './source-contract.ts';
import { account, keepsToTls } from './tls-contract.ts';

patient();

const long = process.env['LONG'] === '1';
const partitions = 4;
const certificates = makeCertificates();
let kafka: TestKafka;
/** Where it speaks TLS. */
let tlsPlace: string;

function clientOptions(): { clientId: string; bootstrapBrokers: string[] } {
  return { clientId: 'test', bootstrapBrokers: [kafka.broker] };
}

async function createTopic(topic: string, count = 1): Promise<void> {
  const admin = new Admin(clientOptions());
  await admin.createTopics({ topics: [topic], partitions: count, replicas: 1 });
  await admin.close();
}

async function start(): Promise<SourceHarness> {
  tlsPlace = `127.0.0.1:${await freePort()}`;
  const port = await freePort();
  const proxy = await startProxy({ port });
  kafka = await startKafka({
    ...(await tlsListener(tlsPlace, certificates, { [account.user]: account.password })),
    proxied: { port, advertisedPort: proxy.port },
  });
  const config = (what: string, url: string): string => `kafka: { topic: '${what}', group: 'watchers', url: '${url}'`;
  const open = (): Producer => {
    const producer = new Producer({ ...clientOptions(), retries: 20 });
    producer.connections.on('connecting', ({ connection }) => connection.on('error', () => undefined));
    return producer;
  };
  let producer = open();
  return {
    config: (what) => config(what, kafka.url),
    proxy,
    proxied: (what) => config(what, `kafka://127.0.0.1:${proxy.port}`),
    prepare: (what) => createTopic(what),
    send: async (what, bodies) => {
      const messages = bodies.map((body) => ({ topic: what, partition: 0, value: Buffer.from(body) }));
      await producer.send({ messages, acks: -1 });
    },
    bringsAgain: false,
    startsFast: false,
    kill9: () => kafka.kill9(),
    start: async () => {
      await kafka.start();
      await producer.close();
      producer = open();
    },
    close: async () => {
      await producer.close();
      await kafka.close();
    },
  };
}

/** Sends messages of all channels in turn, at that pace. */
class Sender {
  readonly #producer = new Producer({ ...clientOptions(), retries: 20 });
  readonly #perSecond: number;
  readonly #startedAt = performance.now();
  /** Of each channel. */
  readonly sent: number[];

  constructor(channels: number, perSecond: number) {
    this.#perSecond = perSecond;
    this.sent = Array.from({ length: channels }, () => 0);
  }

  get seconds(): number {
    return (performance.now() - this.#startedAt) / 1_000;
  }

  async send(from: number, end: number): Promise<void> {
    const some = this.#perSecond / 20;
    for (let place = from; place < end; place += some) {
      const messages = Array.from({ length: Math.min(some, end - place) }, (_, each) => this.#message(place + each));
      await this.#producer.send({ messages, acks: -1 });
      const aheadMs = (place / this.#perSecond - this.seconds) * 1_000;
      if (aheadMs > 0) await Bun.sleep(aheadMs);
    }
  }

  close(): Promise<void> {
    return this.#producer.close();
  }

  #message(place: number): { topic: string; partition: number; key: Buffer; value: Buffer } {
    const channel = place % this.sent.length;
    const value = JSON.stringify({ n: ++this.sent[channel]!, at: Date.now() });
    const key = Buffer.from(String(channel));
    return { topic: 'live', partition: channel % partitions, key, value: Buffer.from(value) };
  }
}

testSource('kafka', start, {
  sources: async (harness) => {
    await Promise.all([createTopic('live', partitions), createTopic('undone')]);
    return `{ ${harness.config('live')}, name: 'live', channel: ({ key }) => 'customer:' + key } },
      { ${harness.config('undone')}, channel: 'undone' } },`;
  },
  tests: (stage) => {
    test('what a producer took back is not published; a tombstone is parked', async () => {
      const producer = new Producer({ ...clientOptions(), idempotent: true, transactionalId: 'undone', acks: -1 });
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
      const plain = new Producer(clientOptions());
      await plain.send({ messages: [{ topic: 'undone' }, { topic: 'undone', value: Buffer.from('5') }], acks: -1 });
      await plain.close();
      await until(async () => (await stage().logged('undone')) >= 3, 'the last one is logged', 60_000, 20);
      expect(await stage().log('undone')).toEqual([1, 4, 5]);
      const parked = await stage().sql`select error from realtime.parked where error like 'source kafka:undone%'`;
      expect(parked).toMatchObject([{ error: expect.stringContaining('the body is not JSON') }]);
    }, 120_000);

    test('TLS, by an authority of its own', async () => {
      await createTopic('secret');
      await keepsToTls({
        setting: 'KAFKA_TLS_CA',
        certificates,
        schemes: ['kafka+ssl://', 'kafka://'],
        tlsPlace,
        plainPlace: kafka.broker,
        source: `kafka: { topic: 'secret'`,
        send: async () => {
          const producer = new Producer(clientOptions());
          await producer.send({ messages: [{ topic: 'secret', value: Buffer.from('1') }], acks: -1 });
          await producer.close();
        },
      });
    }, 300_000);

    // A start of Kafka takes minutes on a busy machine.
    test.if(long)(
      'its disk is full, and it ends: what it had stored is published once it is back',
      async () => {
        const from = await stage().logged('undone');
        const producer = new Producer({ ...clientOptions(), retries: 20 });
        const send = async (places: readonly number[]): Promise<void> => {
          await producer.send({
            messages: places.map((place) => ({ topic: 'undone', value: Buffer.from(String(place)) })),
            acks: -1,
          });
        };
        await send([0, 1]);
        await Promise.all([kafka.fillDisk(), send([2]).catch(() => undefined)]);
        await kafka.start();
        await send([3]);
        const logged = async (): Promise<unknown[]> => (await stage().log('undone')).slice(from);
        await until(async () => (await logged()).includes(3), 'the last one is logged', 120_000, 50);
        // What was refused may have been stored.
        const places = await logged();
        expect(places.filter((place) => place !== 2)).toEqual([0, 1, 3]);
        expect(places.filter((place) => place === 2).length).toBeLessThan(2);
        await producer.close();
      },
      900_000,
    );

    test('a topic to a crowd of browsers, and a node that reads it is killed -9', async () => {
      const { browsers, channels, perSecond, count } = long
        ? { browsers: 1_000, channels: 200, perSecond: 5_000, count: 100_000 }
        : { browsers: 50, channels: 10, perSecond: 1_000, count: 2_000 };
      const crowd = await Crowd.open(() => stage().nodes, browsers, channels);
      const sender = new Sender(channels, perSecond);
      await sender.send(0, count / 2);
      const killing = stage().kill(await stage().reader('live'));
      await sender.send(count / 2, count);
      await killing;
      const rate = Math.round(count / sender.seconds);
      await crowd.reaches(sender.sent);
      const told = `${browsers} browsers, ${rate} messages/s, ${crowd.deliveries} deliveries; ${crowd.delays()}`;
      if (long) process.stdout.write(`${told}\n`);
      expect(crowd.faults).toEqual([]);
      await crowd.close();
      await sender.close();
    }, 300_000);
  },
});
