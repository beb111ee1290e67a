// The bench's own PostgreSQL: the one the server brings along, in a folder of its own that goes when the bench goes,
// with fsync on and everything else as it comes. Also pgbench, which is the load where speed counts, and waiting.
import { readFileSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import postgres from 'postgres';
import { startEmbeddedPostgres } from '../src/embedded/embedded-postgres.ts';
import { BenchError, endWithBench } from './server-process.ts';

export interface BenchDatabase {
  readonly url: string;
  readonly sql: postgres.Sql;
  readonly directory: string;
  close(): Promise<void>;
}

const log = {
  info: () => undefined,
  warn: (_fields: object, message: string) => console.error(`postgres: ${message}`),
  error: (_fields: object, message: string) => console.error(`postgres: ${message}`),
};

export async function startDatabase(): Promise<BenchDatabase> {
  const directory = await mkdtemp(join(tmpdir(), 'sobranie-bench-'));
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  try {
    await useUp(directory);
    const server = await startEmbeddedPostgres({ directory, log });
    const sql = postgres(server.url, { max: 1, onnotice: () => undefined });
    // Its processes outlive a bench that leaves without waiting, as it does on a second signal.
    const postmaster = Number.parseInt(readFileSync(join(directory, 'postgres/postmaster.pid'), 'utf8'), 10);
    const endAtOnce = (): void => {
      process.kill(postmaster, 'SIGQUIT');
      remove();
    };
    process.on('exit', endAtOnce);
    return {
      url: server.url,
      sql,
      directory,
      close: async () => {
        await sql.end({ timeout: 2 });
        await server.stop();
        process.off('exit', endAtOnce);
        remove();
      },
    };
  } catch (error) {
    remove();
    throw error;
  }
}

// A new cluster makes each 16 MB of its log the moment they are needed, and all commits wait for it: 20 to 50 ms, every
// few seconds under load. One that has been in use writes over what it had before, and that is what is to be measured:
// the shutdown leaves what was written here for it.
async function useUp(directory: string): Promise<void> {
  const server = await startEmbeddedPostgres({ directory, log });
  const sql = postgres(server.url, { max: 1, onnotice: () => undefined });
  try {
    await sql`create table bench_before as select repeat('x', 1000) from generate_series(1, 200000)`;
    await sql`drop table bench_before`;
  } finally {
    await sql.end({ timeout: 2 });
    await server.stop();
  }
}

export interface PgbenchResult {
  readonly transactions: number;
  readonly perSecond: number;
}

export async function runPgbench(
  database: BenchDatabase,
  options: { script: string; clients: number; seconds: number; variables?: Readonly<Record<string, number>> },
): Promise<PgbenchResult> {
  const script = join(database.directory, 'pgbench.sql');
  await Bun.write(script, options.script);
  const variables = Object.entries(options.variables ?? {}).flatMap(([name, value]) => ['-D', `${name}=${value}`]);
  const child = Bun.spawn(
    [
      ...[await findPgbench(), '-n', '-f', script, ...variables],
      ...['-c', options.clients, '-j', Math.min(options.clients, 2), '-T', options.seconds].map(String),
      database.url,
    ],
    { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' },
  );
  endWithBench(child);
  const [out, complaint, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  const transactions = /transactions actually processed: (\d+)/.exec(out)?.[1];
  const perSecond = /tps = ([\d.]+) \(without/.exec(out)?.[1];
  if (code !== 0 || !transactions || !perSecond || !/failed transactions: 0 /.test(out)) {
    throw new BenchError(`pgbench ended with ${code}:\n${out}${complaint}`);
  }
  return { transactions: Number(transactions), perSecond: Number(perSecond) };
}

async function findPgbench(): Promise<string> {
  const glob = new Bun.Glob('*/bin/pgbench');
  const installed = await Array.fromAsync(glob.scan({ cwd: '/usr/lib/postgresql', absolute: true })).then(
    (paths) => paths.toSorted().at(-1),
    () => undefined,
  );
  const path = installed ?? Bun.which('pgbench');
  if (!path) throw new BenchError('this bench needs pgbench: apt-get install postgresql (any version)');
  return path;
}

export async function until(what: string, seconds: number, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + seconds * 1000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new BenchError(`${what}: not within ${seconds} s`);
    await Bun.sleep(5);
  }
}
