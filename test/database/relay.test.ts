// The relay on a real PostgreSQL: nothing lost, nothing twice, in order, whatever happens to transactions and sessions.

import { afterAll, afterEach, describe, expect, test } from 'bun:test';
import type { Change } from '../../src/changes/destination.ts';
import { IntoAdapter } from '../../src/changes/into-adapter.ts';
import { IntoLog } from '../../src/changes/into-log.ts';
import { Relay } from '../../src/changes/relay.ts';
import { connect } from '../../src/database/connect.ts';
import type { LogRow } from '../../src/database/log-row.ts';
import { RealtimeError } from '../../src/protocol/realtime-error.ts';
import { DeadlineError } from '../../src/time/within.ts';
import { startProxy } from '../support/proxy.ts';
import { database, expectConsecutive, leave, rules, startRelay, until, type TestRelay } from './support.ts';
import { patient } from '../support/patience.ts';

patient();

const { sql, superuser, url } = await database();
await sql`create table item (id int primary key, n int not null default 0, writer int)`;
await sql`select realtime.watch('item')`;

const started: { close(): Promise<void> }[] = [];

afterEach(async () => {
  await Promise.all(started.splice(0).map((relay) => relay.close()));
  await sql`alter table item disable trigger all`;
  await sql`delete from item`;
  await sql`alter table item enable trigger all`;
  await sql`truncate realtime.outbox, realtime.publications, realtime.channels`;
});

async function relaying(options: Parameters<typeof startRelay>[1] = {}): Promise<TestRelay> {
  const relay = await startRelay(url, options);
  started.push(relay.relay);
  return relay;
}

async function relayPids(): Promise<number[]> {
  const rows = await superuser`select pid from pg_stat_activity
    where application_name = 'sobranie relay' and datname = current_database()`;
  return rows.map(({ pid }) => pid as number);
}

interface ItemChange {
  readonly data: { readonly id: number; readonly n: number };
}

function changes(rows: readonly { readonly data: string }[]): ItemChange['data'][] {
  return rows.map(({ data }) => (JSON.parse(data) as ItemChange).data);
}

/** Each row's counter must rise by one from change to change. */
function expectInOrder(rows: readonly LogRow[]): void {
  const counters = new Map<number, number>();
  for (const { id, n } of changes(rows)) {
    const before = counters.get(id);
    if (before !== undefined && n !== before + 1) throw new Error(`row ${id} went from ${before} to ${n}`);
    counters.set(id, n);
  }
}

