// How tests and benchmarks run Debian's RabbitMQ: as one process, in a folder and on ports of its own, beside a port
// mapper of Erlang of its own. The one that comes with the package would outlive it, and be shared.

import { join } from 'node:path';

export interface RabbitPlace {
  readonly folder: string;
  readonly port: number;
  /** Between members of a cluster; RabbitMQ insists on it. */
  readonly nodePort: number;
  readonly mapperPort: number;
  /** Of a cluster. Default: it is alone. */
  readonly member?: RabbitMember;
  /** Of its configuration file. */
  readonly lines?: readonly string[];
}

export interface RabbitMember {
  readonly name: string;
  /** Names of all members. The first one starts before the others do. */
  readonly all: readonly string[];
  /** Where the secret lies that all of them share. */
  readonly home: string;
}

export interface RabbitProgram {
  readonly command: readonly string[];
  /** Runs before it, and until after it. */
  readonly mapperCommand: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export const rabbitNode = 'test@localhost';

/** Writes its configuration. */
export async function rabbitProgram(place: RabbitPlace): Promise<RabbitProgram> {
  const { folder, port, nodePort, mapperPort, member, lines = [] } = place;
  const cluster =
    member === undefined
      ? []
      : [
          'cluster_formation.peer_discovery_backend = classic_config',
          ...member.all.map((name, index) => `cluster_formation.classic_config.nodes.${index + 1} = ${name}`),
        ];
  const inFolder = (name: string): string => join(folder, name);
  const configuration = [`listeners.tcp.1 = 127.0.0.1:${port}`, 'disk_free_limit.absolute = 1MB', ...cluster, ...lines];
  await Bun.write(inFolder('rabbitmq.conf'), `${configuration.join('\n')}\n`);
  await Bun.write(inFolder('plugins'), '[].\n');
  return {
    command: ['/usr/lib/rabbitmq/bin/rabbitmq-server'],
    mapperCommand: ['epmd', '-port', String(mapperPort), '-address', '127.0.0.1'],
    environment: {
      ...process.env,
      HOME: member?.home ?? folder,
      ERL_EPMD_PORT: String(mapperPort),
      ERL_EPMD_ADDRESS: '127.0.0.1',
      ERL_CRASH_DUMP: inFolder('crash'),
      RABBITMQ_NODENAME: member?.name ?? rabbitNode,
      RABBITMQ_DIST_PORT: String(nodePort),
      RABBITMQ_BASE: folder,
      RABBITMQ_MNESIA_BASE: inFolder('data'),
      RABBITMQ_LOG_BASE: inFolder('log'),
      RABBITMQ_CONFIG_FILE: inFolder('rabbitmq.conf'),
      RABBITMQ_ENABLED_PLUGINS_FILE: inFolder('plugins'),
      RABBITMQ_GENERATED_CONFIG_DIR: inFolder('generated'),
      RABBITMQ_PID_FILE: inFolder('pid'),
      // The script becomes the server, in place of watching it; idle schedulers sleep at once.
      RABBITMQ_ALLOW_INPUT: '1',
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-noinput +sbwt none +sbwtdcpu none +sbwtdio none',
    },
  };
}
