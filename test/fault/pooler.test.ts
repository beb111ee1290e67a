// A pooler in transaction mode took LISTEN and locks away without a word: rows stayed in the outbox, and the migration's
// lock or the leader's stayed behind on a session of the pooler's, so that no other node could ever migrate or lead. Now
// it is recognised before a lock is taken, at the start and each time the relay connects.

import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test';
import postgres from 'postgres';
import type { HealthReport } from '../../src/api/operations.ts';
import { poolingOf } from '../../src/database/pooler.ts';
import { unpreparedUrl } from '../../src/database/url.ts';
import { WebSocketClient } from '../support/clients.ts';
import { becomesReady, startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { startPgBouncer, startSplittingPooler, type PgBouncer } from '../support/pgbouncer.ts';
import { createDatabase, sharedCluster, type TestDatabase } from '../support/postgres.ts';
import { spawnCommand, spawnServer, type Environment, type RunningServer } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

/** Nothing here is about speed: only what never comes fails. */
const patienceMs = 60_000;

let session: PgBouncer;
let transaction: PgBouncer;
let statement: PgBouncer;
let database: TestDatabase;
const closers: (() => Promise<unknown> | void)[] = [];

beforeAll(async () => {
  const { port } = await sharedCluster();
  [session, transaction, statement] = await Promise.all([
    startPgBouncer(port, 'session', 20),
    startPgBouncer(port, 'transaction'),
    startPgBouncer(port, 'statement'),
  ]);
  database = await createDatabase({ migrated: true });
}, 60_000);

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

afterAll(async () => {
  await Promise.all([session.close(), transaction.close(), statement.close()]);
  await database.drop();
}, 60_000);

async function start(settings: Environment): Promise<RunningServer> {
  const node = await startNode(settings, patienceMs);
  closers.push(() => stopNodes([node]));
  return node;
}

async function locksHeld(): Promise<number> {
  const sql = postgres(database.superUrl, { max: 1, onnotice: () => undefined });
  const [row] = await sql`
    select count(*)::int as held from pg_locks l join pg_database d on d.oid = l.database
    where l.locktype = 'advisory' and d.datname = current_database()`;
  await sql.end({ timeout: 1 });
  return row!['held'] as number;
}

/** One that a session took which has just ended goes with it; one that is left behind stays. */
const noLockIsHeld = (): Promise<void> => until(async () => (await locksHeld()) === 0, 'no lock is held', patienceMs);

async function refusal(settings: Environment): Promise<string> {
  const server = spawnServer({ LOG_FORMAT: 'pretty', ...settings });
  expect(await server.waitForExit(patienceMs)).toBe(1);
  return server.stderr();
}

test('what stands before the database is told apart, whatever room it has', async () => {
  const { port } = await sharedCluster();
  expect(await poolingOf(database.url)).toBe('none');
  expect(await poolingOf(session.through(database.url))).toBe('session');
  expect(await poolingOf(transaction.through(database.url))).toBe('transaction');
  expect(await poolingOf(statement.through(database.url))).toBe('statement');
  const narrow = await startPgBouncer(port, 'transaction', 1);
  closers.push(() => narrow.close());
  expect(await poolingOf(narrow.through(database.url))).toBe('transaction');
}, 240_000);

// It was taken for one in transaction mode, and each transaction of the server's would have been torn apart silently.
test('one that takes a transaction and ends it behind each statement is one in statement mode', async () => {
  const { port } = await sharedCluster();
  const splitting = await startSplittingPooler(port);
  closers.push(() => splitting.close());
  const url = new URL(database.url);
  url.port = String(splitting.port);
  expect(await poolingOf(url.href)).toBe('statement');
}, 240_000);

test('a start that would listen through it is refused with what to set, and leaves no lock behind', async () => {
  const behind = transaction.through(database.url);
  const [alone, ofStatements, direct, pool] = await Promise.all([
    refusal({ DATABASE_URL: behind }),
    refusal({ DATABASE_URL: statement.through(database.url) }),
    refusal({ DATABASE_URL: database.url, DATABASE_URL_DIRECT: behind }),
    refusal({ DATABASE_URL: statement.through(database.url), DATABASE_URL_DIRECT: database.url }),
  ]);
  const cause = 'a pooler answers there that keeps no session for a client: LISTEN and locks would be lost';
  expect(alone).toContain(`PostgreSQL at 127.0.0.1:${transaction.port} (DATABASE_URL): ${cause}`);
  expect(alone).toContain('What to do: set DATABASE_URL_DIRECT to the address of the database itself');
  expect(ofStatements).toContain(cause);
  expect(direct).toContain(`PostgreSQL at 127.0.0.1:${transaction.port} (DATABASE_URL_DIRECT): ${cause}`);
  expect(direct).toContain('What to do: let DATABASE_URL_DIRECT lead to the database itself');
  expect(pool).toContain('(DATABASE_URL): a pooler in statement mode answers there, which takes no transactions');
  expect(pool).toContain('What to do: set pool_mode = transaction in the pooler');
  const migration = spawnCommand(['migrate'], { DATABASE_URL: behind });
  expect(await migration.waitForExit(patienceMs)).toBe(1);
  expect(migration.stderr()).toContain('a pooler in transaction mode stands before the database');
  await noLockIsHeld();
}, 240_000);

test.each(['postgres', 'redis'] as const)(
  'the pool goes through one in transaction mode, over %s',
  async (layer) => {
    const redis = layer === 'redis' ? await startRedis() : undefined;
    closers.push(() => redis?.close());
    const node = await start({
      SYNC: layer,
      ...(redis === undefined ? {} : { REDIS_URL: redis.url }),
      DATABASE_URL: transaction.through(database.url),
      DATABASE_URL_DIRECT: database.url,
    });
    await works(node);
    expect(node.stdout()).toContain('"pooling":"transaction"');
    expect(node.stdout()).not.toMatch(/prepared statement|"level":"error"/);
  },
  240_000,
);

test('one in session mode serves for everything', async () => {
  const node = await start({ SYNC: 'postgres', DATABASE_URL: session.through(database.url) });
  await works(node);
}, 240_000);

test('one that is put in the way of a running node is said, takes no lock, and is forgotten when it goes', async () => {
  const { port } = await sharedCluster();
  const proxy = await startProxy({ port });
  closers.push(() => proxy.close());
  const node = await start({
    SYNC: 'postgres',
    DATABASE_URL: unpreparedUrl(proxy.through(database.url)),
  });
  await becomesReady(node, patienceMs);
  await until(async () => (await locksHeld()) > 0, 'it leads', patienceMs);
  proxy.retarget({ port: transaction.port });
  proxy.cut();
  const words = 'a pooler answers there that keeps no session for a client: LISTEN and locks would be lost';
  await until(
    async () => {
      const { checks } = (await (await fetch(`${node.url}/health/ready`)).json()) as HealthReport;
      return checks['relay']?.lastError?.message === words;
    },
    'it says what is in the way',
    patienceMs,
  );
  await noLockIsHeld();
  proxy.retarget({ port });
  proxy.cut();
  await becomesReady(node, patienceMs);
  await works(node);
}, 240_000);

/** Rows, publications, history and presence, many at once. */
async function works(node: RunningServer): Promise<void> {
  const [reader, writer] = await Promise.all([WebSocketClient.open(node.url), WebSocketClient.open(node.url)]);
  closers.push(() => (reader.cut(), writer.cut()));
  const channel = `room:${crypto.randomUUID()}`;
  await reader.request({ type: 'subscribe', channel, presence: true }, patienceMs);
  await reader.request({ type: 'subscribe', channel: 'posts' }, patienceMs);
  const replies = await Promise.all(
    Array.from({ length: 60 }, (_, data) => writer.request({ type: 'publish', channel, data }, patienceMs)),
  );
  expect(replies.map(({ type }) => type)).toEqual(replies.map(() => 'published'));
  const history = await writer.request({ type: 'history', channel }, patienceMs);
  expect(history['messages']).toHaveLength(60);
  expect((await writer.request({ type: 'presence', channel }, patienceMs))['count']).toBe(1);
  const text = crypto.randomUUID();
  const sql = postgres(database.superUrl, { max: 1 });
  await sql`insert into posts (title, body) values (${text}, ${text})`;
  await sql.end({ timeout: 1 });
  for (let numbers = 0, row = false; numbers < 60 || !row;) {
    const { type, data } = await reader.nextAny(patienceMs);
    if (type !== 'message') continue;
    if (typeof data === 'number') expect(data).toBe(numbers++);
    else row ||= (data as { data: { title: string } }).data.title === text;
  }
}
