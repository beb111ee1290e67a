// How tests and benchmarks run Debian's RabbitMQ: as one process, in a folder and on ports of its own, beside a port
// mapper of Erlang of its own. The one that comes with the package would outlive it, and be shared.

import { join } from 'node:path';

export interface RabbitPlace {
  readonly folder: string;
  readonly port: number;
  /** Between members of a cluster; RabbitMQ insists on it. */
  readonly nodePort: number;
  readonly mapperPort: number;
  /** Of its configuration file. */
  readonly lines?: readonly string[];
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
  const { folder, port, nodePort, mapperPort, lines = [] } = place;
  const inFolder = (name: string): string => join(folder, name);
  const configuration = [`listeners.tcp.1 = 127.0.0.1:${port}`, 'disk_free_limit.absolute = 1MB', ...lines];
  await Bun.write(inFolder('rabbitmq.conf'), `${configuration.join('\n')}\n`);
  await Bun.write(inFolder('plugins'), '[].\n');
  return {
    command: ['/usr/lib/rabbitmq/bin/rabbitmq-server'],
    mapperCommand: ['epmd', '-port', String(mapperPort), '-address', '127.0.0.1'],
    environment: {
      ...process.env,
      HOME: folder,
      ERL_EPMD_PORT: String(mapperPort),
      ERL_EPMD_ADDRESS: '127.0.0.1',
      ERL_CRASH_DUMP: inFolder('crash'),
      RABBITMQ_NODENAME: rabbitNode,
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
