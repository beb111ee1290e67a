// The tables as drizzle knows them are those of the migrated database, to the last column, index and constraint: what is
// generated from them next would otherwise undo what the migrations did.

import { expect, test } from 'bun:test';
import { cp } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { is } from 'drizzle-orm';
import { getTableConfig, PgTable } from 'drizzle-orm/pg-core';
import * as schema from '../../drizzle/schema.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { database } from './support.ts';

const { sql } = await database();

test('drizzle/schema.ts describes the tables of the migrated database', async () => {
  const columns = await sql`
    select c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
      || case when a.attnotnull then ' not null' else '' end
      || case when a.atthasdef or a.attidentity <> '' then ' default' else '' end as line
    from pg_attribute a join pg_class c on c.oid = a.attrelid
    where c.relnamespace = 'realtime'::regnamespace and c.relkind = 'r' and c.relname <> 'migrations' and a.attnum > 0
      and not a.attisdropped
    union all
    select c.relname || ' index ' || i.relname || case when x.indisunique then ' unique' else '' end || ' ' || (
      select string_agg(pg_get_indexdef(x.indexrelid, n, true), ', ' order by n) from generate_series(1, x.indnatts) n)
    from pg_index x join pg_class c on c.oid = x.indrelid join pg_class i on i.oid = x.indexrelid
    where c.relnamespace = 'realtime'::regnamespace and c.relname <> 'migrations'`;
  const described = Object.values(schema)
    .filter((value) => is(value, PgTable))
    .flatMap((table) => {
      const config = getTableConfig(table);
      const lines = config.columns.map((column) => {
        const type = column.getSQLType().replace(/^bigserial$/, 'bigint');
        const isGiven = column.hasDefault || column.generatedIdentity !== undefined;
        return `${config.name}.${column.name} ${type}${column.notNull ? ' not null' : ''}${isGiven ? ' default' : ''}`;
      });
      const index = (name: string | undefined, unique: boolean, names: readonly string[]): string =>
        `${config.name} index ${name ?? ''}${unique ? ' unique' : ''} ${names.map(quoted).join(', ')}`;
      const primary = config.columns.filter(({ primary }) => primary);
      if (primary.length > 0) lines.push(index(`${config.name}_pkey`, true, [primary[0]!.name]));
      for (const key of config.primaryKeys) lines.push(index(key.getName(), true, namesOf(key.columns)));
      for (const key of config.uniqueConstraints) lines.push(index(key.getName(), true, namesOf(key.columns)));
      for (const { config: each } of config.indexes) {
        lines.push(index(each.name, each.unique, namesOf(each.columns as { name: string }[])));
      }
      return lines;
    });
  expect(described.toSorted()).toEqual(columns.map(({ line }) => line as string).toSorted());
});

function namesOf(columns: readonly { readonly name: string }[]): string[] {
  return columns.map(({ name }) => name);
}

/** As the database prints names that are words of SQL. */
function quoted(name: string): string {
  return ['offset', 'user'].includes(name) ? `"${name}"` : name;
}

// What it knew of was older: it would have made tables that were there.
test('drizzle-kit generate finds nothing to add', async () => {
  const root = join(import.meta.dir, '../..');
  const migrations = join(temporaryFolder('generate'), 'migrations');
  await cp(join(root, 'migrations'), migrations, { recursive: true });
  const options = ['--dialect', 'postgresql', '--schema', 'drizzle/schema.ts', '--out', relative(root, migrations)];
  const { stdout, stderr } = Bun.spawnSync(
    [process.execPath, join(root, 'node_modules/.bin/drizzle-kit'), 'generate', ...options],
    { cwd: root },
  );
  expect(`${stdout.toString()}${stderr.toString()}`).toContain('No schema changes');
});
