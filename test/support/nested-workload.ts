// A random application whose triggers change its rows again: small tables with all kinds of keys, captured by a watch or by
// the trigger function for rows, and statements for several sessions at once. Unlike `workload` it is not to be compared
// with an unwatched run, so what its sessions get may depend on who comes first.

import { pick, type Random } from './random.ts';

export interface NestedTable {
  readonly name: string;
  readonly key: readonly string[];
  readonly capture: 'watch' | 'row';
}

export interface NestedWorkload {
  readonly tables: readonly NestedTable[];
  /** Makes types, tables, functions and triggers. */
  readonly setUp: string;
  /** The next statement, without transactions. Errors are meant. */
  statement(random: Random): string;
}

interface Kind {
  readonly columns: string;
  readonly key: readonly string[];
  readonly isPartitioned?: boolean;
}

const kinds: readonly Kind[] = [
  { columns: 'n int PRIMARY KEY, a int, b text, room text', key: ['n'] },
  { columns: `n int, a int, b text, room text DEFAULT 'z', PRIMARY KEY (room, n)`, key: ['n', 'room'] },
  { columns: 'n int, a int, b text, room text', key: [] },
  { columns: 'n int, a int, b text, room text, doc json', key: [] },
  { columns: 'n posint PRIMARY KEY, a int, b text, room text, doc jsonb', key: ['n'] },
  { columns: `n int, a int, b text, room text, mood mood DEFAULT 'p', PRIMARY KEY (mood, n)`, key: ['mood', 'n'] },
  {
    columns: `n int, a int, b text NOT NULL DEFAULT 'd', room text,
      k text GENERATED ALWAYS AS (b || (n % 5)::text) STORED PRIMARY KEY`,
    key: ['k'],
  },
  { columns: 'n int PRIMARY KEY, a int, b text, room text, up int REFERENCES self ON DELETE CASCADE', key: ['n'] },
  {
    columns: `n int, a int, b text, room text DEFAULT 'z', PRIMARY KEY (n, room)`,
    key: ['n', 'room'],
    isPartitioned: true,
  },
  { columns: `n int, a int, b text, room text DEFAULT 'z'`, key: [], isPartitioned: true },
];

const types = `
  CREATE TYPE mood AS ENUM ('p', 'q');
  CREATE DOMAIN posint AS int CHECK (value > -1000);
  CREATE FUNCTION has_left() RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE used int := coalesce(nullif(current_setting('shop.used', true), ''), '0')::int;
    BEGIN PERFORM set_config('shop.used', (used + 1)::text, true); RETURN used < 100; END $$;`;

