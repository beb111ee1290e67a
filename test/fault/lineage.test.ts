// A database that fails over with lost commits, is restored, made again or set back to an earlier state went on under the
// epoch that it had: clients were told `recovered` and missed up to everything, and with Redis new rows were taken for
// repeats of lost ones. After a plain crash with synchronous_commit = off most new rows never came. Now whoever may have
// missed or been told too much gets a gap, and everything that is written afterwards arrives once.
//
// Each test takes both layers through it side by side. The cluster is one for all tests; the last one ends it.

import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import postgres from 'postgres';
import { migrate } from '../../src/database/migrate.ts';
import { Follower, followerTransports, truthOf, type Truth } from '../support/followers.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { becomesReady, startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { startCluster, startStandby, type TestCluster, type TestDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { randomFrom, seed } from '../support/random.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

const long = process.env['LONG'] === '1';
const layers = ['postgres', 'redis'] as const;
const channel = 'item';

let cluster: TestCluster;
let proxy: Proxy;
let redis: Awaited<ReturnType<typeof startRedis>>;

beforeAll(async () => {
  cluster = await startCluster(process.env['SOBRANIE_TEST_IMAGE']);
  [proxy, redis] = await Promise.all([startProxy({ port: cluster.port }), startRedis()]);
}, 60_000);

afterAll(async () => {
  await Promise.all([proxy.close(), redis.close()]);
  await cluster.close();
}, 60_000);

const closers: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

/** A database, the nodes of one layer on it, and who follows a table there. */
interface Site {
  readonly layer: (typeof layers)[number];
  readonly database: TestDatabase;
  /** Through the proxy. */
  readonly url: string;
  readonly first: RunningServer;
  /** Connected to the first node all along. */
  readonly live: readonly Follower[];
  /** Gone before it happens; their heirs come back. */
  readonly parted: readonly Follower[];
  /** Another node, which has not seen what was before; started once. */
  fresh(): Promise<RunningServer>;
}

async function siteOf(layer: Site['layer']): Promise<Site> {
  const database = await cluster.createDatabase({ migrated: true });
  const url = proxy.through(database.url);
  const start = async (name: string): Promise<RunningServer> => {
    const node = await startNode({
      NODE_ID: `${layer}-${name}`,
      DATABASE_URL: url,
      SYNC: layer,
      ...(layer === 'redis' ? { REDIS_URL: redis.url, REDIS_PREFIX: database.name } : {}),
    });
    closers.push(() => stopNodes([node]));
    return node;
  };
  await withSql(database.url, async (sql) => {
    await sql`create table item (id int primary key)`;
    await sql`select realtime.watch('item')`;
  });
  const first = await start('first');
  const names = ['live', 'parted'].map((name) => followersOf(first, `${layer} ${name}`));
  const [live = [], parted = []] = await Promise.all(names);
  let fresh: Promise<RunningServer> | undefined;
  return { layer, database, url, first, live, parted, fresh: () => (fresh ??= start('fresh')) };
}

function followersOf(node: RunningServer, name: string, parted?: readonly Follower[]): Promise<Follower[]> {
  return Promise.all(
    followerTransports.map(async (transport, index) => {
      const heirOf = parted?.[index];
      const options = { name: `${name} by ${transport}`, url: node.url, channel, transport };
      const follower = await Follower.start(heirOf === undefined ? options : { ...options, heirOf });
      closers.push(() => follower.close());
      return follower;
    }),
  );
}