describe('into the log', () => {
  test('what waited before the start comes first, then what is written', async () => {
    await sql`insert into item select g from generate_series(1, 2500) g`;
    const { rows } = await relaying();
    await sql`insert into item values (9000)`;
    await until(() => rows.length === 2501);
    expectConsecutive(rows);
    expect(changes(rows).map(({ id }) => id)).toEqual([...Array.from({ length: 2500 }, (_, i) => i + 1), 9000]);
  });

  test('ephemeral rows are published and not handed over, bad channels are counted', async () => {
    const { rows, ephemeral, dropped } = await relaying();
    await leave(sql, [
      ['a', '1'],
      ['ephemeral:x', '2'],
      ['no channel', '3'],
      ['$system', '4'],
      ['a', '5'],
    ]);
    await until(() => rows.length === 2 && dropped() === 2);
    expect(rows.map(({ channel, offset }) => [channel, offset])).toEqual([
      ['a', 1],
      ['a', 2],
    ]);
    expect(ephemeral).toEqual([['ephemeral:x', '2']]);
  });

  test('a late commit is not skipped', async () => {
    const { rows } = await relaying();
    const late = await sql.reserve();
    await late`begin`;
    await late`insert into item values (1)`;
    await sql`insert into item values (2)`;
    await until(() => rows.length === 1);
    await late`commit`;
    late.release();
    await until(() => rows.length === 2);
    expect(changes(rows).map(({ id }) => id)).toEqual([2, 1]);
  });

  test('the next batch is not read before this one is taken in', async () => {
    await sql`insert into item select g from generate_series(1, 30) g`;
    const held: (() => void)[] = [];
    const relay = await relaying({
      batchMax: 10,
      hand: () => new Promise<void>((resolve) => held.push(() => resolve())),
    });
    await until(() => held.length === 1);
    const [row] = await sql`select count(*)::int as n from realtime.outbox`;
    expect(row!['n']).toBe(20);
    for (let taken = 1; taken <= 3; taken++) {
      await until(() => held.length === taken);
      held[taken - 1]!();
    }
    await until(async () => (await sql`select 1 from realtime.outbox`).length === 0);
    expect(relay.relay.health()).toMatchObject({ up: true, leader: true });
  });

  test('a reader that fails gets the next batch all the same', async () => {
    const seen: number[] = [];
    const { errors } = await relaying({
      hand: (rows) => {
        seen.push(rows.length);
        throw new Error('not today');
      },
    });
    await sql`insert into item values (1)`;
    await until(() => seen.length === 1);
    await sql`insert into item values (2)`;
    await until(() => seen.length === 2);
    expect(errors).toHaveLength(2);
  });

  test('changes of one row keep their order under contention, also beside a transaction that stays open', async () => {
    const { rows } = await relaying();
    await sql`insert into item select g from generate_series(1, 10) g`;
    const blocker = await sql.reserve();
    await blocker`begin`;
    await blocker`update item set n = n + 1 where id = 1`;
    let writes = 11;
    await Promise.all(
      Array.from({ length: 8 }, async (_, writer) => {
        for (let turn = 0; turn < 150; turn++) {
          const id = 2 + ((writer * 7 + turn * 3) % 9);
          await sql`update item set n = n + 1, writer = ${writer} where id = ${id}`;
          writes++;
        }
      }),
    );
    const waiting = sql`update item set n = n + 1 where id = 1`.then(() => writes++);
    await blocker`commit`;
    blocker.release();
    await waiting;
    await until(() => rows.length === writes);
    expectConsecutive(rows);
    expectInOrder(rows);
  });
});

describe('two relays', () => {
  test('one leads, the other stands by and takes over', async () => {
    const [first, second] = [await relaying(), await relaying()];
    await until(() => first.relay.health().leader);
    expect(second.relay.health()).toMatchObject({ up: true, leader: false });
    await sql`insert into item values (1)`;
    await until(() => first.rows.length === 1);
    await first.relay.close();
    await sql`insert into item values (2)`;
    await until(() => second.rows.length === 1);
    expect(second.rows[0]!.offset).toBe(2);
  });

  // Before it carries anything, a leader looks whether the log has another epoch, through a pool. Its own session lived while
  // the pool was away: it waited for ever with the lock in its hands, and no other relay could lead.
  test('one that does not get to carry anything gives up the lead', async () => {
    const never = new Promise<void>(() => undefined);
    const first = await relaying({ leads: () => never, answerSeconds: 3 });
    const second = await relaying();
    await sql`insert into item values (1)`;
    await until(() => second.rows.length === 1, 60_000);
    expect(first.rows).toEqual([]);
    await until(() => first.errors.some((error) => error instanceof DeadlineError), 60_000);
  });

  test('racing past the lock they lose, double and disorder nothing', async () => {
    // Two callers of the SQL function stand for two relays that both believe to lead.
    const taken: LogRow[] = [];
    let writing = true;
    const race = async (): Promise<void> => {
      for (let idle = 0; writing || idle < 3;) {
        const found = await sql`select seq::float8, channel, "offset"::float8, data
          from realtime.relay(37, ${JSON.stringify(rules)}::text::jsonb)`;
        for (const row of found.slice(0, -1)) taken.push(row as never);
        idle = found.length > 1 ? 0 : idle + 1;
      }
    };
    const races = [race(), race(), race()];
    await sql`insert into item select g from generate_series(1, 5) g`;
    await Promise.all(
      Array.from({ length: 6 }, async (_, writer) => {
        for (let turn = 0; turn < 120; turn++)
          await sql`update item set n = n + 1 where id = ${1 + ((writer + turn) % 5)}`;
      }),
    );
    writing = false;
    await Promise.all(races);
    const rows = taken.toSorted((a, b) => a.seq - b.seq);
    expect(rows).toHaveLength(725);
    expectConsecutive(rows);
    expectInOrder(rows);
  });
});

