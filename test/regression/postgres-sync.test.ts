// Faults of the sync layer over PostgreSQL that were mended once and must not come back: each test tells its story. The
// adapter stands alone here, on a real database whose statements are held up by locks, so that what was met by chance
// under load happens every time.

import { heapStats } from 'bun:jsc';
import { afterEach, describe, expect, test } from 'bun:test';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from '../support/doubles.ts';
import type { Publication } from '../../src/core/publication.ts';
import { Rules } from '../../src/rules/rules.ts';
import type { Outgoing } from '../../src/core/sync-adapter.ts';
import { connect, type Database } from '../../src/database/connect.ts';
import type { Position } from '../../src/protocol/position.ts';
import { PostgresAdapter } from '../../src/sync/postgres/adapter.ts';
import { PostgresReader } from '../../src/sync/postgres/reader.ts';
import { createDatabase, sharedCluster, type TestDatabase } from '../support/postgres.ts';
import { startProxy } from '../support/proxy.ts';
import { until, wait } from '../support/tcp-client.ts';
import { patient } from '../support/patience.ts';

patient();

const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;

interface TestNode {
  readonly adapter: PostgresAdapter;
  readonly heard: Publication[];
  readonly heads: { readonly channel: string; readonly head: Position }[];
  /** What of it waits for a lock in the database. */
  waiting(): Promise<readonly string[]>;
}

