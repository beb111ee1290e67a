// The SQL of the documents is run: each document's blocks in order, in a database of its own, as the roles that they
// name. What they say that a subscriber gets is what the relay finds in the outbox. Then the table of column types, and
// the list of what a watch does not see, row by row.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import postgres, { type Sql } from 'postgres';
import { objectsOf, readDocument, readDocuments, tableAfter, type CodeBlock } from '../support/documents.ts';
import { createDatabase, sharedCluster, type TestDatabase } from '../support/postgres.ts';
import { spawnCommand } from '../support/process.ts';
import { takenOver, type Seen } from '../database/support.ts';

const quiet = { max: 1, onnotice: () => undefined };
/** Roles that the documents speak of. The database's owner, who is no superuser, is the one without a name. */
const roles = ['web', 'sobranie'];

let superuser: Sql;
let clusterUrl: string;

beforeAll(async () => {
  const { port } = await sharedCluster();
  clusterUrl = `postgres://postgres@127.0.0.1:${port}/postgres`;
  superuser = postgres(clusterUrl, quiet);
  for (const role of roles) await superuser.unsafe(`CREATE ROLE ${role} LOGIN`);
});

afterAll(async () => {
  await superuser?.unsafe('DROP DATABASE IF EXISTS app WITH (FORCE)');
  for (const role of roles) await superuser?.unsafe(`DROP ROLE ${role}`);
  await superuser?.end({ timeout: 1 });
});

async function withDatabase(run: (database: TestDatabase) => Promise<void>): Promise<void> {
  const database = await createDatabase({ migrated: true });
  try {
    await superuser.unsafe(`GRANT CREATE ON DATABASE ${database.name} TO web`);
    await execute(database.superUrl, 'GRANT CREATE ON SCHEMA public TO web');
    await run(database);
  } finally {
    for (const role of roles) await execute(database.superUrl, `DROP OWNED BY ${role} CASCADE`);
    await database.drop();
  }
}

function urlOf(database: TestDatabase, role: string | undefined): string {
  if (role === undefined) return database.url;
  return role === 'superuser' ? database.superUrl : database.url.replace('//app@', `//${role}@`);
}