describe('faults', () => {
  test('its session is ended again and again under load: no row is lost or doubled in the log', async () => {
    const { rows, relay } = await relaying();
    let writing = true;
    let writes = 0;
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      for (let turn = 0; writing; turn++) {
        await sql`insert into item values (${writer * 1_000_000 + turn})`;
        writes++;
      }
    });
    for (let kill = 0; kill < 5; kill++) {
      const before = rows.length;
      await until(() => rows.length > before + 20);
      for (const pid of await relayPids()) await superuser`select pg_terminate_backend(${pid})`;
    }
    writing = false;
    await Promise.all(writers);
    await until(async () => (await sql`select 1 from realtime.outbox limit 1`).length === 0);
    const stored = await sql<LogRow[]>`select "offset"::float8, data from realtime.publications order by seq`;
    expect(stored).toHaveLength(writes);
    expectConsecutive(stored);
    expect(new Set(changes(stored).map(({ id }) => id)).size).toBe(writes);
    await until(() => relay.health().leader);
    // What was handed over is in order too; a batch may be missing whose answer was cut off.
    const offsets = rows.map(({ offset }) => offset);
    expect(offsets.toSorted((a, b) => a - b)).toEqual(offsets);
    expect(new Set(offsets).size).toBe(offsets.length);
  });

  test('while a transaction that wrote stays open, 200,000 other rows pass, and its own after its commit', async () => {
    const { rows } = await relaying();
    const timed = async (first: number): Promise<number> => {
      const [startedAt, before] = [performance.now(), rows.length];
      for (let block = 0; block < 10; block++) {
        const from = first + block * 10_000;
        await sql`insert into item select g from generate_series(${from}::int, ${from + 9_999}::int) g`;
      }
      await until(() => rows.length >= before + 100_000, 60_000);
      return performance.now() - startedAt;
    };
    const alone = await timed(1_000_000);
    const long = await sql.reserve();
    await long`begin`;
    await long`insert into item values (1), (2)`;
    await timed(2_000_000);
    const beside = await timed(3_000_000);
    expect(rows).toHaveLength(300_000);
    const quick = performance.now();
    await sql`insert into item values (3)`;
    await until(() => rows.length === 300_001);
    expect(performance.now() - quick).toBeLessThan(500);
    await long`insert into item values (4)`;
    await long`commit`;
    long.release();
    await until(() => rows.length === 300_004);
    expect(changes(rows.slice(-4)).map(({ id }) => id)).toEqual([3, 1, 2, 4]);
    expect(beside).toBeLessThan(alone * 2 + 1_000);
  }, 120_000);

  // Under load a statement was under way when the connection fell silent, and moved the second row into the log all the
  // same: a row of which nobody was told, and for which the test waited in vain.
  test('a connection that is half-open is found and replaced', async () => {
    const proxy = await startProxy({ port: Number(new URL(url).port) });
    const { rows, relay } = await startRelay(proxy.through(url), { answerSeconds: 0.5, safetyMs: 200 });
    started.push(relay, proxy);
    await sql`insert into item values (1)`;
    await until(() => rows.length === 1);
    expect(proxy.swallow()).toBeGreaterThan(0);
    const held = await relayPids();
    await sql`insert into item values (2)`;
    await until(() => !relay.health().leader);
    // The server still believes in the old session, whose lock it holds: in life its own keepalive ends it.
    for (const pid of held) await superuser`select pg_terminate_backend(${pid})`;
    await until(() => relay.health().leader);
    await sql`insert into item values (3)`;
    await until(() => rows.some(({ offset }) => offset === 3));
    const stored = await sql<LogRow[]>`select "offset"::float8, data from realtime.publications order by seq`;
    expectConsecutive(stored);
    expect(changes(stored).map(({ id }) => id)).toEqual([1, 2, 3]);
  }, 40_000);

  // A TRUNCATE of a table whose template had made 600,000 channels, or what 64,000 triggers of one SERIALIZABLE transaction
  // left, took the database more than ten seconds. The relay gave its session up, and began again, for ever.
  test('a batch that takes the database longer than an answer may is carried all the same', async () => {
    await sql`create function slow() returns trigger language plpgsql as
      $$ begin perform pg_sleep(1.5); return null; end $$`;
    await sql`create trigger slow before insert on realtime.publications for each statement execute function slow()`;
    try {
      const { rows, errors, relay } = await startRelay(url, { answerSeconds: 0.4 });
      started.push(relay);
      await sql`insert into item values (1)`;
      await until(() => rows.length === 1);
      expect(errors).toEqual([]);
    } finally {
      await sql`drop function slow() cascade`;
    }
  });

  // The batch under way may have been committed, and then nobody hands it over.
  test('whenever its session is lost, the reader of this node reads the log', async () => {
    const { relay, errors, catchUps } = await relaying();
    await until(() => relay.health().leader);
    expect(catchUps()).toBe(0);
    for (const pid of await relayPids()) await superuser`select pg_terminate_backend(${pid})`;
    await until(() => errors.length > 0);
    expect(catchUps()).toBe(errors.length);
  });

  // A database that was restored from a dump counts transactions and its write-ahead log from lower numbers than those of
  // rows that waited in the dump. They come first, in their order, before what is written since.
  test('rows of another time, whose numbers lie ahead, come before what was written since', async () => {
    await sql`insert into item values (2)`;
    await sql`insert into realtime.outbox (xid, lsn, channel, data)
      values ('99999999999', 'FFFF/2', 'a', '2'), ('99999999998', 'FFFF/1', 'a', '1')`;
    const { rows } = await relaying();
    await until(() => rows.length === 3);
    expect(rows.map(({ channel, data }) => (channel === 'a' ? data : channel))).toEqual(['1', '2', 'item']);
  });

  test('closing does not wait for a connection that is being made', async () => {
    const proxy = await startProxy({ port: Number(new URL(url).port) });
    const { relay, errors } = await startRelay(proxy.through(url));
    started.push(relay, proxy);
    // Its session and that of its housekeeping, which connects again seconds later only.
    await until(() => relay.health().leader && proxy.accepted === 2);
    proxy.mode = 'blackhole';
    proxy.cut();
    await until(() => errors.length > 0 && proxy.accepted === 3);
    const startedAt = performance.now();
    await relay.close();
    expect(performance.now() - startedAt).toBeLessThan(2_000);
  });

  test('a database that is not there fails the start, in words', async () => {
    const relay = new Relay({
      url: 'postgres://app@127.0.0.1:1/none',
      destination: new IntoLog(
        { rules, publish: () => undefined, published: () => undefined, failed: () => undefined },
        { hand: () => undefined, catchUp: () => undefined },
      ),
      observer: {
        leader: () => undefined,
        batch: () => undefined,
        parked: () => undefined,
        waiting: () => undefined,
        log: () => undefined,
        faults: () => undefined,
        error: () => undefined,
      },
    });
    expect(await relay.start().catch((error: unknown) => error)).toMatchObject({ code: 'unavailable' });
    await relay.close();
  });

  test('what waits is told to the observer, and who leads', async () => {
    const told: unknown[] = [];
    const { relay } = await relaying({
      observer: {
        leader: (leader) => told.push(leader),
        batch: () => undefined,
        parked: () => undefined,
        waiting: (rows, seconds) => told.push([rows, seconds]),
        log: () => undefined,
        faults: () => undefined,
        error: () => undefined,
      },
    });
    await until(() => told.length >= 2);
    expect(told.slice(0, 2)).toEqual([true, [0, 0]]);
    await relay.close();
    expect(told.at(-1)).toBe(false);
  });

  // Watches are renewed before the log is trimmed. Where they could not be, nobody trimmed it.
  test('a task beside relaying that fails keeps none of the others from its turn', async () => {
    await sql`alter function realtime.renew_captures(boolean) rename to renew_captures_elsewhere`;
    try {
      const told: string[] = [];
      const { relay } = await relaying({
        observer: {
          leader: () => undefined,
          batch: () => undefined,
          parked: () => undefined,
          waiting: () => told.push('what waits'),
          log: () => told.push('the log'),
          faults: () => told.push('faults'),
          error: (error) => told.push(String(error).includes('renew_captures') ? 'not renewed' : String(error)),
        },
      });
      await until(() => told.includes('the log'));
      expect(told).toEqual(['what waits', 'not renewed', 'faults', 'the log']);
      await relay.close();
    } finally {
      await sql`alter function realtime.renew_captures_elsewhere(boolean) rename to renew_captures`;
    }
  });
});

