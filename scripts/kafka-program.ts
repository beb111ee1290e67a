// How tests and benchmarks get and run Apache Kafka: no Debian package brings it, so Maven (Debian's) fetches its jars,
// which are kept in the user's cache. One process is broker and controller, in a folder and on ports of its own.

import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from './pypi-programs.ts';
import { runToEnd } from './run-to-end.ts';

const version = '4.3.1';
const folder = (): string => cacheFolder(`kafka-${version}`);
const copyDependencies = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';

/** Asks for the broker and what it needs, as a project of Maven. */
const project = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>sobranie</groupId>
  <artifactId>kafka-of-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>${version}</version>
    </dependency>
  </dependencies>
</project>
`;

/** Does nothing when it is there. Resolves with what is missing and how to get it; undefined when all is well. */
export async function installKafka(): Promise<string | undefined> {
  const target = folder();
  if (existsSync(target)) return undefined;
  if (Bun.which('mvn') === null) return 'mvn is missing, which installs Kafka: tests that need it will fail.';
  console.error(`Installing Kafka ${version} with Maven`);
  // Under another name until it is whole: a start that is interrupted leaves nothing that looks complete.
  const partial = `${target}.partial-${process.pid}`;
  mkdirSync(partial, { recursive: true });
  try {
    const file = join(partial, 'pom.xml');
    await Bun.write(file, project);
    const options = ['-DincludeScope=runtime', `-DoutputDirectory=${partial}`];
    const command = [
      'mvn',
      '--quiet',
      '--batch-mode',
      '-Dstyle.color=never',
      '--file',
      file,
      copyDependencies,
      ...options,
    ];
    if ((await runToEnd(command, { limitSeconds: 300 })) !== 0) {
      return 'Kafka could not be installed (see above): tests that need it will fail.';
    }
    try {
      renameSync(partial, target);
    } catch (error) {
      // Another run was faster.
      if (!existsSync(target)) throw error;
    }
    return undefined;
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

export interface KafkaPlace {
  readonly folder: string;
  readonly port: number;
  /** What clients are led to once they have come. Default: `port`. */
  readonly advertisedPort?: number;
  /** A second port, for those who come through a proxy, and are led to it again. */
  readonly proxied?: { readonly port: number; readonly advertisedPort: number };
  readonly controllerPort: number;
  /** Of a cluster. Default: it is alone. */
  readonly member?: KafkaMember;
  /** Further lines of the properties file. `listeners` come before the usual ones, each with a comma behind it. */
  readonly listeners?: string;
  readonly lines?: readonly string[];
  /** Users that it knows from the first, as its tool takes them: `SCRAM-SHA-512=[name=ann,password=secret]`. */
  readonly scramUsers?: readonly string[];
}

export interface KafkaMember {
  /** From 1 on. */
  readonly number: number;
  readonly clusterId: string;
  /** Of all members, in the order of their numbers. */
  readonly controllerPorts: readonly number[];
}

/** What the tool takes for one; one of 64 would begin with a dash, and be taken for an option. */
export function kafkaClusterId(): string {
  const bytes = Buffer.from(crypto.getRandomValues(new Uint8Array(16)));
  bytes[0] = 0;
  return bytes.toString('base64url');
}

export interface KafkaProgram {
  readonly command: readonly string[];
  /** Runs before it, once for each folder, and ends. */
  readonly formatCommand: readonly string[];
}

/** Writes its configuration. */
export async function kafkaProgram(place: KafkaPlace): Promise<KafkaProgram> {
  if (!existsSync(folder())) throw new Error('Kafka is not installed; run: bun run test contract/kafka');
  const { port, advertisedPort = port, proxied, controllerPort, listeners = '', lines = [], scramUsers = [] } = place;
  const { number, clusterId, controllerPorts } = place.member ?? {
    number: 1,
    clusterId: kafkaClusterId(),
    controllerPorts: [controllerPort],
  };
  const voters = controllerPorts.map((each, index) => `${index + 1}@127.0.0.1:${each}`).join();
  const copies = controllerPorts.length;
  const second = (at: number | undefined): string => (at === undefined ? '' : `PROXIED://127.0.0.1:${at},`);
  const file = join(place.folder, 'server.properties');
  const properties = [
    'process.roles=broker,controller',
    `node.id=${number}`,
    `controller.quorum.voters=${voters}`,
    'controller.listener.names=CONTROLLER',
    'listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,PROXIED:PLAINTEXT',
    `listeners=${listeners}${second(proxied?.port)}PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    `advertised.listeners=${listeners}${second(proxied?.advertisedPort)}PLAINTEXT://127.0.0.1:${advertisedPort}`,
    `log.dirs=${join(place.folder, 'data')}`,
    'auto.create.topics.enable=false',
    // What one member takes for accepted, another one has too.
    `default.replication.factor=${copies}`,
    `min.insync.replicas=${Math.ceil(copies / 2)}`,
    // Internal topics are small.
    `offsets.topic.replication.factor=${copies}`,
    'offsets.topic.num.partitions=1',
    `transaction.state.log.replication.factor=${copies}`,
    'transaction.state.log.min.isr=1',
    'transaction.state.log.num.partitions=1',
    'group.initial.rebalance.delay.ms=0',
    // A broker that was killed may come again once its former session has ended.
    'broker.heartbeat.interval.ms=500',
    'broker.session.timeout.ms=3000',
    // Little memory, few threads.
    'log.cleaner.dedupe.buffer.size=4194304',
    'log.index.size.max.bytes=1048576',
    'num.network.threads=2',
    'num.io.threads=2',
    'background.threads=2',
    'num.recovery.threads.per.data.dir=1',
    ...lines,
  ];
  await Bun.write(file, `${properties.join('\n')}\n`);
  const java = ['java', '-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', `${folder()}/*`];
  const format = [...java, 'kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', file];
  return {
    command: [...java, 'kafka.Kafka', file],
    formatCommand: [...format, ...scramUsers.flatMap((user) => ['--add-scram', user])],
  };
}