/** Bodies of trigger functions of table `t`: `k(row)` finds the row, `o` and `p` are any tables, `c` is a condition on `a`. */
type Body = (t: string, k: (row: string) => string, o: string, p: string, c: string) => string;
const triggers: readonly (readonly [event: string, body: Body])[] = [
  ['AFTER INSERT OR UPDATE %', (t, k, _o, _p, c) => `UPDATE ${t} SET a = a + 1 WHERE ${k('new')} AND ${c};`],
  ['AFTER INSERT OR UPDATE %', (t, k, _o, _p, c) => `UPDATE ${t} SET room = 'y' WHERE ${k('new')} AND ${c};`],
  ['AFTER UPDATE %', (t, k, _o, _p, c) => `UPDATE ${t} SET n = n + 50 WHERE ${k('new')} AND ${c} AND n < 100;`],
  [
    'AFTER UPDATE %',
    (t) => `IF new.a % 3 = 1 THEN INSERT INTO ${t} (n, a, b, room) VALUES (old.n, 7, old.b, old.room); END IF;`,
  ],
  ['BEFORE INSERT %', (t, k) => `DELETE FROM ${t} WHERE ${k('new')};`],
  ['BEFORE UPDATE %', (_t, _k, o) => `DELETE FROM ${o} WHERE n = new.n + 1;`],
  [
    'AFTER DELETE %',
    (t) => `IF old.b IS DISTINCT FROM 'tomb' THEN
      INSERT INTO ${t} (n, a, b, room) VALUES (old.n, old.a, 'tomb', old.room); END IF;`,
  ],
  [
    'AFTER INSERT %',
    (t, k) => `IF new.a % 3 = 1 THEN DELETE FROM ${t} WHERE ${k('new')};
      INSERT INTO ${t} (n, a, b, room) VALUES (new.n, 1, 'anew', new.room); END IF;`,
  ],
  [
    'AFTER INSERT OR UPDATE OR DELETE %',
    (t, _k, o) => `UPDATE ${t} SET b = b || 'q' WHERE n = coalesce(new.n, old.n);
      UPDATE ${o} SET a = a + 1 WHERE n = coalesce(new.n, old.n);`,
  ],
  [
    'AFTER INSERT OR UPDATE OR DELETE %',
    (_t, _k, o, p) => `BEGIN INSERT INTO ${o} (n, a, b, room) VALUES (1 + coalesce(new.n, old.n) % 12, 2, 'copy', 'x');
      PERFORM 1 / (coalesce(new.a, old.a) % 2);
      EXCEPTION WHEN division_by_zero OR unique_violation THEN
        UPDATE ${p} SET a = 0 WHERE n = coalesce(new.n, old.n); END;`,
  ],
  [
    'AFTER INSERT OR UPDATE OR DELETE',
    (_t, _k, o, p, c) => `UPDATE ${o} SET a = a + 1 WHERE ${c}; DELETE FROM ${p} WHERE a % 7 = 2;`,
  ],
  ['BEFORE INSERT OR UPDATE', (_t, _k, o, _p, c) => `UPDATE ${o} SET a = a + 1 WHERE ${c};`],
  ['AFTER DELETE', (t) => `INSERT INTO ${t} (n, a) SELECT coalesce(max(n), 0) + 1, 1 FROM ${t} HAVING count(*) < 25;`],
];

/** Before, between and after the names that a watch gives its triggers. */
const triggerNames = ['a_', 'm_', 'realtime_h', 'realtime_zz', 'z_', 'zz_realtime_n', 'zzz_'];

function tableSql(name: string, { columns, isPartitioned = false }: Kind): string {
  const table = `CREATE TABLE ${name} (${columns.replace('self', name)})`;
  if (!isPartitioned) return `${table};`;
  return `${table} PARTITION BY LIST (room);
    CREATE TABLE ${name}x PARTITION OF ${name} FOR VALUES IN ('x');
    CREATE TABLE ${name}y (gone int, room text NOT NULL, b text, a int, n int NOT NULL);
    ALTER TABLE ${name}y DROP COLUMN gone; ALTER TABLE ${name} ATTACH PARTITION ${name}y FOR VALUES IN ('y');
    CREATE TABLE ${name}z PARTITION OF ${name} DEFAULT;`;
}

function triggersSql(tables: readonly NestedTable[], random: Random): string {
  const upTo = (count: number): number => Math.floor(random() * count);
  const depth = 1 + upTo(4);
  const made: string[] = [];
  for (const { name, key, capture } of tables) {
    const found = (row: string): string =>
      (key.length === 0 ? ['n', 'a'] : key).map((column) => `${column} = ${row}.${column}`).join(' AND ');
    for (let count = upTo(5); count > 0; count--) {
      const [event, body] = pick(triggers, random);
      const number = made.length;
      const level = event.endsWith('%') ? 'ROW' : 'STATEMENT';
      const result = event.startsWith('BEFORE') && level === 'ROW' ? 'coalesce(new, old)' : 'NULL';
      const divisor = 2 + upTo(4);
      const text = body(
        name,
        found,
        pick(tables, random).name,
        pick(tables, random).name,
        `a % ${divisor} = ${upTo(divisor)}`,
      );
      made.push(`CREATE FUNCTION f${number}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF pg_trigger_depth() <= ${depth} AND has_left() THEN ${text} END IF; RETURN ${result}; END $$;
        CREATE TRIGGER ${pick(triggerNames, random)}${number} ${event.replace(' %', '')} ON ${name} FOR EACH ${level}
          EXECUTE FUNCTION f${number}();`);
    }
    if (capture !== 'row') continue;
    const own = `${pick(triggerNames, random)}own`;
    made.push(`CREATE TRIGGER ${own} AFTER INSERT OR UPDATE OR DELETE ON ${name} FOR EACH ROW
        EXECUTE FUNCTION public.notify_realtime_event();
      CREATE TRIGGER ${own}_all AFTER TRUNCATE ON ${name} EXECUTE FUNCTION public.notify_realtime_event();`);
  }
  return made.join('\n');
}

