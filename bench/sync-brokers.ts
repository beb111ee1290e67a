// The brokers of the sync benches: a nats-server, a RabbitMQ and a Kafka of the bench's own.
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectNats } from '@nats-io/transport-node';
import { Admin } from '@platformatic/kafka';
import { connect as connectRabbit } from 'amqplib';
import { kafkaProgram } from '../scripts/kafka-program.ts';
import { natsProgram } from '../scripts/nats-program.ts';
import { rabbitProgram } from '../scripts/rabbitmq-program.ts';
import { until } from './postgres.ts';
import { BenchError, endWithBench, freePort } from './server-process.ts';

export interface Broker {
  readonly layer: 'nats' | 'rabbitmq' | 'kafka';
  readonly url: string;
  // Of a node that uses it.
  readonly environment: Record<string, string>;
  close(): Promise<void>;
}

type Started = Pick<Broker, 'layer' | 'url' | 'environment'> & {
  readonly commands: readonly (readonly string[])[];
  readonly spawnEnvironment?: Readonly<Record<string, string | undefined>>;
  readonly answers: () => Promise<{ close(): Promise<void> }>;
};

export async function startNats(): Promise<Broker> {
  const [port, folder] = [await freePort(), await makeFolder()];
  const url = `nats://127.0.0.1:${port}`;
  return start(folder, {
    layer: 'nats',
    url,
    environment: { SYNC: 'nats', NATS_URL: url },
    commands: [[natsProgram(), '-a', '127.0.0.1', '-p', String(port), '-js', '-sd', folder]],
    answers: () => connectNats({ servers: url, reconnect: false }),
  });
}

export async function startRabbit(): Promise<Broker> {
  const folder = await makeFolder();
  const [port, nodePort, mapperPort] = [await freePort(), await freePort(), await freePort()];
  const url = `amqp://guest:guest@127.0.0.1:${port}`;
  const { command, mapperCommand, environment } = await rabbitProgram({ folder, port, nodePort, mapperPort });
  return start(folder, {
    layer: 'rabbitmq',
    url,
    environment: { SYNC: 'rabbitmq', RABBITMQ_URL: url },
    commands: [mapperCommand, command],
    spawnEnvironment: environment,
    answers: () => connectRabbit(url),
  });
}

export async function startKafka(): Promise<Broker> {
  const [folder, port, controllerPort] = [await makeFolder(), await freePort(), await freePort()];
  const bootstrapBrokers = [`127.0.0.1:${port}`];
  const { command, formatCommand } = await kafkaProgram({ folder, port, controllerPort });
  const { success, stderr } = Bun.spawnSync([...formatCommand], { stdin: 'ignore', stdout: 'ignore' });
  if (!success) throw new BenchError(`Kafka could not prepare its folder: ${stderr.toString()}`);
  const url = `kafka://127.0.0.1:${port}`;
  return start(folder, {
    layer: 'kafka',
    url,
    environment: { SYNC: 'kafka', KAFKA_URL: url },
    commands: [command],
    answers: async () => {
      const admin = new Admin({ clientId: 'bench', bootstrapBrokers, retries: false });
      // The topics of the bare client: one partition each, as ours has.
      await admin.createTopics({ topics: ['bench_kafka', 'bench_kafka_kept', 'bare'], partitions: 1, replicas: 1 });
      return admin;
    },
  });
}

function makeFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'sobranie-bench-broker-'));
}

async function start(folder: string, { commands, spawnEnvironment, answers, ...broker }: Started): Promise<Broker> {
  const children = commands.map((command) => {
    const options = {
      env: spawnEnvironment ?? process.env,
      stdin: 'ignore',
      stdout: 'ignore',
      stderr: 'ignore',
    } as const;
    const child = Bun.spawn([...command], options);
    endWithBench(child);
    return child;
  });
  const close = async (): Promise<void> => {
    for (const child of children) child.kill('SIGKILL');
    await Promise.all(children.map((child) => child.exited));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await until(`${broker.layer} answers`, 120, async () => {
      try {
        await (await answers()).close();
        return true;
      } catch (error) {
        // Refused until it listens; that it never does is told by the time limit.
        void error;
        return false;
      }
    });
    return { ...broker, close };
  } catch (error) {
    await close();
    throw error;
  }
}