describe('The sync layer over PostgreSQL', () => {
  let closers: (() => Promise<unknown>)[] = [];

  afterEach(async () => {
    const closing = closers.reverse();
    closers = [];
    for (const close of closing) await close();
  }, 30_000);

  async function migrated(): Promise<TestDatabase> {
    const database = await createDatabase({ migrated: true });
    closers.push(() => database.drop());
    return database;
  }

  function client(url: string, applicationName: string, max = 4): Database {
    const sql = connect(url, { applicationName, max });
    closers.push(() => sql.end({ timeout: 1 }));
    return sql;
  }

  let nodes = 0;

  async function startNode(database: TestDatabase, url = database.url): Promise<TestNode> {
    const name = `regression ${++nodes}`;
    const heard: Publication[] = [];
    const heads: TestNode['heads'] = [];
    const adapter = new PostgresAdapter({
      sql: client(url, name),
      reads: client(url, name),
      connectDirect: () => connect(url, { applicationName: `${name} listener`, max: 1 }),
      nodeId: `node-${nodes}`,
      applicationName: name,
      clock: systemClock,
      observer: silentObserver,
      log: () => undefined,
    });
    closers.push(() => adapter.close());
    await adapter.start({
      publication: (publication) => heard.push(publication),
      head: (channel, head) => heads.push({ channel, head }),
      settled: () => undefined,
    });
    const admin = client(database.superUrl, 'admin', 1);
    const waiting = async (): Promise<readonly string[]> => {
      const rows = await admin<{ query: string }[]>`
        SELECT query FROM pg_stat_activity WHERE application_name IN (${name}, ${`${name} listener`}) AND wait_event_type = 'Lock'`;
      return rows.map(({ query }) => query);
    };
    return { adapter, heard, heads, waiting };
  }

  function outgoing(channel: string, data: string): Outgoing {
    return { channel, rule, data, at: Date.now() };
  }

  async function publish({ adapter }: TestNode, channel: string, ...all: readonly string[]): Promise<void> {
    for (const data of all) await adapter.publish(outgoing(channel, data));
  }

  function told({ heard }: TestNode): string[] {
    return heard.map(({ data }) => data);
  }

  /** Nobody reads or writes the table until the answer is called, which commits with what it is given. */
  async function hold(sql: Database, table: string): Promise<(statement?: string) => Promise<void>> {
    // Only a connection that is open can be reserved where array types are not fetched.
    await sql`SELECT`;
    const session = await sql.reserve();
    await session`BEGIN`;
    await session.unsafe(`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`);
    let held = true;
    const release = async (statement = 'SELECT'): Promise<void> => {
      if (!held) return;
      held = false;
      await session.unsafe(`${statement}; COMMIT`).simple();
      session.release();
    };
    closers.push(() => release());
    return release;
  }

  /** As after a restore of an older state: fewer publications than the nodes have read, under another name. */
  async function resetLog(sql: Database, epoch: string): Promise<void> {
    await sql.begin(async (transaction) => {
      await transaction`DELETE FROM realtime.publications`;
      await transaction`SELECT setval('realtime.publications_seq_seq', 1, false)`;
      await transaction`UPDATE realtime.log SET epoch = ${epoch}`;
    });
  }

  /** The node's LISTEN ends with its session; it comes back at once. */
  async function endListener(admin: Database): Promise<void> {
    const ended = await admin`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE application_name LIKE '% listener' AND datname = current_database()`;
    expect(ended.length).toBeGreaterThan(0);
  }

  async function listening(admin: Database): Promise<boolean> {
    const rows = await admin`
      SELECT FROM pg_stat_activity
      WHERE application_name LIKE '% listener' AND datname = current_database() AND query ILIKE 'listen%'
        AND state = 'idle'`;
    return rows.length > 0;
  }

  // When another log was noticed while a read of the old one was under way, that read, coming to its end, put the reader
  // back to the old log's place. The new one was far behind that, and every notification of it was passed over: the node
  // was deaf, for ever, and said that all was well.
  test('the reader is put to another log while a read is under way: it goes on from there', async () => {
    const database = await migrated();
    const sql = client(database.url, 'test');
    const admin = client(database.superUrl, 'admin', 1);
    const node = await startNode(database);
    await node.adapter.subscribe('a', rule);
    await publish(node, 'a', '1', '2', '3', '4', '5');
    await until(() => told(node).length === 5, 'the five');

    const release = await hold(sql, 'realtime.channels');
    node.adapter.reader.catchUp();
    await until(async () => (await node.waiting()).length > 0, 'a read is under way');
    await resetLog(sql, 'restored');
    const [{ at } = { at: '' }] = await sql<{ at: string }[]>`SELECT clock_timestamp()::text AS at`;
    await endListener(admin);
    // Its first question on return is what log there is; what follows that waits behind the read.
    await until(() => listening(admin), 'the node listens again');
    await until(
      async () =>
        (
          await admin`SELECT FROM pg_stat_activity
            WHERE application_name LIKE 'regression%' AND query LIKE '%realtime.log%' AND state = 'idle'
              AND query_start > ${at}::text::timestamptz`
        ).length > 0,
      'the other log is noticed',
    );
    await release('DELETE FROM realtime.channels');
    await until(() => node.heads.some(({ head }) => head.epoch === 'restored'), 'the head is told', 10_000);

    const other = await startNode(database);
    await publish(other, 'a', '"new"');
    await until(() => told(node).includes('"new"'), 'what is published now', 10_000);
  }, 60_000);

  // A connection that was lost again while the node caught up after the first loss was not caught up with: what was
  // published, or another log that took the place of this one, in between was noticed by chance alone.
  test('the connection is regained twice while the node catches up: it catches up again', async () => {
    const database = await migrated();
    const sql = client(database.url, 'test');
    const admin = client(database.superUrl, 'admin', 1);
    const node = await startNode(database);
    await node.adapter.subscribe('a', rule);
    await publish(node, 'a', '1');
    await until(() => told(node).length === 1, 'the first');

    const release = await hold(sql, 'realtime.channels');
    await endListener(admin);
    await until(async () => (await node.waiting()).length > 0, 'the node catches up');
    const heads = node.heads.length;
    await resetLog(sql, 'another');
    await endListener(admin);
    await until(() => listening(admin), 'the node listens again');
    await release('DELETE FROM realtime.channels');
    // Each catching up ends with the heads.
    await until(() => node.heads.length >= heads + 2, 'both times are seen to', 4_000);
    expect(node.heads.at(-1)).toEqual({ channel: 'a', head: { epoch: 'another', offset: 0 } });
  }, 60_000);

  // A publisher that was told `unavailable` and did not try again found its publication in the channel all the same:
  // what had waited behind a slow statement was appended once the database answered.
  // The relay led before its node had followed the promoted database: the first batch was handed to a reader that then
  // moved past it, and subscribers got a gap for rows that could have been told.
  test('what has followed another log has told where its channels stand there, and hears what comes then', async () => {
    const database = await migrated();
    const node = await startNode(database);
    await node.adapter.subscribe('a', rule);
    await publish(node, 'a', '"old"');
    const admin = client(database.superUrl, 'admin', 1);
    await admin`SELECT realtime.renew()`;
    const release = await hold(client(database.superUrl, 'holder', 1), 'realtime.log');
    let isDone = false;
    const following = node.adapter.follow().then(() => (isDone = true));
    await until(async () => (await node.waiting()).length > 0, 'it waits for the log');
    expect(isDone).toBe(false);
    await release();
    await following;
    const [{ epoch } = { epoch: '' }] = await admin<{ epoch: string }[]>`SELECT epoch FROM realtime.log`;
    expect(node.heads.at(-1)).toEqual({ channel: 'a', head: { epoch, offset: 1 } });
    await publish(node, 'a', '"new"');
    await until(() => told(node).length === 2, 'the new one is heard');
    expect(node.heard.at(-1)).toMatchObject({ data: '"new"', epoch, offset: 2 });
  });

  // Histories take turns. While the database did not answer, each turn took a second, one after the other.
  test('a crowd that asks for histories while the database does not answer is told so within seconds', async () => {
    const database = await migrated();
    const node = await startNode(database);
    const release = await hold(client(database.superUrl, 'holder', 1), 'realtime.publications');
    const startedAt = performance.now();
    const ask = (_: unknown, index: number) => node.adapter.history(`c${index}`, rule, { limit: 10 });
    const answers = await Promise.allSettled(Array.from({ length: 60 }, ask));
    expect(answers.filter(({ status }) => status === 'rejected')).toHaveLength(60);
    expect(performance.now() - startedAt).toBeLessThan(15_000);
    await release();
    expect(await node.adapter.history('c1', rule, { limit: 10 })).toMatchObject({ complete: true });
  }, 60_000);

  test('what was answered `unavailable` while it waited is not appended afterwards', async () => {
    const database = await migrated();
    const sql = client(database.url, 'test');
    const node = await startNode(database);
    await publish(node, 'a', '"before"');
    const release = await hold(sql, 'realtime.publications');
    const codeOf = (data: string): Promise<unknown> =>
      Promise.resolve(node.adapter.publish(outgoing('a', data))).then(
        () => 'published',
        (error: unknown) => (error as { code?: unknown }).code,
      );
    const underWay = codeOf('"under way"');
    await until(async () => (await node.waiting()).length > 0, 'an append is under way');
    const late = Promise.all([codeOf('"late 1"'), codeOf('"late 2"'), codeOf('"late 3"')]);
    expect(await wait(underWay, 5_000, 'an answer')).toBe('unavailable');
    expect(await wait(late, 5_000, 'answers')).toEqual(['unavailable', 'unavailable', 'unavailable']);
    await release();

    await publish(node, 'a', '"after"');
    const { publications } = await node.adapter.history('a', rule, { limit: 100 });
    const kept = publications.map(({ data }) => data);
    // Nobody knows what becomes of a statement under way, which is why a key makes the retry safe.
    expect(kept.filter((data) => data !== '"under way"')).toEqual(['"before"', '"after"']);
  }, 60_000);

  // A database that failed over to a fresh copy has fewer publications than the node has read, in a log of another name.
  // The node compared their numbers with its own place, found none of them new, and heard nothing for ever, its health
  // green.
  test('another database takes its place under the same address: the node hears what it is told', async () => {
    const database = await migrated();
    const { port } = await sharedCluster();
    const proxy = await startProxy({ port });
    closers.push(() => proxy.close());
    const node = await startNode(database, proxy.through(database.url));
    await node.adapter.subscribe('a', rule);
    await publish(node, 'a', '1', '2', '3', '4', '5');
    await until(() => told(node).length === 5, 'the five');

    const outside = client(new URL('/postgres', database.superUrl).href, 'outside', 1);
    const gone = `${database.name}_gone`;
    const fresh = await createDatabase({ migrated: true });
    proxy.mode = 'refuse';
    proxy.cut();
    // Only a database that nobody uses takes another name.
    const rename = async (from: string, to: string): Promise<void> => {
      await outside.unsafe(`ALTER DATABASE ${from} ALLOW_CONNECTIONS false`);
      await outside`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ${from}`;
      await until(
        async () => (await outside`SELECT FROM pg_stat_activity WHERE datname = ${from}`).length === 0,
        'nobody is connected',
      );
      await outside.unsafe(`ALTER DATABASE ${from} RENAME TO ${to}`);
      await outside.unsafe(`ALTER DATABASE ${to} ALLOW_CONNECTIONS true`);
    };
    await rename(database.name, gone);
    closers.push(() => outside.unsafe(`DROP DATABASE IF EXISTS ${gone} WITH (FORCE)`));
    await rename(fresh.name, database.name);
    await client(database.url, 'test')`UPDATE realtime.log SET epoch = 'fresh', topic = 'fresh'`;
    proxy.mode = 'forward';
    await until(() => node.heads.at(-1)?.head.epoch === 'fresh', 'the head in the fresh one', 15_000);
    const other = await startNode(database);
    await publish(other, 'a', '"fresh"');
    await until(() => told(node).at(-1) === '"fresh"', 'what is published in the fresh one', 10_000);
    expect(node.adapter.health().up).toBe(true);
  }, 60_000);

  test('a read that did not know a channel yet does not pass over its rows', async () => {
    const database = await migrated();
    const [pool, other] = [client(database.url, 'read', 1), client(database.url, 'other', 1)];
    const told: Publication[] = [];
    const reader = new PostgresReader(
      { sql: pool, clock: systemClock, observer: silentObserver, name: 'test', log: () => undefined },
      { publication: (publication) => void told.push(publication), head: () => undefined, settled: () => undefined },
      0,
    );
    reader.add('a');
    // The read waits behind a query that waits for a lock, and so it sees what is appended in the meantime.
    const blocked = Promise.withResolvers<void>();
    const locked = Promise.withResolvers<void>();
    const blocking = other.begin(async (transaction) => {
      await transaction`SELECT pg_advisory_xact_lock(4711)`;
      locked.resolve();
      await blocked.promise;
    });
    await locked.promise;
    const waiting = pool`SELECT pg_advisory_lock(4711)`.execute();
    reader.catchUp();
    reader.add('b');
    const admin = client(database.url, 'writer', 1);
    await admin`SELECT FROM realtime.append_one(100, 3600, NULL, 'b', '1', NULL, NULL, NULL)`;
    blocked.resolve();
    await Promise.all([blocking, waiting]);
    await reader.idle();
    expect(told.map(({ channel, offset }) => [channel, offset])).toEqual([['b', 1]]);
    await reader.close();
  });

  test('a giver waits while many rows that it handed over are not delivered', async () => {
    const settling = Promise.withResolvers<void>();
    const reader = new PostgresReader(
      { sql: client('postgres://127.0.0.1:1/none', 'none'), clock: systemClock, observer: silentObserver, name: 'test', log: () => undefined }, // prettier-ignore
      { publication: () => undefined, head: () => undefined, settled: () => settling.promise },
      0,
    );
    const hand = (first: number, count: number): void | Promise<void> => {
      const row = { channel: 'a', epoch: 'e', data: '1', at: 1, user: null, connection: null, except: null };
      return reader.hand(Array.from({ length: count }, (_, index) => ({ ...row, seq: first + index, offset: 1 })));
    };
    // The first is delivered in the same step; then the sockets are waited for.
    expect(hand(1, 1_000)).toBeUndefined();
    expect(hand(1_001, 4_000)).toBeUndefined();
    const waiting = hand(5_001, 1);
    expect(waiting).toBeInstanceOf(Promise);
    settling.resolve();
    await waiting;
    await reader.idle();
    expect(reader.last).toBe(5_001);
    await reader.close();
  });

  // Each step ended with the promise of the next one: while rows came without a pause, every batch left a promise behind,
  // and all of them were kept until the reader had nothing left to do.
  test('a reader that never gets to rest keeps nothing of the batches that it has delivered', async () => {
    const batches = 20_000;
    const countPromises = (): number => {
      Bun.gc(true);
      return heapStats().objectTypeCounts['Promise'] ?? 0;
    };
    const before = countPromises();
    let delivered = 0;
    let promises = 0;
    const handNext = (): void => {
      const row = { channel: 'a', epoch: 'e', data: '1', at: 1, user: null, connection: null, except: null };
      void reader.hand([{ ...row, seq: delivered + 1, offset: delivered + 1 }]);
    };
    const reader = new PostgresReader(
      // Rows that follow one another are not read from the database.
      { sql: client('postgres://127.0.0.1:1/none', 'none'), clock: systemClock, observer: silentObserver, name: 'test', log: () => undefined }, // prettier-ignore
      {
        publication: () => void delivered++,
        head: () => undefined,
        settled: async () => {
          await Promise.resolve();
          if (delivered < batches) return handNext();
          promises = countPromises() - before;
        },
      },
      0,
    );
    reader.add('a');
    handNext();
    await reader.idle();
    expect(delivered).toBe(batches);
    expect(promises).toBeLessThan(batches / 10);
    await reader.close();
  });
});
