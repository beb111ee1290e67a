// A real nats-server of the tests' own, on a free port, with its streams in a temporary folder; or several that are one
// cluster. Ends with the test process.

import { connect, type ConnectionOptions } from '@nats-io/transport-node';
import { jetstreamManager } from '@nats-io/jetstream';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { natsProgram } from '../../scripts/nats-program.ts';
import { endAfterTests, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';

export interface TestNats {
  readonly url: string;
  readonly port: number;
  start(): Promise<void>;
  /** SIGKILL; resolves when the process is gone. The streams stay in their folder. */
  kill9(): Promise<void>;
  /** Resolves when it has ended: the next start finds no streams. */
  replace(): Promise<void>;
  /** SIGSTOP: connections stand, and nobody answers. */
  pause(): void;
  resume(): void;
  close(): Promise<void>;
}

interface ServerOptions {
  readonly args?: readonly string[];
  /** Resolves when the server can be used. */
  readonly ready: (url: string) => Promise<void>;
}

async function server(port: number, { args = [], ready }: ServerOptions): Promise<TestNats> {
  const folder = await temporaryFolder('nats');
  const url = `nats://127.0.0.1:${port}`;
  let child: Bun.Subprocess | undefined;
  const end = async (): Promise<void> => {
    child?.kill('SIGKILL');
    await child?.exited;
    child = undefined;
  };
  return {
    url,
    port,
    start: async () => {
      const command = [natsProgram(), '-a', '127.0.0.1', '-p', String(port), '-js', '-sd', folder, ...args];
      child = Bun.spawn(command, { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' });
      endAfterTests(child);
      await ready(url);
    },
    kill9: end,
    replace: async () => {
      await end();
      rmSync(join(folder, 'jetstream'), { recursive: true, force: true });
    },
    pause: () => child?.kill('SIGSTOP'),
    resume: () => child?.kill('SIGCONT'),
    close: end,
  };
}

/** `login`: how a client that may enter gives its name. */
export async function startNats(args: readonly string[] = [], login: ConnectionOptions = {}): Promise<TestNats> {
  const nats = await server(await freePort(), { args, ready: (url) => streamsAnswer(url, login) });
  await nats.start();
  return nats;
}

export interface TestNatsCluster {
  readonly url: string;
  readonly servers: readonly TestNats[];
  /** The server that leads the stream. */
  leaderOf(stream: string): Promise<TestNats>;
  close(): Promise<void>;
}

/** Three servers, each of which knows the others. */
export async function startNatsCluster(): Promise<TestNatsCluster> {
  const ports = await Promise.all(Array.from({ length: 6 }, () => freePort()));
  const [clients, routes] = [ports.slice(0, 3), ports.slice(3)];
  const peers = routes.map((port) => `nats://127.0.0.1:${port}`).join(',');
  const servers = await Promise.all(
    clients.map((port, index) => {
      const named = ['-n', `n${index}`, '--cluster_name', 'test', '-routes', peers];
      const args = [...named, '-cluster', `nats://127.0.0.1:${routes[index]}`];
      return server(port, { args, ready: () => Promise.resolve() });
    }),
  );
  await Promise.all(servers.map((each) => each.start()));
  const url = `nats://${clients.map((port) => `127.0.0.1:${port}`).join(',')}`;
  await streamsAnswer(clients.map((port) => `127.0.0.1:${port}`).join(','));
  return {
    url,
    servers,
    leaderOf: async (stream) => {
      const connection = await connect({ servers: clients.map((port) => `127.0.0.1:${port}`) });
      try {
        // While the cluster chooses one, of the stream or of its own, nobody answers.
        return await untilAnswered(async () => {
          const manager = await jetstreamManager(connection, { timeout: 1_000 });
          const { cluster } = await manager.streams.info(stream);
          const found = servers[Number(cluster?.leader?.slice(1))];
          if (found === undefined) throw new Error(`the stream ${stream} has no leader`);
          return found;
        });
      } finally {
        await connection.close();
      }
    },
    close: async () => {
      await Promise.all(servers.map((each) => each.close()));
    },
  };
}

async function streamsAnswer(url: string, login: ConnectionOptions = {}): Promise<void> {
  const connection = await connect({
    ...login,
    servers: url.replace('nats://', '').split(','),
    waitOnFirstConnect: true,
    reconnectTimeWait: 20,
  });
  await untilAnswered(async () => {
    const manager = await jetstreamManager(connection, { timeout: 500 });
    await manager.getAccountInfo();
  });
  await connection.close();
}

async function untilAnswered<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
  const deadline = performance.now() + 30_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await Bun.sleep(20);
    }
  }
}
