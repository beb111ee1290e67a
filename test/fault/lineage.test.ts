// A database that fails over with lost commits, or is set back to an earlier state, went on under the epoch that it had:
// clients were told `recovered` and missed up to everything, and with Redis new rows were taken for repeats of lost ones.
// Now whoever holds a position from before gets a gap, and everything that is written afterwards arrives once.

import { afterEach, describe, expect, test } from 'bun:test';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import postgres from 'postgres';
import { EventClient, WebSocketClient, type Frame } from '../support/clients.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { startCluster, startStandby, type TestCluster, type TestDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

const long = process.env['LONG'] === '1';

const closers: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

interface Stage {
  readonly cluster: TestCluster;
  readonly database: TestDatabase;
  readonly proxy: Proxy;
  /** The first one reads on through everything; the other starts afterwards. */
  start(name: string): Promise<RunningServer>;
}

async function stageOf(layer: 'postgres' | 'redis'): Promise<Stage> {
  const cluster = await startCluster();
  closers.push(() => cluster.close());
  const database = await cluster.createDatabase({ migrated: true });
  const proxy = await startProxy({ port: cluster.port });
  closers.push(() => proxy.close());
  const redis = layer === 'redis' ? await startRedis() : undefined;
  closers.push(() => redis?.close());
  const start = async (name: string): Promise<RunningServer> => {
    const node = await startNode({
      NODE_ID: name,
      DATABASE_URL: proxy.through(database.url),
      SYNC: layer,
      ...(redis === undefined ? {} : { REDIS_URL: redis.url }),
    });
    closers.push(() => stopNodes([node]));
    return node;
  };
  return { cluster, database, proxy, start };
}

/** A client, and what it has heard since. */
class Reader {
  readonly frames: Frame[] = [];
  readonly client: WebSocketClient;
  constructor(client: WebSocketClient) {
    this.client = client;
    void this.#read();
  }
  get rows(): number[] {
    return this.frames
      .filter(({ type }) => type === 'message')
      .map(({ data }) => (data as { data: { id: number } }).data.id);
  }
  get gaps(): number {
    return this.frames.filter(({ type }) => type === 'gap').length;
  }
  /** For a message: what it has heard, in short. */
  get story(): string {
    return this.frames.map(({ type, offset }) => (offset === undefined ? type : `${type} ${offset}`)).join(', ');
  }
  get position() {
    const { epoch } = this.frames.find(({ type }) => type === 'subscribed')!;
    return { epoch, offset: this.frames.findLast(({ type }) => type === 'message')!['offset'] };
  }
  async #read(): Promise<void> {
    for (;;) {
      try {
        this.frames.push(await this.client.nextAny(120_000));
      } catch {
        return;
      }
    }
  }
}

async function reads(node: RunningServer, since?: unknown): Promise<Reader> {
  const client = await WebSocketClient.open(node.url);
  closers.push(() => client.cut());
  const reader = new Reader(client);
  client.send({ type: 'subscribe', channel: 'item', ...(since === undefined ? {} : { since }) });
  await until(() => reader.frames.some(({ type }) => type === 'subscribed'), 'it is subscribed', 20_000);
  return reader;
}

async function write(url: string, from: number, to: number): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  for (let id = from; id <= to; id++) await sql`insert into item values (${id})`;
  await sql.end({ timeout: 1 });
}

async function watch(url: string): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  await sql`create table item (id int primary key)`;
  await sql`select realtime.watch('item')`;
  await sql.end({ timeout: 1 });
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** Who listened all along, and who comes back with a position from before: a gap, then all that is new, once. */
async function expectGapsAndRows(stage: Stage, node: RunningServer, live: Reader, position: unknown): Promise<void> {
  const fresh = await stage.start('fresh');
  const last = 209;
  for (const reader of [live, await reads(node, position), await reads(fresh, position)]) {
    await until(
      () => reader.gaps > 0,
      () => `a gap, after ${reader.story}`,
      30_000,
    );
    await until(
      () => reader.rows.includes(last) || reader !== live,
      () => `new rows, after ${reader.story}`,
      30_000,
    );
  }
  const again = await reads(fresh);
  await write(stage.proxy.through(stage.database.url), 300, 302);
  for (const reader of [live, again])
    await until(
      () => reader.rows.includes(302),
      () => `later rows, after ${reader.story}`,
      30_000,
    );
  // What was told, was told once; nothing that is new is missing.
  const rows = live.rows;
  const written = [...range(200, last), 300, 301, 302];
  expect(rows.filter((id) => id >= 200)).toEqual(written);
  expect(new Set(rows).size).toBe(rows.length);
  // A node that was still behind had some of the others to tell.
  expect(again.rows.length).toBeGreaterThanOrEqual(3);
  expect(again.rows).toEqual(written.slice(-again.rows.length));
}

describe.each(['postgres', 'redis'] as const)('over %s', (layer) => {
  test('a standby that lacks the last ten commits is promoted', async () => {
    const stage = await stageOf(layer);
    const { cluster, database, proxy } = stage;
    await watch(database.url);
    const node = await stage.start('first');
    const standby = await startStandby(cluster);
    closers.push(() => standby.close());
    const live = await reads(node);
    await write(database.url, 1, 5);
    await until(() => live.rows.length === 5, 'five rows');
    await standby.caughtUp();
    await standby.detach();
    await write(database.url, 100, 109);
    await until(() => live.rows.length === 15, 'fifteen rows', 20_000);
    const { position } = live;
    const events = await EventClient.open(node.url, { query: 'channels=item' });
    closers.push(() => events.cut());
    await cluster.kill9();
    await standby.promote();
    proxy.retarget({ port: standby.port });
    await write(proxy.through(database.url), 200, 209);
    await expectGapsAndRows(stage, node, live, position);
    expect((await events.next('gap', 20_000)).type).toBe('gap');
  }, 120_000);

  test.if(long)(
    'the disk is set back to an earlier state, while a node runs',
    async () => {
      const stage = await stageOf(layer);
      const { cluster, database } = stage;
      await watch(database.url);
      const node = await stage.start('first');
      const live = await reads(node);
      await write(database.url, 1, 5);
      await until(() => live.rows.length === 5, 'five rows');
      const admin = postgres(database.superUrl, { max: 1 });
      const [row] = await admin`select current_setting('data_directory') as path`;
      await admin.end({ timeout: 1 });
      const path = String(row!['path']);
      const copy = join(temporaryFolder('copy'), 'data');
      await cluster.stopServer();
      copyFolder(path, copy);
      await cluster.startServer();
      await write(database.url, 100, 109);
      await until(() => live.rows.length === 15, 'fifteen rows', 30_000);
      const { position } = live;
      // A set-back database is known by how far it had written when a node looked at it last.
      const filler = postgres(database.superUrl, { max: 1 });
      await filler`select pg_logical_emit_message(true, 'test', repeat('x', 1000000))`;
      await filler.end({ timeout: 1 });
      expect((await fetch(`${node.url}/health/ready`)).status).toBe(200);
      await cluster.stopServer();
      copyFolder(copy, path);
      await cluster.startServer();
      await write(database.url, 200, 209);
      await expectGapsAndRows(stage, node, live, position);
    },
    120_000,
  );
});

/** With its owners, in place of what stands there. */
function copyFolder(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  const { exitCode } = Bun.spawnSync(['cp', '-a', from, to]);
  if (exitCode !== 0) throw new Error(`${from} could not be copied`);
}
