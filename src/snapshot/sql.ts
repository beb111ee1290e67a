// Queries as rules write them: the tag that makes one of a template, and what is taken for one.

import type { RowsQuery, SqlQuery, SqlTag } from '../rules/config.ts';

/** What the tag made: only such a value is taken for a part of a query, never one that came from outside. */
const made = new WeakSet<object>();

export const sql: SqlTag = (strings, ...values) => {
  let text = strings[0] ?? '';
  const params: unknown[] = [];
  values.forEach((value, index) => {
    text += isMade(value) ? moved(value, params) : `$${params.push(value)}`;
    text += strings[index + 1] ?? '';
  });
  const query = Object.freeze({ sql: text, params: Object.freeze(params) });
  made.add(query);
  return query;
};

function isMade(value: unknown): value is SqlQuery {
  return typeof value === 'object' && value !== null && made.has(value);
}

/** The text of a query whose parameters come after others. */
function moved(query: SqlQuery, params: unknown[]): string {
  const before = params.length;
  params.push(...query.params);
  return query.sql.replace(/\$(\d+)/g, (_match, number) => `$${Number(number) + before}`);
}

/** Throws on what is no query. */
export function queryOf(answer: RowsQuery): SqlQuery {
  const given: unknown = answer;
  if (typeof given !== 'object' || given === null) throw new Error('it answered no query');
  const query: unknown = 'toSQL' in given && typeof given.toSQL === 'function' ? given.toSQL() : given;
  // It becomes a part of another one, where its end would be in the middle.
  if (isQuery(query)) return { sql: query.sql.replace(/[;\s]+$/, ''), params: query.params };
  throw new Error('it answered no query: sql`…` makes one, and so does a query builder with toSQL');
}

function isQuery(value: unknown): value is SqlQuery {
  if (typeof value !== 'object' || value === null) return false;
  const { sql: text, params } = value as Partial<SqlQuery>;
  return typeof text === 'string' && text.trim() !== '' && Array.isArray(params);
}
