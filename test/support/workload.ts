// A random application of a database: five tables that refer to each other, triggers of its own on them, and statements of
// every kind. The same random numbers give the same application, so it can be run twice and compared.

import { pick, type Random } from './random.ts';

export interface Table {
  readonly name: string;
  readonly key: readonly string[];
}

export interface Workload {
  readonly tables: readonly Table[];
  /** Makes tables, functions and triggers. */
  readonly setUp: string;
  /** The next statement. Transactions and savepoints are statements too; errors are meant. */
  next(): string;
  /** Ends a transaction that is open. */
  readonly finish: string;
}

export const tables: readonly Table[] = [
  { name: 't0', key: ['id'] },
  { name: 't1', key: ['id'] },
  { name: 't2', key: [] },
  { name: 't3', key: ['id', 'room'] },
  { name: 't4', key: ['id'] },
];

const tablesSql = `
  CREATE TABLE t0 (id serial PRIMARY KEY, a int NOT NULL DEFAULT 0, b text, room text, doc json);
  CREATE TABLE t1 (id int PRIMARY KEY, a int DEFAULT 0, b text, room text, up int REFERENCES t1 ON DELETE CASCADE);
  CREATE TABLE t2 (id int, a int, b text, room text);
  CREATE TABLE t3 (id int, a int, b text, room text DEFAULT 'z', PRIMARY KEY (id, room)) PARTITION BY LIST (room);
  CREATE TABLE t3x PARTITION OF t3 FOR VALUES IN ('x');
  CREATE TABLE t3y (room text NOT NULL, gone int, b text, a int, id int NOT NULL);
  ALTER TABLE t3y DROP COLUMN gone;
  ALTER TABLE t3 ATTACH PARTITION t3y FOR VALUES IN ('y');
  CREATE TABLE t3z PARTITION OF t3 DEFAULT;
  CREATE TABLE t4 (id int PRIMARY KEY, a int, b text, room text, twice int GENERATED ALWAYS AS (a * 2) STORED,
    part int REFERENCES t0 ON UPDATE CASCADE ON DELETE SET NULL);
  CREATE FUNCTION poke(target regclass, n int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN EXECUTE format('UPDATE %s SET a = a + 1 WHERE id = $1 %% 20', target) USING n; RETURN n; END $$;
  CREATE FUNCTION last_number() RETURNS text LANGUAGE plpgsql AS $$
    BEGIN RETURN lastval(); EXCEPTION WHEN OTHERS THEN RETURN SQLERRM; END $$;
`;

