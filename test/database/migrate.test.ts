// The migrator on a real PostgreSQL: from nothing, again, from several nodes at once, and on a newer database.

import { afterAll, expect, test } from 'bun:test';
import postgres from 'postgres';
import { migrate } from '../../src/database/migrate.ts';
import { createDatabase, freePort } from '../support/postgres.ts';

const clients: postgres.Sql[] = [];
afterAll(() => Promise.all(clients.map((sql) => sql.end({ timeout: 1 }))));

async function emptyDatabase(): Promise<{ url: string; sql: postgres.Sql }> {
  const { url } = await createDatabase();
  const sql = postgres(url, { max: 2, onnotice: () => undefined });
  clients.push(sql);
  return { url, sql };
}

test('several nodes at once, then again: migrated once', async () => {
  const { url, sql } = await emptyDatabase();
  await Promise.all([migrate(url), migrate(url), migrate(url)]);
  const count = async (): Promise<unknown> =>
    (await sql`select count(*)::int as n, count(distinct hash)::int as d from drizzle.__drizzle_migrations`)[0];
  const before = await count();
  await migrate(url);
  expect(await count()).toEqual(before as never);
  const [log] = await sql`select count(*)::int as n, min(epoch) as epoch from realtime.log`;
  expect(log!['n']).toBe(1);
  expect(log!['epoch']).toMatch(/^[a-z0-9]{6}$/);
});

test("an application's own table named like a demo table is left alone and unwatched", async () => {
  const { url, sql } = await emptyDatabase();
  await sql`create table posts (mine int)`;
  await migrate(url);
  await sql`insert into posts values (1)`;
  const [row] = await sql`select (select count(*)::int from realtime.outbox) as outbox,
    to_regclass('messages') is not null as messages`;
  expect({ ...row }).toEqual({ outbox: 0, messages: true });
});

test('a database of a newer version is refused, in words', async () => {
  const { url, sql } = await emptyDatabase();
  await migrate(url);
  await sql`insert into drizzle.__drizzle_migrations (hash, created_at) values ('new', 9999999999999)`;
  expect(migrate(url)).rejects.toThrow('migrated by a newer version');
});

test('a database that is not there is `unavailable`', async () => {
  const port = await freePort();
  const error = await migrate(`postgres://app@127.0.0.1:${port}/none`).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: 'unavailable' });
});