describe('to a log elsewhere', () => {
  const pool = connect(url, { applicationName: 'destination', max: 1 });
  afterAll(() => pool.end({ timeout: 1 }));

  /** Publishes to nowhere but this array. */
  function collecting(published: Change[], settled: () => Promise<void> = async () => undefined): IntoAdapter {
    return new IntoAdapter({ sql: pool, publish: (change) => published.push(change), settled });
  }

  test('rows leave the outbox once they are published; a crash in between brings them again', async () => {
    const published: Change[] = [];
    let failing = true;
    const destination = collecting(published, async () => {
      if (failing) throw new Error('the other side is gone');
    });
    await leave(sql, [
      ['a', '{"x":\n1}', 'k'],
      ['no channel', '2'],
      ['$system', '3'],
      ['b', '4'],
    ]);
    const { errors, dropped, relay } = await relaying({ destination });
    await until(() => errors.length > 0);
    const first = published.slice(0, 2);
    expect(first).toMatchObject([
      { channel: 'a', data: '{"x": 1}', key: 'k' },
      { channel: 'b', data: '4' },
    ]);
    const [log] = await sql`select source from realtime.log`;
    expect(first[1]!.key).toMatch(new RegExp(`^\u0000${log!['source']} \\d+-[0-9A-F]+/[0-9A-F]+-[0-9a-f]+$`));
    failing = false;
    published.length = 0;
    await until(async () => (await sql`select 1 from realtime.outbox`).length === 0);
    const names = (changes: readonly Change[]): unknown =>
      changes.map(({ channel, data, key }) => [channel, data, key]);
    expect(names(published)).toEqual(names(first));
    // Whoever comes later has a higher term: a log knows by it who may still publish.
    expect(published[1]!.carried!.term).toBeGreaterThan(first[1]!.carried!.term);
    expect(dropped()).toBe(2);
    await until(() => relay.health().leader);
  });

  // On a machine that had no time for it, Redis took a part of each batch before its time was over. Nothing of the batch was
  // deleted, so the next attempt brought the same rows: for hours the relay got nowhere, while half a million waited.
  test('what was taken before the layer gave out is not brought again', async () => {
    const taken: Change[] = [];
    const takenAtOnce = 12;
    let left = takenAtOnce;
    const destination = new IntoAdapter({
      sql: pool,
      publish: async (change) => {
        if (left-- <= 0) throw new RealtimeError('unavailable');
        taken.push(change);
      },
      settled: async () => void (left = takenAtOnce),
    });
    const rows = Array.from({ length: takenAtOnce * 3 }, (_, index) => [`c${index % 4}`, String(index)] as const);
    await leave(sql, rows);
    let leads = 0;
    const { errors } = await relaying({ destination, leads: async () => void leads++ });
    await until(async () => (await sql`select 1 from realtime.outbox`).length === 0);
    expect(errors).toHaveLength(2);
    // It gave up the lead each time, and waited up to 10 s: at 500 rows a second it fell behind a slow Redis for good.
    expect(leads).toBe(1);
    expect(taken.map(({ channel, data }) => [channel, data])).toEqual(rows.map(([channel, data]) => [channel, data]));
    const batches = new Set(taken.map(({ carried }) => `${carried?.term} ${carried?.batch}`));
    expect(batches.size).toBe(3);
  });

  test('what a slow layer is given at once grows slowly again after it was too much', async () => {
    const takenInTime = 100;
    let [taken, left] = [0, takenInTime];
    const destination = new IntoAdapter({
      sql: pool,
      publish: async () => {
        if (left-- <= 0) throw new RealtimeError('unavailable');
        taken++;
      },
      settled: async () => void (left = takenInTime),
    });
    await leave(
      sql,
      Array.from({ length: 2_000 }, (_, index) => [`c${index % 4}`, String(index)] as const),
    );
    const { errors } = await relaying({ destination });
    await until(() => taken === 2_000);
    // Doubled each time, it is too much every other time.
    expect(errors.length).toBeWithin(2, 12);
  });

  // A fresh copy of the database numbers its rows from 1: under the name of the old one, they would be repeats.
  test('the database is asked for its name again after each failure', async () => {
    const published: Change[] = [];
    const { errors } = await relaying({ destination: collecting(published) });
    await sql`insert into item values (1)`;
    await until(() => published.length === 1);
    await sql`update realtime.log set source = 'renamed'`;
    for (const pid of await relayPids()) await superuser`select pg_terminate_backend(${pid})`;
    await until(() => errors.length > 0);
    await sql`insert into item values (2)`;
    // The first may come again: its deletion was to travel with the next read.
    await until(() => changes(published).some(({ id }) => id === 2));
    const namedAnew = ({ key }: Change): boolean => key!.startsWith('\u0000renamed ');
    expect([published[0]!, published.at(-1)!].map(namedAnew)).toEqual([false, true]);
  });

  test('ids of one session are not deleted in the next, which may be one of another database', async () => {
    const destination = collecting([]);
    const report = { id: null, channel: null, data: 'state', key: null };
    const row = { id: '7-0/1', channel: 'a', data: '1', key: 'k', watch: 3, is_templated: true, fault: null };
    expect(await destination.take([row, report])).toEqual({ rows: 1, dropped: 0, state: 'state', parked: 0 });
    const deletion = `select realtime.taken('{"7-0/1"}', '{"3"}', '{"a"}'); `;
    expect(destination.statement('state')).toBe(`${deletion}select * from realtime.peek(1000, 'state', 16777216)`);
    expect(destination.end()).toBe(deletion);
    destination.begun([{ epoch: 'another', term: 1 }]);
    expect(destination.statement(undefined)).toStartWith('select');
    expect(destination.end()).toBeUndefined();
  });

  test('closing deletes what was published', async () => {
    const published: Change[] = [];
    const { relay } = await relaying({ destination: collecting(published) });
    await sql`insert into item select g from generate_series(1, 3000) g`;
    await until(() => published.length === 3000);
    await relay.close();
    expect(await sql`select 1 from realtime.outbox`).toHaveLength(0);
    expect(changes(published).map(({ id }) => id)).toEqual(Array.from({ length: 3000 }, (_, i) => i + 1));
  });
});