async function execute(url: string, text: string): Promise<void> {
  const sql = postgres(url, quiet);
  try {
    await sql.unsafe(text);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

async function publishedIn(database: TestDatabase): Promise<Seen[]> {
  const sql = postgres(database.url, quiet);
  try {
    return await takenOver(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

function isTested({ language, words }: CodeBlock): boolean {
  return language === 'sql' || (language === 'json' && words.includes('published'));
}

describe('each document’s SQL, in order', () => {
  const documents = readDocuments().filter(({ path, blocks }) => path !== 'docs/operate.md' && blocks.some(isTested));

  test.each(documents.map((document) => [document.path, document.blocks.filter(isTested)] as const))(
    '%s',
    async (_path, blocks) => {
      await withDatabase(async (database) => {
        const published: Seen[] = [];
        for (const block of blocks) {
          if (block.language === 'sql') {
            await execute(urlOf(database, block.values.get('as')), block.text);
            published.push(...(await publishedIn(database)));
          } else {
            for (const expected of objectsOf(block)) expect(published, block.place).toContainEqual(expected as Seen);
          }
        }
      });
    },
  );
});

// The grants that operating names are all that the server's role needs: it migrates with them.
test('docs/operate.md: a role with these grants migrates a database that is another’s', async () => {
  await superuser.unsafe('CREATE DATABASE app');
  const appUrl = clusterUrl.replace(/postgres$/, 'app');
  for (const block of readDocument('docs/operate.md').blocks.filter(isTested)) await execute(appUrl, block.text);
  const url = appUrl.replace('//postgres@', '//sobranie@');
  const migration = spawnCommand(['migrate'], { DATABASE_URL: url });
  expect(await migration.waitForExit()).toBe(0);
  await execute(url, `SELECT realtime.send('posts', '{}')`);
});

describe('docs/sql.md: column types on the wire', () => {
  const rows = [
    ...tableAfter(readDocument('docs/sql.md'), '<!-- types -->').map((row) => ['json', ...row]),
    ...tableAfter(readDocument('docs/sql.md'), '<!-- types as text -->').map((row) => ['text', ...row]),
  ];
  const codeOf = (cell: string): string[] => Array.from(cell.matchAll(/`([^`]+)`/g), (match) => match[1] ?? '');
  const cases = rows.flatMap(([numbers = '', types = '', value = '', wire = '']) => {
    const names = codeOf(types);
    return (names.length === 0 ? ['text'] : names).map(
      (type) => [type, codeOf(value)[0], codeOf(wire)[0], numbers] as const,
    );
  });
  let database: TestDatabase;
  let sql: Sql;
  beforeAll(async () => {
    database = await createDatabase({ migrated: true });
    sql = postgres(database.url, quiet);
    await sql.unsafe(
      `CREATE TYPE mood AS ENUM ('happy'); CREATE TYPE pair AS (a int, b text);
      CREATE DOMAIN positive AS bigint CHECK (value > 0)`,
    );
  });
  afterAll(async () => {
    await sql?.end({ timeout: 1 });
    await database?.drop();
  });

  test('the table has its rows', () => {
    expect(cases.length).toBeGreaterThan(40);
  });

  test.each(cases)('%s of %s is %s, numbers as %s', async (type, value, wire, numbers) => {
    await sql.unsafe(`DROP TABLE IF EXISTS typed; CREATE TABLE typed (v ${type}); 
      SELECT realtime.watch('typed', numbers => '${numbers}'); INSERT INTO typed VALUES (${value})`);
    const [row] = await sql`SELECT data FROM realtime.outbox WHERE channel = 'typed' ORDER BY lsn DESC LIMIT 1`;
    // The text itself: parsed, large numbers would be rounded.
    expect(/"data":\{"v":(.*)\},"old":null\}$/.exec(row?.['data'] as string)?.[1]).toBe(wire ?? '');
  });
});

describe('docs/sql.md: what a watch does not see', () => {
  const t = 'id int PRIMARY KEY';
  /** What is set up, what is written unseen, and what is written beside it and seen. */
  const cases: [string, string, string, string][] = [
    [
      // As the apply process of logical replication and restore tools run.
      'session_replication_role',
      `CREATE TABLE a (${t}); SELECT realtime.watch('a')`,
      `SET session_replication_role = replica; INSERT INTO a VALUES (1); RESET session_replication_role`,
      `INSERT INTO a VALUES (2)`,
    ],
    [
      'a disabled trigger',
      `CREATE TABLE a (${t}); SELECT realtime.watch('a')`,
      `ALTER TABLE a DISABLE TRIGGER ALL; INSERT INTO a VALUES (1); ALTER TABLE a ENABLE TRIGGER ALL`,
      `INSERT INTO a VALUES (2)`,
    ],
    [
      'a partition named directly',
      `CREATE TABLE a (${t}) PARTITION BY LIST (id); CREATE TABLE a1 PARTITION OF a FOR VALUES IN (1, 2);
        SELECT realtime.watch('a')`,
      `INSERT INTO a1 VALUES (1)`,
      `INSERT INTO a VALUES (2)`,
    ],
    [
      'a table that became a partition',
      `CREATE TABLE a (${t}); SELECT realtime.watch('a'); CREATE TABLE parent (${t}) PARTITION BY LIST (id);
        ALTER TABLE parent ATTACH PARTITION a FOR VALUES IN (1, 2)`,
      `INSERT INTO parent VALUES (1)`,
      `INSERT INTO a VALUES (2)`,
    ],
    [
      'a child by inheritance named directly',
      `CREATE TABLE a (${t}); SELECT realtime.watch('a'); CREATE TABLE child () INHERITS (a)`,
      `INSERT INTO child VALUES (1)`,
      `INSERT INTO a VALUES (2)`,
    ],
    [
      'a table that was dropped and made again',
      `CREATE TABLE a (${t}); SELECT realtime.watch('a'); DROP TABLE a; CREATE TABLE a (${t})`,
      `INSERT INTO a VALUES (1)`,
      `SELECT realtime.watch('a'); INSERT INTO a VALUES (2)`,
    ],
    [
      'a table swapped by a rename',
      `CREATE TABLE a (${t}); SELECT realtime.watch('a'); CREATE TABLE b (${t}); ALTER TABLE a RENAME TO c;
        ALTER TABLE b RENAME TO a`,
      `INSERT INTO a VALUES (1)`,
      `SELECT realtime.watch('a'); INSERT INTO a VALUES (2)`,
    ],
  ];

  test.each(cases)('%s', async (_name, setUp, unseen, seen) => {
    const database = await createDatabase({ migrated: true });
    try {
      // Some of it a superuser alone may do.
      await execute(database.superUrl, setUp);
      await execute(database.superUrl, unseen);
      expect(await publishedIn(database)).toEqual([]);
      await execute(database.superUrl, seen);
      const rows = await publishedIn(database);
      expect(rows.map(({ data }) => (data['data'] as { id: number }).id)).toEqual([2]);
    } finally {
      await database.drop();
    }
  });

  test.each([
    ['CREATE VIEW a AS SELECT 1 AS id', 'is not a table'],
    ['CREATE TABLE a (id int); CREATE TABLE b () INHERITS (a)', 'inherits from it'],
    ['CREATE TABLE b (id int); CREATE TABLE a () INHERITS (b)', 'inherits from another table'],
    ['CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE a PARTITION OF p DEFAULT', 'is a partition'],
  ])('%s: watch says that it cannot be', async (setUp, message) => {
    const database = await createDatabase({ migrated: true });
    try {
      await execute(database.superUrl, setUp);
      await expect(execute(database.superUrl, `SELECT realtime.watch('a')`)).rejects.toThrow(message);
    } finally {
      await database.drop();
    }
  });
});
