// What a broker's own client confirms by itself: messages of one process, so many in flight, no server around it. Over NATS
// each is kept in a stream that counts, over RabbitMQ each goes to the queue of one who reads, over Kafka
// to a topic of one partition.
// Arguments: nats | rabbitmq | kafka, url, data, seconds, in flight. Prints how many it got through.
import { connect as connectNats, headers } from '@nats-io/transport-node';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { Producer } from '@platformatic/kafka';
import { connect as connectRabbit } from 'amqplib';

const [layer, url, data, ...numbers] = process.argv.slice(2);
const [seconds = 0, inFlight = 0] = numbers.map(Number);
if (!layer || !url || !data || !(seconds * inFlight > 0)) {
  throw new Error('usage: sync-broker.ts nats|rabbitmq|kafka <url> <data> <seconds> <in flight>');
}

interface Bare {
  readonly publish: () => Promise<unknown>;
  readonly close: () => Promise<void>;
}

async function openNats(servers: string, text: string): Promise<Bare> {
  const connection = await connectNats({ servers });
  const manager = await jetstreamManager(connection);
  await manager.streams.add({
    name: 'bare',
    subjects: ['bare.>'],
    allow_msg_counter: true,
    max_msgs_per_subject: 1000,
  });
  const stream = jetstream(connection);
  const publish = (): Promise<unknown> => {
    const given = headers();
    given.set('Nats-Incr', '1');
    given.set('Data', text);
    return stream.publish('bare.channel', '', { headers: given });
  };
  const close = async (): Promise<void> => {
    await manager.streams.delete('bare');
    await connection.close();
  };
  return { publish, close };
}

async function openRabbit(address: string, text: string): Promise<Bare> {
  const connection = await connectRabbit(address, { noDelay: true });
  const channel = await connection.createConfirmChannel();
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.consume(queue, () => undefined, { noAck: true });
  const content = Buffer.from(text);
  const publish = (): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const done = (error: Error | null): void => (error === null ? resolve(undefined) : reject(error));
      channel.sendToQueue(queue, content, {}, done);
    });
  return { publish, close: () => connection.close() };
}

function openKafka(address: string, text: string): Promise<Bare> {
  const producer = new Producer({ clientId: 'bare', bootstrapBrokers: [address.replace('kafka://', '')] });
  const value = Buffer.from(text);
  const publish = (): Promise<unknown> => producer.send({ messages: [{ topic: 'bare', partition: 0, value }] });
  return Promise.resolve({ publish, close: () => producer.close() });
}

const openers: Readonly<Record<string, (address: string, text: string) => Promise<Bare>>> = {
  nats: openNats,
  rabbitmq: openRabbit,
  kafka: openKafka,
};
const open = openers[layer];
if (!open) throw new Error(`there is no broker named ${layer}`);
const { publish, close } = await open(url, data);
const warmMs = 300;
const began = performance.now() + warmMs;
const end = began + seconds * 1000;
let published = 0;
async function lane(): Promise<void> {
  while (performance.now() < end) {
    await publish();
    if (performance.now() > began) published++;
  }
}
const cpuBefore = process.cpuUsage();
await Promise.all(Array.from({ length: inFlight }, lane));
const measuredMs = performance.now() - began;
const { user, system } = process.cpuUsage(cpuBefore);
await close();
const cpuShare = (user + system) / 1000 / (measuredMs + warmMs);
console.log(JSON.stringify({ perSecond: (published * 1000) / measuredMs, misplaced: 0, cpuShare }));
