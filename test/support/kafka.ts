// A real Kafka of the tests' own, broker and controller in one process, on free ports and in a temporary folder. Ends with
// the test process. It runs on Java; its jars come with maven.

import { Admin } from '@platformatic/kafka';
import { kafkaClusterId, kafkaProgram, type KafkaMember } from '../../scripts/kafka-program.ts';
import { endAfterTests, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';
import type { TestCertificates } from './redis-certificates.ts';
import { until } from './tcp-client.ts';

export interface TestKafka {
  /** `kafka://127.0.0.1:PORT`, where nobody is asked who comes. */
  readonly url: string;
  /** As clients of Kafka take it: `host:port`. */
  readonly broker: string;
  readonly port: number;
  /** Resolves when clients may come. */
  start(): Promise<void>;
  /** SIGKILL; resolves when the process is gone. What it has stored stays in its folder. */
  kill9(): Promise<void>;
  /** Resolves when it has ended: the next start finds a new and empty Kafka on the same port. */
  replace(): Promise<void>;
  /** It cannot write any more, as when its disk is full, and ends; resolves when it has. What it has stored stays. */
  fillDisk(): Promise<void>;
  /** SIGSTOP: connections stand, and nobody answers. */
  pause(): void;
  resume(): void;
  close(): Promise<void>;
}

export interface TestKafkaOptions {
  /** Default: a free one. */
  readonly port?: number;
  /** Of a proxy: clients that have come are led there. */
  readonly advertisedPort?: number;
  /** A second port, see `kafkaProgram`. */
  readonly proxied?: { readonly port: number; readonly advertisedPort: number };
  /** Of a cluster, with the port of its controller. */
  readonly member?: KafkaMember;
  readonly controllerPort?: number;
  /** Further listeners, lines of its configuration and users, see `kafkaProgram`. */
  readonly listeners?: string;
  readonly lines?: readonly string[];
  readonly scramUsers?: readonly string[];
}

/** A listener at `place` (`host:port`) where users log in with a password, over TLS, and the lines that go with it. */
export async function tlsListener(
  place: string,
  { certificate, key }: TestCertificates,
  passwords: Readonly<Record<string, string>>,
): Promise<{ readonly listeners: string; readonly lines: readonly string[] }> {
  const onOneLine = async (path: string): Promise<string> =>
    (await Bun.file(path).text()).trim().replaceAll('\n', '\\n');
  const users = Object.entries(passwords).map(([user, password]) => `user_${user}="${password}"`);
  const logIn = `org.apache.kafka.common.security.plain.PlainLoginModule required ${users.join(' ')};`;
  return {
    listeners: `SASL_SSL://${place},`,
    lines: [
      'ssl.keystore.type=PEM',
      `ssl.keystore.certificate.chain=${await onOneLine(certificate)}`,
      `ssl.keystore.key=${await onOneLine(key)}`,
      'sasl.enabled.mechanisms=PLAIN',
      `listener.name.sasl_ssl.plain.sasl.jaas.config=${logIn}`,
    ],
  };
}

/** It takes about four seconds, and most of it is work of the processor: minutes beside fifty other processes. */
const startMsMax = 400_000;

export async function startKafka({ port: given, ...options }: TestKafkaOptions = {}): Promise<TestKafka> {
  const ports = [given ?? freePort(), options.controllerPort ?? freePort()] as const;
  const [port, controllerPort] = await Promise.all(ports);
  const spawn = (command: readonly string[]): Bun.Subprocess => {
    const child = Bun.spawn([...command], { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' });
    endAfterTests(child);
    return child;
  };
  let command: readonly string[] = [];
  const format = async (): Promise<void> => {
    const folder = temporaryFolder('kafka');
    const program = await kafkaProgram({ ...options, folder, port, controllerPort });
    const formatting = Bun.spawn([...program.formatCommand], { stdin: 'ignore', stdout: 'ignore', stderr: 'pipe' });
    endAfterTests(formatting);
    const complaint = await formatting.stderr.text();
    if ((await formatting.exited) !== 0) throw new Error(`Kafka could not prepare its folder: ${complaint}`);
    command = program.command;
  };
  let child: Bun.Subprocess | undefined;
  const end = async (): Promise<void> => {
    child?.kill('SIGKILL');
    await child?.exited;
    child = undefined;
  };
  const broker = `127.0.0.1:${port}`;
  const kafka: TestKafka = {
    url: `kafka://${broker}`,
    broker,
    port,
    start: async () => {
      child = spawn(command);
      await until(() => answers(broker), 'Kafka answers', startMsMax, 100);
    },
    kill9: end,
    replace: async () => {
      await end();
      await format();
    },
    fillDisk: async () => {
      if (child === undefined) return;
      // No file may grow, which root may say of others and everybody of their own processes.
      const limiting = Bun.spawn(['prlimit', '--pid', String(child.pid), '--fsize=0'], { stdin: 'ignore' });
      if ((await limiting.exited) !== 0) throw new Error('prlimit failed');
      await child.exited;
      child = undefined;
    },
    pause: () => child?.kill('SIGSTOP'),
    resume: () => child?.kill('SIGCONT'),
    close: end,
  };
  await format();
  await kafka.start();
  return kafka;
}

export interface TestKafkaCluster {
  readonly url: string;
  /** As clients of Kafka take them. */
  readonly brokers: readonly string[];
  /** The broker that leads the only partition of the topic whose name begins so. */
  leaderOf(topic: string): Promise<TestKafka>;
  close(): Promise<void>;
}

/** Three brokers, each of which is a controller too. What two of them have is accepted. */
export async function startKafkaCluster(): Promise<TestKafkaCluster> {
  const controllerPorts = await Promise.all([freePort(), freePort(), freePort()]);
  const clusterId = kafkaClusterId();
  const members = await Promise.all(
    controllerPorts.map((controllerPort, index) =>
      startKafka({ controllerPort, member: { number: index + 1, clusterId, controllerPorts } }),
    ),
  );
  const brokers = members.map(({ broker }) => broker);
  const ask = async <Value>(question: (admin: Admin) => Promise<Value>): Promise<Value> => {
    const admin = new Admin({ clientId: 'test', bootstrapBrokers: brokers, retries: 20 });
    try {
      return await question(admin);
    } finally {
      await admin.close();
    }
  };
  const known = async (): Promise<number> => (await ask((admin) => admin.metadata({ topics: [] }))).brokers.size;
  await until(async () => (await known()) === 3, 'all three know each other', startMsMax, 100);
  return {
    url: `kafka://${brokers.join()}`,
    brokers,
    leaderOf: async (beginning) => {
      const topic = (await ask((admin) => admin.listTopics())).find((name) => name.startsWith(beginning)) ?? beginning;
      const { topics } = await ask((admin) => admin.metadata({ topics: [topic] }));
      const leader = members[(topics.get(topic)?.partitions[0]?.leader ?? 0) - 1];
      if (leader === undefined) throw new Error(`the topic ${topic} has no leader`);
      return leader;
    },
    close: async () => {
      await Promise.all(members.map((member) => member.close()));
    },
  };
}

/** A broker that listens knows no broker yet, itself included, until the controller has taken it in. */
async function answers(broker: string): Promise<boolean> {
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: [broker], retries: 0 });
  try {
    return (await admin.metadata({ topics: [] })).brokers.size > 0;
  } catch {
    return false;
  } finally {
    await admin.close();
  }
}
