// A real RabbitMQ (Debian's rabbitmq-server) of the tests' own, on free ports and in a temporary folder. Ends with the
// test process. Tests that share one are apart by their databases: nodes hear those of the same log.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'amqplib';
import { rabbitNode, rabbitProgram, type RabbitMember } from '../../scripts/rabbitmq-program.ts';
import { endAfterTests, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';
import { until } from './tcp-client.ts';

export interface TestRabbit {
  readonly url: string;
  readonly port: number;
  /** `amqps://`; only where it was started with certificates. */
  readonly tlsUrl: string;
  /** Resolves when clients may come. */
  start(): Promise<void>;
  /** SIGKILL; resolves when the process is gone. */
  kill9(): Promise<void>;
  /** SIGSTOP: connections stand, and nobody answers. */
  pause(): void;
  resume(): void;
  /** Of its memory: while it sounds, nobody who publishes is read from. */
  alarm(isOn: boolean): Promise<void>;
  /** Of its disk: the same. */
  diskAlarm(isOn: boolean): Promise<void>;
  /** Who may use what has a name of that form. */
  addUser(name: string, password: string, names: string): Promise<void>;
  /** Resolves when it has ended: the next start finds a new and empty RabbitMQ on the same port. */
  replace(): Promise<void>;
  close(): Promise<void>;
}

export interface RabbitCertificates {
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

/** It takes about five seconds, and most of it is work of the processor: 138 s beside fifty other processes. */
const startMsMax = 400_000;

interface RabbitPlaceInCluster {
  readonly member: RabbitMember;
  readonly mapperPort: number;
}

/** Three members of one cluster. A connection leads to the one whose URL it has. */
export async function startRabbitCluster(): Promise<readonly TestRabbit[]> {
  const all = ['one@localhost', 'two@localhost', 'three@localhost'];
  const home = temporaryFolder('rabbitmq-cluster');
  const mapperPort = await freePort();
  const start = (name: string): Promise<TestRabbit> =>
    startRabbit(undefined, { member: { name, all, home }, mapperPort });
  const members: TestRabbit[] = [];
  for (const name of all) members.push(await start(name));
  return members;
}

export async function startRabbit(
  certificates?: RabbitCertificates,
  inCluster?: RabbitPlaceInCluster,
): Promise<TestRabbit> {
  const folder = temporaryFolder('rabbitmq');
  const ports = [freePort(), freePort(), freePort(), inCluster?.mapperPort ?? freePort()] as const;
  const [port, tlsPort, nodePort, mapperPort] = await Promise.all(ports);
  const tls =
    certificates === undefined
      ? []
      : [
          `listeners.ssl.1 = 127.0.0.1:${tlsPort}`,
          `ssl_options.cacertfile = ${certificates.authority}`,
          `ssl_options.certfile = ${certificates.certificate}`,
          `ssl_options.keyfile = ${certificates.key}`,
          'ssl_options.verify = verify_none',
        ];
  const program = await rabbitProgram({
    folder,
    port,
    nodePort,
    mapperPort,
    lines: tls,
    ...(inCluster === undefined ? {} : { member: inCluster.member }),
  });
  const spawn = (command: readonly string[]): Bun.Subprocess => {
    const options = { env: program.environment, stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' } as const;
    const child = Bun.spawn([...command], options);
    endAfterTests(child);
    return child;
  };
  const mapper = spawn(program.mapperCommand);
  let child: Bun.Subprocess | undefined;
  const url = `amqp://guest:guest@127.0.0.1:${port}`;
  const end = async (): Promise<void> => {
    child?.kill('SIGKILL');
    await child?.exited;
    child = undefined;
  };
  /** A function of the running server, with its arguments, as Erlang writes them; it must answer `ok`. */
  const call = async (text: string): Promise<void> => {
    const command = ['erl', '-noinput', '-hidden', '-sname', `hand${process.pid}@localhost`, '-eval'];
    const hand = spawn([...command, `ok = rpc:call('${rabbitNode}', ${text}), halt(0).`]);
    if ((await hand.exited) !== 0) throw new Error(`RabbitMQ did not do this: ${text}`);
  };
  const rabbit: TestRabbit = {
    url,
    port,
    tlsUrl: `amqps://guest:guest@127.0.0.1:${tlsPort}`,
    start: async () => {
      child = spawn(program.command);
      await until(() => answers(url), 'RabbitMQ answers', startMsMax, 100);
    },
    kill9: end,
    pause: () => child?.kill('SIGSTOP'),
    resume: () => child?.kill('SIGCONT'),
    alarm: (isOn) => call(`vm_memory_monitor, set_vm_memory_high_watermark, [${isOn ? '0.000001' : '0.6'}]`),
    // More bytes than any disk has, which must stay free.
    diskAlarm: (isOn) => call(`rabbit_disk_monitor, set_disk_free_limit, [${isOn ? '1 bsl 60' : '1000000'}]`),
    addUser: async (name, password, names) => {
      const texts = [name, password].map((text) => `<<"${text}">>`);
      await call(`rabbit_auth_backend_internal, add_user, [${texts.join()}, <<"test">>]`);
      const patterns = Array.from({ length: 3 }, () => `<<"${names}">>`).join();
      await call(`rabbit_auth_backend_internal, set_permissions, [<<"${name}">>, <<"/">>, ${patterns}, <<"test">>]`);
    },
    replace: async () => {
      await end();
      rmSync(join(folder, 'data'), { recursive: true, force: true });
    },
    close: async () => {
      await end();
      mapper.kill('SIGKILL');
      await mapper.exited;
    },
  };
  await rabbit.start();
  return rabbit;
}

async function answers(url: string): Promise<boolean> {
  try {
    const connection = await connect(url, { timeout: 5_000 });
    connection.on('error', () => undefined);
    await connection.close();
    return true;
  } catch {
    return false;
  }
}
