// Real PgBouncer for tests, from Debian's package pgbouncer, in front of a PostgreSQL of the tests.

import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { chooseAccount } from '../../src/embedded/account.ts';
import { removeFolder, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';
import { spawnProgram } from './process.ts';
import { until } from './tcp-client.ts';

export interface PgBouncer {
  readonly port: number;
  /** The same database through it. */
  through(url: string): string;
  close(): Promise<void>;
}

export type PoolMode = 'session' | 'transaction' | 'statement';

/** `port` is where PostgreSQL listens. Every user gets in without a password, as in the tests' PostgreSQL. */
export async function startPgBouncer(port: number, mode: PoolMode, poolSize = 10): Promise<PgBouncer> {
  const folder = temporaryFolder('pgbouncer');
  chmodSync(folder, 0o755);
  const own = await freePort();
  const file = join(folder, 'pgbouncer.ini');
  writeFileSync(
    file,
    `[databases]
* = host=127.0.0.1 port=${port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${own}
unix_socket_dir =
auth_type = trust
auth_file = ${join(folder, 'users')}
pool_mode = ${mode}
default_pool_size = ${poolSize}
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
`,
  );
  writeFileSync(join(folder, 'users'), '"app" ""\n"postgres" ""\n');
  const program = Bun.which('pgbouncer') ?? '/usr/sbin/pgbouncer';
  if (!existsSync(program)) throw new Error('pgbouncer is not installed: bun run dev installs what tests need');
  const account = chooseAccount({ cluster: folder, reachable: [program] });
  const running = spawnProgram(account.command([program, file]), {}, folder);
  await until(() => listens(own), 'pgbouncer listens', 10_000);
  return {
    port: own,
    through: (url) => {
      const changed = new URL(url);
      changed.port = String(own);
      return changed.href;
    },
    close: async () => {
      await running.stop('SIGTERM').catch(() => running.kill9());
      await removeFolder(folder);
    },
  };
}

/**
 * A pooler that ends a transaction behind each of its statements without a word, as Odyssey's statement mode does. It
 * speaks the simple protocol alone, and gives the cancelling key of nobody.
 */
export async function startSplittingPooler(port: number): Promise<Pick<PgBouncer, 'port' | 'close'>> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const backend = connect({ host: '127.0.0.1', port });
    let left = Buffer.alloc(0);
    let isQuiet = false;
    const held: Buffer[] = [];
    const ask = (bytes: Buffer): unknown => (isQuiet ? held.push(bytes) : backend.write(bytes));
    client.on('data', ask);
    backend.on('data', (bytes: Buffer) => {
      left = Buffer.concat([left, bytes]);
      while (left.length >= 5 && left.length > left.readUInt32BE(1)) {
        const message = left.subarray(0, 1 + left.readUInt32BE(1));
        left = left.subarray(message.length);
        const kind = String.fromCharCode(message[0] ?? 0);
        if (kind === 'K') message.writeUInt32BE(1, 5);
        if (!isQuiet) client.write(message);
        if (kind !== 'Z') continue;
        const isOpen = !isQuiet && message[5] !== 'I'.charCodeAt(0);
        isQuiet = isOpen;
        if (isOpen) backend.write(Buffer.from('Q\0\0\0\x0dROLLBACK\0'));
        else for (const each of held.splice(0)) ask(each);
      }
    });
    for (const socket of [client, backend]) {
      sockets.add(socket);
      socket
        .on('error', () => undefined)
        .on('close', () => (client.destroy(), backend.destroy(), sockets.delete(socket)));
    }
  });
  const own = await freePort();
  await new Promise<void>((resolve) => server.listen(own, '127.0.0.1', resolve));
  return {
    port: own,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function listens(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ host: '127.0.0.1', port });
  socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  return promise.finally(() => socket.destroy());
}
