// One half of a bare hop between two processes: publishes at a steady rate, or receives and keeps how long each message
// took from the call that published it. Over Redis ioredis' PUBLISH to `message`, over PostgreSQL NOTIFY to LISTEN, in
// the `row` kind by a statement that also keeps the message in a table, and so waits for the disk. Over a broker by its
// client, each message to whoever listens. With the URL of a database behind the broker's, each message is first committed
// to a table of it, as a log beside the broker does.
// Arguments: redis | postgres | row | nats | rabbitmq | kafka, publish | receive, url, and the database's url. The parent
// asks over IPC, and is answered once per question.
import { connect as connectNats } from '@nats-io/transport-node';
import { Consumer, MessagesStreamModes, Producer } from '@platformatic/kafka';
import { connect as connectRabbit } from 'amqplib';
import { Redis } from 'ioredis';
import postgres from 'postgres';
import type { HopAnswer, HopQuestion } from '../sync-hop.ts';
import { wallClockMs } from '../wall-clock.ts';

const [layer, half, url, databaseUrl] = process.argv.slice(2);
if (!url)
  throw new Error('usage: sync-hop.ts redis|postgres|row|nats|rabbitmq|kafka publish|receive <url> [database url]');
const topic = databaseUrl === undefined ? `bench_${layer}` : `bench_${layer}_kept`;
let delays: number[] = [];

const openers: Readonly<Record<string, (address: string) => Promise<(text: string) => Promise<unknown>>>> = {
  redis: openRedis,
  postgres: openPostgres,
  row: openPostgres,
  nats: openNats,
  rabbitmq: openRabbit,
  kafka: openKafka,
};
const open = openers[layer ?? ''];
if (!open) throw new Error(`there is no hop over ${layer}`);
const sendNow = await open(url);
const send = databaseUrl === undefined || half === 'receive' ? sendNow : await keptBefore(sendNow, databaseUrl);
function received(text: string): void {
  delays.push(wallClockMs() - Number(text.slice(0, text.indexOf(' '))));
}

async function openRedis(address: string): Promise<(text: string) => Promise<unknown>> {
  const redis = new Redis(address);
  if (half === 'receive') {
    redis.on('message', (_topic, text: string) => received(text));
    await redis.subscribe(topic);
  }
  return (text) => redis.publish(topic, text);
}

async function openNats(address: string): Promise<(text: string) => Promise<unknown>> {
  const connection = await connectNats({ servers: address });
  if (half === 'receive') {
    connection.subscribe(topic, { callback: (_error, message) => received(message.string()) });
    await connection.flush();
  }
  return (text) => Promise.resolve(connection.publish(topic, text));
}

async function openRabbit(address: string): Promise<(text: string) => Promise<unknown>> {
  const channel = await (await connectRabbit(address, { noDelay: true })).createChannel();
  await channel.assertExchange(topic, 'fanout', { durable: false });
  if (half === 'receive') {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(queue, topic, '');
    await channel.consume(queue, (message) => received(message?.content.toString() ?? ''), { noAck: true });
  }
  return (text) => Promise.resolve(channel.publish(topic, '', Buffer.from(text)));
}

async function openKafka(address: string): Promise<(text: string) => Promise<unknown>> {
  const options = { clientId: 'bare', bootstrapBrokers: [address.replace('kafka://', '')] };
  if (half === 'receive') {
    const consumer = new Consumer({ ...options, groupId: topic, maxWaitTime: 1_000, retries: true });
    const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.LATEST, autocommit: false });
    stream.on('data', ({ value }) => received(value.toString()));
  }
  const producer = new Producer(options);
  return (text) => producer.send({ messages: [{ topic, partition: 0, value: Buffer.from(text) }] });
}

async function openPostgres(address: string): Promise<(text: string) => Promise<unknown>> {
  const sql = postgres(address, { max: 1, onnotice: () => undefined });
  if (half === 'receive') await sql.listen(topic, received);
  if (layer === 'postgres' || half === 'receive') return (text) => sql.notify(topic, text);
  await sql`create table if not exists public.bench_hop (text text not null)`;
  const statement = `with kept as (insert into public.bench_hop values ($1)) select pg_notify('${topic}', $1)`;
  // A query of this driver is sent when somebody waits for it, so it is sent at once by hand.
  return (text) => sql.unsafe(statement, [text], { prepare: true }).execute();
}

/** Commits come in the order of the calls, so the messages do. */
async function keptBefore(
  next: (text: string) => Promise<unknown>,
  address: string,
): Promise<(text: string) => Promise<unknown>> {
  const sql = postgres(address, { max: 1, onnotice: () => undefined });
  await sql`create table if not exists public.bench_hop (text text not null)`;
  return async (text) => {
    await sql.unsafe('insert into public.bench_hop values ($1)', [text], { prepare: true });
    await next(text);
  };
}

async function publish({ rate, seconds, bytes }: HopQuestion): Promise<number> {
  const filler = 'x'.repeat(bytes);
  const count = Math.round(rate * seconds);
  const pending: Promise<unknown>[] = [];
  const began = performance.now();
  while (pending.length < count) {
    const due = Math.min(count, Math.ceil(((performance.now() - began) / 1000) * rate));
    while (pending.length < due) pending.push(send(`${wallClockMs()} ${filler}`));
    await Bun.sleep(1);
  }
  await Promise.all(pending);
  return count;
}

async function answer(question: HopQuestion): Promise<HopAnswer> {
  if (half === 'publish') return { published: await publish(question), delays: [] };
  // What was published has arrived at the server; the last of it may still be on its way here.
  for (let tries = 0; delays.length < question.expected && tries < 500; tries++) await Bun.sleep(5);
  const told = delays;
  delays = [];
  return { published: 0, delays: told };
}

process.on('message', (question: HopQuestion) => {
  void answer(question).then((told) => process.send?.(told));
});
process.on('disconnect', () => process.exit(0));
process.send?.({ published: 0, delays: [] } satisfies HopAnswer);