function statement(tables: readonly NestedTable[], random: Random): string {
  const upTo = (count: number): number => Math.floor(random() * count);
  const { name: t, key } = pick(tables, random);
  const { name: o } = pick(tables, random);
  const id = (): number => 1 + upTo(12);
  const text = (): string => pick([`'p'`, `'q'`, `'it''s "a" \\ b'`], random);
  const room = (): string => pick([`'x'`, `'y'`, `'z'`, `'a:b c'`], random);
  const rows = (count: number): string =>
    Array.from({ length: count }, () => `(${id()}, ${upTo(12)}, ${text()}, ${room()})`).join(', ');
  const where = (): string =>
    pick([`n = ${id()}`, `n % ${2 + upTo(5)} = ${upTo(3)}`, `room = ${room()}`, 'true'], random);
  const change = (): string =>
    pick(
      [`a = a + ${1 + upTo(3)}`, 'a = a', `b = ${text()}`, `room = ${room()}`, 'n = n + 1', 'n = n - 1, a = a + 1'],
      random,
    );
  const weighted: readonly [weight: number, make: () => string][] = [
    [12, () => `INSERT INTO ${t} (n, a, b, room) VALUES ${rows(1 + upTo(4))}`],
    [6, () => `INSERT INTO ${t} (n, a, b, room) VALUES ${rows(1 + upTo(4))} ON CONFLICT DO NOTHING`],
    [
      key.includes('n') ? 6 : 0,
      () => `INSERT INTO ${t} AS x (n, a, b, room) VALUES ${rows(1)}
        ON CONFLICT (${key.join(', ')}) DO UPDATE SET a = x.a + 1, b = excluded.b`,
    ],
    [16, () => `UPDATE ${t} SET ${change()} WHERE ${where()}`],
    [4, () => `UPDATE ${t} SET n = ${id()} WHERE n = ${id()}`],
    [9, () => `DELETE FROM ${t} WHERE ${where()}`],
    [
      4,
      () => `WITH d AS (DELETE FROM ${t} WHERE ${where()} RETURNING n, a, b, room)
        INSERT INTO ${pick([t, o], random)} (n, a, b, room) SELECT n, a, b, room FROM d`,
    ],
    [
      3,
      () => `WITH u AS (UPDATE ${t} SET ${change()} WHERE n = ${id()} RETURNING 1) DELETE FROM ${o} WHERE n = ${id()}`,
    ],
    [
      3,
      () => `DO $$ BEGIN FOR i IN 1..${1 + upTo(4)} LOOP BEGIN UPDATE ${t} SET ${change()} WHERE n = i;
        IF i % 2 = 0 THEN PERFORM 1 / 0; END IF; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$`,
    ],
    [1, () => `TRUNCATE ${t} CASCADE`],
    [2, () => `SELECT realtime.send('sent', '{}')`],
  ];
  let point = random() * weighted.reduce((sum, [weight]) => sum + weight, 0);
  for (const [weight, make] of weighted) {
    point -= weight;
    if (point < 0) return make();
  }
  return 'SELECT 1';
}

export function nestedWorkload(random: Random): NestedWorkload {
  const chosen = Array.from({ length: 2 + Math.floor(random() * 3) }, () => pick(kinds, random));
  const tables = chosen.map(({ key }, place): NestedTable => {
    const capture = place === 0 ? 'row' : place === 1 ? 'watch' : pick(['row', 'watch'] as const, random);
    return { name: `t${place}`, key, capture };
  });
  return {
    tables,
    setUp: [types, ...chosen.map((kind, place) => tableSql(`t${place}`, kind)), triggersSql(tables, random)].join('\n'),
    statement: (from) => statement(tables, from),
  };
}
