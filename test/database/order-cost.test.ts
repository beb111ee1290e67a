// What statements with triggers of the application's own cost a writer, and the relay under SERIALIZABLE: eight times the
// rows, about eight times the time. Where each row looked through all those before it, that was up to sixty-four times.

import { afterAll, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { createDatabase } from '../support/postgres.ts';
import { takenOver } from './support.ts';

const created = await createDatabase({ migrated: true });
const sql = postgres(created.url, { max: 1, onnotice: () => undefined });

afterAll(async () => {
  await sql.end({ timeout: 1 });
  await created.drop();
});

const few = 200;
const many = 8 * few;
/** Between that of a linear cost and that of a quadratic one, which has a linear part too. */
const ratioMax = 15;

interface Application {
  /** What the row trigger of `item` does. */
  readonly trigger: string;
  readonly events?: string;
  /** Whether the rows are there before. */
  readonly filled?: boolean;
  readonly statement: (rows: number) => string;
}

const insert = (rows: number): string => `insert into item select i, 0, 'x' from generate_series(1, ${rows}) i`;
const oneByOne = (rows: number): string =>
  `do $$ begin for i in 1..${4 * rows} loop insert into item values (i, 0, 'x'); end loop; end $$`;
const update = (): string => `update item set b = 'y' where a > 0`;
const once = (statement: string): string => `if pg_trigger_depth() = 1 then ${statement} end if;`;

const applications: readonly (readonly [string, Application])[] = [
  [
    'a trigger that completes the row that was inserted',
    { trigger: once('update item set n = n + 1 where a = new.a;'), statement: insert },
  ],
  [
    'the same, in a transaction of many statements',
    { trigger: once('update item set n = n + 1 where a = new.a;'), statement: oneByOne },
  ],
  ['one that changes the key', { trigger: once('update item set a = -a where a = new.a;'), statement: insert }],
  [
    'one that counts in a row of the same table',
    { trigger: once('update item set n = n + 1 where a = 1;'), events: 'update', filled: true, statement: update },
  ],
  [
    'one that changes other rows of the table',
    { trigger: once('insert into item values (-new.a, 0, new.b);'), events: 'update', filled: true, statement: update },
  ],
  [
    'one that changes all rows at the first of them',
    { trigger: once('if new.a = 1 then update item set n = n + 1; end if;'), statement: insert },
  ],
  ['one that counts in another table', { trigger: 'update side set n = n + 1 where a = 0;', statement: insert }],
  [
    'one that writes to another table, whose trigger comes back',
    { trigger: once('insert into side values (new.a, 0);'), statement: insert },
  ],
];

/** Milliseconds of the statement, and of putting its changes in order afterwards. */
async function cost(
  application: Application,
  capture: string,
  isolation: string,
  rows: number,
  settings = '',
): Promise<[statement: number, order: number]> {
  const { trigger, events = 'insert', filled = false, statement } = application;
  await sql.unsafe(`drop schema if exists shop cascade; create schema shop; set search_path = shop, public;
    create table item (a int primary key, n int, b text); create table side (a int primary key, n int);
    create function own() returns trigger language plpgsql as $$ begin ${trigger} return null; end $$;
    create function back() returns trigger language plpgsql as
      $$ begin update item set n = n + 1 where a = new.a; return null; end $$;
    create trigger a_own after ${events} on item for each row execute function own();
    create trigger a_back after insert on side for each row execute function back();
    ${capture}; insert into side values (0, 0); ${filled ? insert(rows) : ''}`);
  await takenOver(sql);
  await sql.unsafe(`begin isolation level ${isolation}; ${settings}`);
  const startedAt = performance.now();
  await sql.unsafe(statement(rows));
  const ended = performance.now();
  await sql`commit`;
  const committed = performance.now();
  // As the relay does it, whose read forbids the planner to sort: what it ordered then cost 16 s for 16,000 rows.
  await sql`select realtime.visible(1, null)`;
  return [ended - startedAt, performance.now() - committed];
}

const captures = [
  ['watched', `select realtime.watch('item'), realtime.watch('side')`],
  [
    'with the row trigger',
    ['item', 'side']
      .map(
        (table) => `create trigger z_told after insert or update or delete on ${table}
          for each row execute function public.notify_realtime_event()`,
      )
      .join(';'),
  ],
] as const;

describe.each(captures)('a table %s', (_name, capture) => {
  test.each(applications)('%s', async (_name, application) => {
    await expectLinear((rows, isolation) => cost(application, capture, isolation, rows));
  });

  test('where the application forbids the planner what it likes', async () => {
    const ways = ['bitmapscan', 'hashjoin', 'indexscan', 'indexonlyscan', 'mergejoin', 'nestloop', 'seqscan', 'sort'];
    const settings = ways.map((way) => `set local enable_${way} = off`).join(';');
    const [[, application]] = applications as [(typeof applications)[0]];
    await expectLinear((rows, isolation) => cost(application, capture, isolation, rows, settings));
  });
});

type Cost = (rows: number, isolation: string) => Promise<[statement: number, order: number]>;

async function expectLinear(measure: Cost): Promise<void> {
  for (const isolation of ['read committed', 'serializable']) {
    let ratios: number[] = [];
    // A machine that stood still for a moment does so rarely three times.
    for (let attempt = 0; attempt < 3; attempt++) {
      const small = await measure(few, isolation);
      const large = await measure(many, isolation);
      // What takes no time has no ratio worth looking at.
      const now = large.map((milliseconds, place) => milliseconds / Math.max(small[place]!, 4));
      ratios = now.map((ratio, place) => Math.min(ratio, ratios[place] ?? Infinity));
      if (Math.max(...ratios) < ratioMax) break;
    }
    expect({ isolation, isLinear: Math.max(...ratios) < ratioMax, ratios }).toMatchObject({ isLinear: true });
  }
}

// Each row that a statement moved to another partition, or inserted by an upsert, made the text of the statement be searched
// for a MERGE. A text that names each of its rows is as long as they are many: 4,000 rows took 2 s, without a watch 0.02 s.
describe('a partitioned table watched', () => {
  const values = (rows: number): string => Array.from({ length: rows }, (_, i) => `(${i + 1}, 1)`).join(', ');
  test.each([
    [
      'an update that moves rows',
      (rows: number) => `update item set p = 2 from (values ${values(rows)}) v (a, p) where item.a = v.a`,
    ],
    [
      'an upsert that inserts rows',
      (rows: number) => `insert into item select a + 100000, p from (values ${values(rows)}) v (a, p)
        on conflict (a, p) do update set p = excluded.p`,
    ],
  ])('%s whose number makes the statement longer', async (_name, statement) => {
    const move = async (rows: number): Promise<number> => {
      await sql.unsafe(`drop schema if exists shop cascade; create schema shop; set search_path = shop, public;
        create table item (a int, p int, primary key (a, p)) partition by list (p);
        create table item_1 partition of item for values in (1); create table item_2 partition of item for values in (2);
        insert into item select i, 1 from generate_series(1, ${rows}) i; select realtime.watch('item')`);
      await takenOver(sql);
      const startedAt = performance.now();
      await sql.unsafe(statement(rows));
      const elapsed = performance.now() - startedAt;
      expect((await takenOver(sql)).length).toBe(rows);
      return elapsed;
    };
    let ratio = Infinity;
    for (let attempt = 0; attempt < 3 && ratio >= ratioMax; attempt++) {
      const small = await move(3 * few);
      ratio = Math.min(ratio, (await move(3 * many)) / small);
    }
    expect(ratio).toBeLessThan(ratioMax);
  });
});