/** Bodies of trigger functions: of `t` itself, and of another table `o`. `k(row)` finds the row. */
type Body = (t: string, o: string, k: (row: string) => string) => string;
const triggers: readonly (readonly [event: string, body: Body])[] = [
  ['AFTER INSERT %', (t, _o, k) => `IF new.b IS NULL THEN UPDATE ${t} SET b = 'f' || new.a WHERE ${k('new')}; END IF;`],
  [
    'AFTER UPDATE %',
    (t, _o, k) => `IF new.a IS DISTINCT FROM old.a THEN UPDATE ${t} SET b = 't' || new.a WHERE ${k('new')}; END IF;`,
  ],
  [
    'BEFORE INSERT OR UPDATE %',
    (t, _o, k) => `IF new.a % 4 = 3 THEN UPDATE ${t} SET a = a + 1 WHERE a % 4 = 3 AND NOT (${k('new')}); END IF;`,
  ],
  ['BEFORE INSERT OR UPDATE %', () => `new.b := right(concat(new.b, '!'), 5);`],
  ['BEFORE INSERT OR UPDATE %', () => `IF new.a % 6 = 5 THEN RETURN NULL; END IF;`],
  [
    'AFTER DELETE %',
    (t) => `IF old.b IS DISTINCT FROM 'tomb' THEN
      INSERT INTO ${t} (id, a, b, room) VALUES (old.id, old.a, 'tomb', old.room); END IF;`,
  ],
  [
    'AFTER DELETE %',
    (t) => `IF old.a % 3 = 1 THEN INSERT INTO ${t} (id, a, b, room) VALUES (old.id, old.a, old.b, old.room); END IF;`,
  ],
  ['AFTER INSERT %', (t, _o, k) => `IF new.a % 5 = 2 THEN DELETE FROM ${t} WHERE ${k('new')}; END IF;`],
  ['AFTER UPDATE %', (t, _o, k) => `IF new.a % 5 = 3 THEN DELETE FROM ${t} WHERE ${k('new')}; END IF;`],
  [
    'AFTER INSERT OR UPDATE %',
    // Of a table without a key, copies are copied again. Without a bound, a statement may not end within half an hour,
    // watched or not.
    (_t, o) => `BEGIN INSERT INTO ${o} (id, a, b) SELECT new.id, new.a, 'copy' WHERE (SELECT count(*) FROM ${o}) < 20;
      PERFORM 1 / (new.a % 2);
      EXCEPTION WHEN division_by_zero OR unique_violation THEN UPDATE ${o} SET a = 0 WHERE id = new.id; END;`,
  ],
  ['BEFORE DELETE %', (t, _o, k) => `UPDATE ${t} SET a = a + 1 WHERE room = old.room AND NOT (${k('old')});`],
  ['AFTER INSERT OR UPDATE OR DELETE', (_t, o) => `UPDATE ${o} SET a = a + 1 WHERE a % 5 = 2;`],
  ['AFTER UPDATE', (t) => `UPDATE ${t} SET a = a + 1, room = 'x' WHERE a % 7 = 3;`],
  ['AFTER INSERT', (t) => `DELETE FROM ${t} WHERE a % 9 = 4;`],
  ['AFTER DELETE', (t) => `INSERT INTO ${t} (id, a) SELECT coalesce(max(id), 0) + 1, 1 FROM ${t};`],
  ['BEFORE UPDATE OR DELETE', (_t, o) => `INSERT INTO ${o} (id, a) SELECT coalesce(max(id), 0) + 1, 1 FROM ${o};`],
  ['BEFORE INSERT', (t) => `UPDATE ${t} SET a = a + 1 WHERE id % 5 = 1;`],
];

/** Before, between and after the names that a watch gives its triggers. */
const triggerNames = ['a_', 'realtime_h', 'realtime_zz', 'z_', 'zz_realtime_n', 'zzz_'];

function triggersSql(random: Random): string {
  const made: string[] = [];
  for (const table of tables) {
    const found = (row: string): string =>
      table.key.length === 0
        ? `id = ${row}.id AND a IS NOT DISTINCT FROM ${row}.a`
        : table.key.map((column) => `${column} = ${row}.${column}`).join(' AND ');
    for (let count = Math.floor(random() * 4); count > 0; count--) {
      const [event, body] = pick(triggers, random);
      const name = `${pick(triggerNames, random)}${made.length}`;
      const other = pick(tables, random).name;
      const level = event.endsWith('%') ? 'ROW' : 'STATEMENT';
      const result = event.startsWith('BEFORE') && level === 'ROW' ? 'coalesce(new, old)' : 'NULL';
      made.push(`
        CREATE FUNCTION f${made.length}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF pg_trigger_depth() < 3 THEN ${body(table.name, other, found)} END IF; RETURN ${result}; END $$;
        CREATE TRIGGER ${name} ${event.replace(' %', '')} ON ${table.name} FOR EACH ${level}
          EXECUTE FUNCTION f${made.length}();`);
    }
  }
  return made.join('');
}

const levels = ['REPEATABLE READ', 'SERIALIZABLE'];

