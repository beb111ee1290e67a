// The relay when more than one leads, when the leading one dies with a batch under way, and when clocks jump: the log
// holds every committed row once, numbered without a hole.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { IntoLog } from '../../src/changes/into-log.ts';
import { Bell, Leader } from '../../src/changes/leader.ts';
import { systemClock, type Clock } from '../../src/time/clock.ts';
import { silentObserver } from '../support/doubles.ts';
import type { Publication } from '../../src/core/publication.ts';
import { connect, type Database } from '../../src/database/connect.ts';
import { DirectSession } from '../../src/database/direct-session.ts';
import { PostgresAdapter } from '../../src/sync/postgres/adapter.ts';
import { rules } from '../database/support.ts';
import { Load } from '../support/load.ts';
import { startNodes, stopNodes } from '../support/nodes.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { randomFrom, seed } from '../support/random.ts';
import { until } from '../support/tcp-client.ts';
import { patient } from '../support/patience.ts';

patient();

const long = process.env['LONG'] === '1';

describe(`The relay (SEED=${seed})`, () => {
  let database: TestDatabase;
  let sql: Database;
  let closers: (() => unknown)[] = [];

  beforeAll(async () => {
    database = await createDatabase({ migrated: true });
    sql = connect(database.url, { applicationName: 'test', max: 8 });
  }, 30_000);

  afterEach(async () => {
    const closing = closers.reverse();
    closers = [];
    for (const close of closing) await close();
  }, 30_000);

  afterAll(async () => {
    await sql.end({ timeout: 1 });
    await database.drop();
  }, 30_000);

  async function logOf(channel: string): Promise<{ offset: number; data: string }[]> {
    return sql<{ offset: number; data: string }[]>`
      SELECT "offset", data FROM realtime.publications WHERE channel = ${channel} ORDER BY "offset"`;
  }

  test('three that all lead at once, without the lock, and are cut off again and again', async () => {
    const random = randomFrom(seed);
    const channels = ['race:a', 'race:b'];
    const errors: unknown[] = [];
    let closing = false;
    const lead = async (): Promise<void> => {
      while (!closing) {
        const bell = new Bell();
        let session: DirectSession | undefined;
        try {
          session = await DirectSession.open({
            url: database.url,
            applicationName: 'racing',
            onNotification: () => bell.ring(),
            onClosed: () => bell.ring(),
          });
          await session.query('listen realtime_wake; select 1');
          const ports = { rules, publish: ignore, published: ignore, failed: ignore };
          const destination = new IntoLog(ports, { hand: ignore, catchUp: ignore }, 50);
          const options = {
            session,
            destination,
            bell,
            clock: systemClock,
            safetyMs: 100,
            moved: ignore,
            failed: ignore,
            parked: ignore,
          };
          await new Leader({ ...options, closing: () => closing }).lead();
        } catch (error) {
          // The session was ended under it, as it should be able to bear at any moment, also while it is set up.
          errors.push(error);
        }
        await session?.close();
      }
    };
    const leaders = [lead(), lead(), lead()];
    closers.push(() => (closing = true));
    const sent = new Map(channels.map((channel) => [channel, new Set<string>()]));
    const write = async (writer: number): Promise<void> => {
      for (let number = 0; number < (long ? 1_000 : 150); number++) {
        const channel = channels[Math.floor(random() * 2)]!;
        const id = `${writer}.${number}`;
        sent.get(channel)!.add(id);
        await sql`SELECT realtime.send(${channel}, jsonb_build_object('id', ${id}::text), ${id})`;
      }
    };
    const writing = Promise.all([0, 1, 2, 3].map(write));
    for (let cut = 0; cut < 5; cut++) {
      const before = errors.length;
      // Again if the one that was found had just ended by itself.
      await until(
        async () => {
          await sql`SELECT pg_terminate_backend(pid) FROM (
            SELECT pid FROM pg_stat_activity
            WHERE application_name = 'racing' AND datname = current_database() ORDER BY random() LIMIT 1) one`;
          return errors.length > before;
        },
        'one is cut off',
        30_000,
        50,
      );
    }
    await writing;
    await until(async () => (await sql`SELECT FROM realtime.outbox`).length === 0, 'an empty outbox', 20_000);
    closing = true;
    await Promise.all(leaders);
    expect(errors.length).toBeGreaterThan(0);
    for (const channel of channels) {
      const rows = await logOf(channel);
      expect(rows.map(({ offset }) => offset)).toEqual(rows.map((_row, index) => index + 1));
      const ids = rows.map(({ data }) => (JSON.parse(data) as { id: string }).id);
      expect(ids.toSorted()).toEqual([...sent.get(channel)!].toSorted());
    }
  }, 120_000);

  describe('two nodes', () => {
    let nodes: RunningServer[] = [];
    let load: Load | undefined;

    afterAll(async () => {
      await load?.end();
      await stopNodes(nodes);
    }, 30_000);

    test('the leader is killed with a batch under way, which its database session still commits', async () => {
      nodes = await startNodes(2, () => ({ SYNC: 'postgres', DATABASE_URL: database.url }));
      load = new Load({ seed, nodes: () => nodes, channels: ['room:relay'], databaseUrl: database.url });
      await load.start();
      await load.arrives(30);
      const blocker = await sql.reserve();
      const pidOfLeader = async (): Promise<{ pid: number; name: string } | undefined> => {
        const rows = await sql<{ pid: number; name: string }[]>`
          SELECT l.pid, a.application_name AS name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
          WHERE l.locktype = 'advisory' AND l.classid = 1937006946 AND l.objid = 2 AND a.datname = current_database()`;
        return rows[0];
      };
      const leader = (await pidOfLeader())!;
      const waits = async (): Promise<boolean> => {
        const [row] = await sql`SELECT wait_event_type AS type FROM pg_stat_activity WHERE pid = ${leader.pid}`;
        return row?.['type'] === 'Lock';
      };
      await blocker`BEGIN`;
      await blocker`LOCK TABLE realtime.publications IN EXCLUSIVE MODE`;
      await until(waits, 'the leader has a batch under way', 10_000);
      const killed = nodes.find(({ stdout }) =>
        stdout().includes(`"node":"${leader.name.slice('sobranie '.length)}"`),
      )!;
      await killed.kill9();
      nodes = nodes.filter((node) => node !== killed);
      await blocker`ROLLBACK`;
      blocker.release();
      await until(async () => ((await pidOfLeader())?.pid ?? leader.pid) !== leader.pid, 'another leads', 20_000);
      await load.arrives(30);
      await load.finish();
    }, 90_000);
  });

  describe('clocks that jump', () => {
    async function node(clock: Clock, heard: Publication[], delays: number[]): Promise<PostgresAdapter> {
      const pool = connect(database.url, { applicationName: 'jumping', max: 3 });
      const adapter = new PostgresAdapter({
        sql: pool,
        reads: connect(database.url, { applicationName: 'jumping', max: 1 }),
        connectDirect: () => connect(database.url, { applicationName: 'jumping', max: 1 }),
        nodeId: 'jumping',
        applicationName: 'jumping',
        clock,
        observer: { ...silentObserver, delay: (_name, seconds) => delays.push(seconds) },
        log: ignore,
      });
      closers.push(() => pool.end({ timeout: 1 }));
      closers.push(() => adapter.close());
      const publication = (publication: Publication): void => void heard.push(publication);
      await adapter.start({ publication, head: ignore, settled: ignore });
      return adapter;
    }

    const rule = { recoverable: true, historySize: 100, historySeconds: 3_600 } as (typeof rules)[number];
    const outgoing = (channel: string, data: number) => ({ channel, rule, data: String(data), at: 0 });

    test('a node’s clock: publications flow on, in order, and no delay is negative', async () => {
      let jump = 0;
      const [heard, delays]: [Publication[], number[]] = [[], []];
      const adapter = await node({ ...systemClock, now: () => Date.now() + jump }, heard, delays);
      const channel = 'jump:node';
      await adapter.subscribe(channel, rule);
      for (const [index, by] of [0, -86_400_000, 86_400_000, -5_000, 0].entries()) {
        jump = by;
        await adapter.publish(outgoing(channel, index + 1));
      }
      await until(() => heard.length === 5, 'all five');
      expect(heard.map(({ offset, data }) => [offset, Number(data)])).toEqual([1, 2, 3, 4, 5].map((n) => [n, n]));
      expect(delays.every((seconds) => seconds >= 0)).toBe(true);
      const page = await adapter.history(channel, rule, { since: { epoch: heard[0]!.epoch, offset: 0 }, limit: 10 });
      expect(page).toMatchObject({ complete: true, head: { offset: 5 } });
      expect(page.publications.length).toBe(5);
      await adapter.probe(5_000);
    }, 30_000);

    // The age of each publication is judged by the database's clock. Turned back for a while and forward again, it
    // left some in the middle that looked too old, and history passed over them in silence.
    test('the database’s clock: what looks too old in the middle is a gap, not a hole', async () => {
      const adapter = await node(systemClock, [], []);
      const channel = 'jump:database';
      for (let index = 1; index <= 9; index++) await adapter.publish(outgoing(channel, index));
      await sql`UPDATE realtime.publications SET at = at - 7200000 WHERE channel = ${channel} AND "offset" IN (4, 5)`;
      const { head } = await adapter.history(channel, rule, { limit: 1 });
      const since = await adapter.history(channel, rule, { since: { ...head, offset: 1 }, limit: 100 });
      expect(since.gap).toBe('trimmed');
      expect(since.publications.map(({ offset }) => offset)).toEqual([6, 7, 8, 9]);
      const after = await adapter.history(channel, rule, { since: { ...head, offset: 5 }, limit: 100 });
      expect(after.gap).toBeUndefined();
      expect(after.publications.map(({ offset }) => offset)).toEqual([6, 7, 8, 9]);
      const newest = await adapter.history(channel, rule, { limit: 100 });
      expect(newest.publications.map(({ offset }) => offset)).toEqual([6, 7, 8, 9]);
    }, 30_000);
  });
});

function ignore(): undefined {
  return undefined;
}