async function withSql<Value>(url: string, work: (sql: postgres.Sql) => Promise<Value>): Promise<Value> {
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

function write(url: string, from: number, to: number): Promise<void> {
  return withSql(url, async (sql) => {
    for (const id of range(from, to)) await sql`insert into item values (${id})`;
  });
}

async function heard(followers: readonly Follower[], count: number): Promise<void> {
  for (const follower of followers)
    await until(
      () => follower.rows.length >= count,
      () => `${follower.story} has ${count} rows`,
      60_000,
    );
}

interface Event {
  /** Its first node sleeps meanwhile, and wakes up when another one has relayed what came after. */
  readonly sleeps?: Site['layer'];
  /** When five rows are written and told; the ten that follow may be lost. */
  readonly saved?: (sites: readonly Site[]) => Promise<void>;
  readonly happens: (sites: readonly Site[]) => Promise<void>;
  /** Whether everybody is to get a gap; otherwise nobody. */
  readonly gap: boolean;
}

async function goThrough({ saved, happens, gap, sleeps }: Event): Promise<void> {
  const sites = await Promise.all(layers.map(siteOf));
  const eachSite = (work: (site: Site) => Promise<unknown>): Promise<unknown> => Promise.all(sites.map(work));
  await eachSite(async ({ url, live, parted }) => {
    await write(url, 1, 5);
    await heard([...live, ...parted], 5);
  });
  await saved?.(sites);
  await eachSite(async ({ url, live, parted }) => {
    await write(url, 100, 109);
    await heard([...live, ...parted], 15);
    await Promise.all(parted.map((follower) => follower.close()));
  });
  for (const { layer, first } of sites) {
    if (layer !== sleeps) continue;
    process.kill(first.pid, 'SIGSTOP');
    // One that sleeps could not be ended.
    closers.push(() => void process.kill(first.pid, 'SIGCONT'));
  }
  await happens(sites);
  await eachSite((site) => checkAfter(site, gap, site.layer === sleeps));
}

/** Once the log tells this row. */
async function truthWith(id: number, node: RunningServer, url: string): Promise<Truth> {
  let truth: Truth | undefined;
  await until(
    async () => {
      truth = await truthOf(node.url, url, channel);
      return truth !== undefined && [...truth.log.values()].includes(id);
    },
    () => `the log at ${truth?.head.epoch} ${truth?.head.offset} tells row ${id}`,
    60_000,
    50,
  );
  return truth!;
}

/** Rows that are written now reach everybody, who lacks nothing and believes nothing that is not so. */
async function checkAfter(
  { layer, url, first, live, parted, fresh }: Site,
  gap: boolean,
  sleeps: boolean,
): Promise<void> {
  await write(url, 200, 209);
  if (sleeps) {
    await truthWith(209, await fresh(), url);
    process.kill(first.pid, 'SIGCONT');
  }
  const early = await truthWith(209, first, url);
  for (const follower of live) await follower.reaches(early);
  const known = [...live, ...(await followersOf(first, `${layer} same node`, parted))];
  const node = await fresh();
  known.push(...(await followersOf(node, `${layer} new node`, parted)));
  const all = [...known, ...(await followersOf(node, `${layer} newcomer`))];
  await write(url, 300, 302);
  for (const each of [first, node]) await becomesReady(each, 60_000);
  const written = [...range(200, 209), 300, 301, 302];
  const truth = await truthWith(302, first, url);
  expect([...truth.log.values()].filter((id) => id >= 200 && id < 1_000)).toEqual(written);
  for (const follower of all) await follower.reaches(truth);
  for (const follower of all) follower.expectRight(truth);
  // Who comes back may be further behind than the history reaches.
  const judged = gap ? known : live;
  for (const follower of judged) expect([follower.story, follower.gaps > 0]).toEqual([follower.story, gap]);
}

test('a restored dump takes the place of the database', async () => {
  const restores = new Map<Site, (url: string) => Promise<void>>();
  await goThrough({
    sleeps: 'redis',
    gap: true,
    saved: async (sites) => {
      for (const site of sites) restores.set(site, await dumpOf(site.database));
    },
    happens: async (sites) => {
      for (const [site, restore] of restores) {
        await replace(site.database, restore);
      }
      expect(restores.size).toBe(sites.length);
    },
  });
}, 120_000);

test('the database is dropped and made again', async () => {
  await goThrough({
    gap: true,
    happens: async (sites) => {
      for (const site of sites) {
        await replace(site.database);
        await site.fresh();
        await withSql(site.url, async (sql) => {
          await sql`create table item (id int primary key)`;
          await sql`select realtime.watch('item')`;
        });
      }
    },
  });
}, 120_000);

/** Drops the database under those who use it, and makes another one of its name. */
async function replace({ name, url, superUrl }: TestDatabase, fill?: (url: string) => Promise<void>): Promise<void> {
  const other = `${name}_next`;
  await withSql(superUrl.replace(name, 'postgres'), async (admin) => {
    await admin`create database ${admin(other)} owner app`;
    await fill?.(url.replace(name, other));
    await admin`drop database ${admin(name)} with (force)`;
    await admin`alter database ${admin(other)} rename to ${admin(name)}`;
  });
}

/** Answers how to restore what the database holds now: by pg_dump where this PostgreSQL comes with it. */
async function dumpOf({ superUrl }: TestDatabase): Promise<(url: string) => Promise<void>> {
  const bin = process.env['SOBRANIE_TEST_PG_BIN'] ?? '';
  if (existsSync(join(bin, 'pg_dump'))) {
    const file = join(temporaryFolder('dump'), 'dump.sql');
    await Bun.$`${join(bin, 'pg_dump')} --file ${file} ${superUrl}`.quiet();
    return async (url) => {
      await Bun.$`psql --quiet --set ON_ERROR_STOP=1 --file ${file} ${url.replace('//app@', '//postgres@')}`.quiet();
    };
  }
  return withSql(superUrl, rowsOf);
}

/** What a dump brings: every row of ours and of the table under other oids, and the sequences where they stood. */
async function rowsOf(sql: postgres.Sql): Promise<(url: string) => Promise<void>> {
  const tables = await sql<{ name: string }[]>`
    select c.relname as name from pg_class c
    where c.relnamespace = 'realtime'::regnamespace and c.relkind = 'r' and c.relname not in ('watched', 'migrations')`;
  const contents = new Map<string, string>();
  for (const { name } of tables) {
    const [row] = await sql`select coalesce(json_agg(t), '[]')::text as rows from realtime.${sql(name)} t`;
    contents.set(name, String(row?.['rows']));
  }
  const sequences = await sql`
    select sequencename as name, coalesce(last_value, 1)::text as value, last_value is not null as called
    from pg_sequences where schemaname = 'realtime'`;
  const ids = (await sql`select id from item`).map((row) => Number(row['id']));
  return async (url) => {
    await migrate(url);
    await withSql(url.replace('//app@', '//postgres@'), async (copy) => {
      for (const [name, rows] of contents) {
        await copy`truncate realtime.${copy(name)}`;
        await copy.unsafe(
          `insert into realtime.${name} overriding system value select * from json_populate_recordset(null::realtime.${name}, $1::text::json)`,
          [rows],
        );
      }
      for (const { name, value, called } of sequences)
        await copy`select setval(${`realtime.${String(name)}`}::text::regclass, ${String(value)}::text::bigint, ${Boolean(called)})`;
    });
    await withSql(url, async (copy) => {
      await copy`create table item (id int primary key)`;
      for (const id of ids) await copy`insert into item values (${id})`;
      await copy`select realtime.watch('item')`;
    });
  };
}

test(`it is killed, with commits that nobody had flushed (SEED=${seed})`, async () => {
  const random = randomFrom(seed);
  await goThrough({
    gap: false,
    happens: async (sites) => {
      await setAll({ wal_writer_delay: '10s', synchronous_commit: 'off' });
      closers.push(() => setAll({ wal_writer_delay: undefined, synchronous_commit: undefined }));
      for (let round = 1; round <= (long ? 50 : 2); round++) {
        const writing = Promise.all(sites.map(({ url }) => writeUntilLost(url, round * 10_000)));
        await Bun.sleep(50 + random() * 400);
        await cluster.kill9();
        await writing;
        await cluster.startServer();
      }
    },
  });
}, 600_000);

async function writeUntilLost(url: string, from: number): Promise<void> {
  // Of a connection that is lost while it asks for types, the driver tells nobody who could catch it.
  const sql = postgres(url, { max: 1, fetch_types: false, onnotice: () => undefined });
  try {
    for (let id = from; ; id++) await sql`insert into item values (${id})`;
  } catch (error) {
    // However it was lost, it is gone: a database that refuses the row itself would say so.
    expect(String((error as Error).message)).not.toMatch(/duplicate key|relation|permission/);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** For the whole cluster; without a value, as it was. */
async function setAll(settings: Readonly<Record<string, string | undefined>>): Promise<void> {
  await withSql(`postgres://postgres@127.0.0.1:${cluster.port}/postgres`, async (admin) => {
    for (const [name, value] of Object.entries(settings))
      await admin.unsafe(`alter system ${value === undefined ? `reset ${name}` : `set ${name} = '${value}'`}`);
    await admin`select pg_reload_conf()`;
  });
}

test.if(long)(
  'the disk is set back to an earlier state, while nodes run',
  async () => {
    const copy = join(temporaryFolder('copy'), 'data');
    await goThrough({
      gap: true,
      saved: async () => {
        await cluster.stopServer();
        copyFolder(cluster.folder, copy);
        await cluster.startServer();
      },
      happens: async (sites) => {
        // A set-back database is known by how far it had written when a node looked at it last.
        await withSql(
          sites[0]!.database.superUrl,
          (sql) => sql`select pg_logical_emit_message(true, 'test', repeat('x', 1000000))`,
        );
        for (const { first } of sites) await becomesReady(first);
        await cluster.stopServer();
        copyFolder(copy, cluster.folder);
        await cluster.startServer();
      },
    });
  },
  120_000,
);

/** With its owners, in place of what stands there. */
function copyFolder(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  const { exitCode } = Bun.spawnSync(['cp', '-a', from, to]);
  if (exitCode !== 0) throw new Error(`${from} could not be copied`);
}

// The last one: the cluster of all tests is gone after it.
test('a standby that lacks the last ten commits is promoted', async () => {
  const standby = await startStandby(cluster);
  closers.push(() => standby.close());
  await goThrough({
    sleeps: 'postgres',
    gap: true,
    saved: async () => {
      await standby.caughtUp();
      await standby.detach();
    },
    happens: async () => {
      await cluster.kill9();
      await standby.promote();
      proxy.retarget({ port: standby.port });
    },
  });
}, 120_000);