function statement(random: Random, version: number): string {
  const upTo = (count: number): number => Math.floor(random() * count);
  const { name: t } = pick(tables, random);
  const { name: o } = pick(tables, random);
  const id = (): number => 1 + upTo(25);
  const text = (): string => pick([`'p'`, `'q'`, 'NULL', `'it''s "a" \\\\ b'`], random);
  const room = (): string => pick([`'x'`, `'y'`, `'z'`, `'a:b c'`, ...(t === 't3' ? [] : ['NULL'])], random);
  const row = (): string => `(${id()}, ${upTo(20)}, ${text()}, ${room()})`;
  const where = (): string =>
    pick([`id = ${id()}`, `id % ${2 + upTo(6)} = ${upTo(3)}`, `room = ${room()}`, `a = ${upTo(20)}`], random);
  const change = (): string =>
    pick([`a = a + ${1 + upTo(3)}`, `b = ${text()}`, `room = ${room()}`, `a = ${upTo(9)}, room = ${room()}`], random);
  const rows = (): string => Array.from({ length: 1 + upTo(4) }, row).join(', ');
  const kinds: readonly [weight: number, make: () => string][] = [
    [12, () => `INSERT INTO ${t} (id, a, b, room) VALUES ${rows()} RETURNING *`],
    [
      4,
      () =>
        `INSERT INTO t0 (a, b, room, doc) VALUES (${upTo(9)}, ${text()}, ${room()}, '{"u": "\\u0000"}') RETURNING id`,
    ],
    [4, () => `INSERT INTO t1 (id, a, up) VALUES (${id()}, ${upTo(9)}, ${id()})`],
    [4, () => `INSERT INTO t4 (id, a, part) VALUES (${id()}, ${upTo(9)}, ${id()})`],
    [4, () => `INSERT INTO ${t} (id, a, b, room) VALUES ${rows()} ON CONFLICT DO NOTHING`],
    [
      5,
      () => `INSERT INTO ${t} AS x (id, a, b, room) VALUES ${row()}
        ON CONFLICT (${t === 't3' ? 'id, room' : 'id'}) DO UPDATE SET a = x.a + 1, b = excluded.b RETURNING *`,
    ],
    [14, () => `UPDATE ${t} SET ${change()} WHERE ${where()} RETURNING *`],
    [3, () => `UPDATE ${t} SET id = ${id()} WHERE id = ${id()}`],
    [2, () => `UPDATE ${t} SET a = poke('${o}', a) WHERE id % 3 = ${upTo(3)}`],
    [9, () => `DELETE FROM ${t} WHERE ${where()} RETURNING *`],
    [
      3,
      () => `WITH d AS (DELETE FROM ${t} WHERE id = ${id()} RETURNING id, a, b, room)
        INSERT INTO ${o} (id, a, b, room) SELECT id, a, b, coalesce(room, 'z') FROM d`,
    ],
    [
      3,
      () =>
        `WITH u AS (UPDATE ${t} SET ${change()} WHERE id = ${id()} RETURNING 1) DELETE FROM ${o} WHERE id = ${id()}`,
    ],
    [2, () => `DO $$ BEGIN UPDATE ${t} SET ${change()} WHERE ${where()}; DELETE FROM ${o} WHERE id = ${id()}; END $$`],
    [0.5, () => `TRUNCATE ${t} CASCADE`],
    [1, () => `SELECT 1 / 0`],
    [0.4, () => `ALTER TABLE ${t} ADD COLUMN IF NOT EXISTS more int DEFAULT ${upTo(9)}`],
    [0.4, () => `ALTER TABLE ${t} DROP COLUMN IF EXISTS more`],
    [3, () => pick(['SAVEPOINT s', 'ROLLBACK TO s', 'RELEASE s'], random)],
    [
      6,
      () =>
        pick(
          ['BEGIN', 'BEGIN', `BEGIN ISOLATION LEVEL ${pick(levels, random)}`, 'COMMIT', 'COMMIT', 'ROLLBACK'],
          random,
        ),
    ],
    // As poolers do between two clients, here at any moment.
    [0.5, () => 'RESET ALL; SET search_path = shop'],
  ];
  // A partitioned table whose rows a MERGE inserts and updates gets a gap: seldom, so that the rest of its order is seen.
  const inserts = (): boolean => random() < (t === 't3' ? 0.02 : 0.5);
  const merge = (): string => `MERGE INTO ${t} x USING (VALUES ${rows()}) v (id, a, b, room) ON x.id = v.id
    WHEN MATCHED AND v.a % 3 = 0 THEN DELETE
    WHEN MATCHED THEN UPDATE SET a = v.a, room = v.room
    ${inserts() ? 'WHEN NOT MATCHED THEN INSERT (id, a, b, room) VALUES (v.id, v.a, v.b, v.room)' : ''}`;
  const all = version >= 15 ? [...kinds, [5, merge] as const] : kinds;
  let point = random() * all.reduce((sum, [weight]) => sum + weight, 0);
  for (const [weight, make] of all) {
    point -= weight;
    if (point < 0) return make();
  }
  return 'SELECT 1';
}

/** `version`: the server's major version, as some statements are new. */
export function workload(random: Random, version: number): Workload {
  return {
    tables,
    setUp: tablesSql + triggersSql(random),
    next: () => statement(random, version),
    finish: 'ROLLBACK',
  };
}
