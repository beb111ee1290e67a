// Real PgBouncer for tests, from Debian's package pgbouncer, in front of a PostgreSQL of the tests.

import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
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

function listens(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ host: '127.0.0.1', port });
  socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  return promise.finally(() => socket.destroy());
}
