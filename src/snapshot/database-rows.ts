// Reads rows as one snapshot of the database sees them: a transaction of its own, which can write nothing, has a time,
// and ends past a number of rows or bytes.
//
//   1. the first statement fixes the snapshot, and says which it is
//   2. the query is described: its columns are printed as those of a watched table's changes are, whoever made their
//      types and whatever the session's settings
//   3. rows come in portions, so that a query of a million rows is ended after the first of them
//
// The session looks names up as the application does, so its query means here what it means there. The statements around it
// name the schema of all that they use: another role may have made a function of the same name that suits a call better.

import { textArray, type Database } from '../database/connect.ts';
import { singleLine } from '../protocol/json-text.ts';
import type { SqlQuery } from '../rules/config.ts';

export interface RowsLimits {
  /** For each statement. */
  readonly timeoutMs: number;
  readonly rowsMax: number;
  readonly bytesMax: number;
}

export interface SeenRows {
  /** JSON texts on one line. */
  readonly rows: readonly string[];
  readonly bytes: number;
  /** In the words of `pg_current_snapshot`. */
  readonly snapshot: string;
}

interface Column {
  readonly name: string;
  readonly type: number;
  /** Of the column that it is; 0 for an expression. */
  readonly table: number;
}

const portion = 200;
/** How a column is printed depends on what the database holds, which may change. */
const printedMsMax = 60_000;
const printedMax = 500;

/** All that shapes how values are printed, see realtime.printing_settings. */
const printing = {
  array_nulls: 'on',
  bytea_output: 'hex',
  datestyle: 'ISO, MDY',
  extra_float_digits: '1',
  intervalstyle: 'postgres',
  lc_monetary: 'C',
  quote_all_identifiers: 'off',
  timezone: 'UTC',
};

export class DatabaseRows {
  readonly #sql: Database;
  readonly #limits: RowsLimits;
  readonly #printed = new Map<string, { readonly expressions: string; readonly at: number }>();

  constructor(sql: Database, limits: RowsLimits) {
    this.#sql = sql;
    this.#limits = limits;
  }

  /** Rejects with the database's error, or with what is too much. */
  async read(query: SqlQuery): Promise<SeenRows> {
    return await this.#sql.begin('isolation level repeatable read read only', async (transaction) => {
      const [seen] = await transaction<{ snapshot: string }[]>`
        SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text AS snapshot, (
          SELECT pg_catalog.count(pg_catalog.set_config(s.key, s.value, true))
          FROM pg_catalog.json_each_text(${this.#settings}::pg_catalog.text::pg_catalog.json) s
        )`;
      if (seen === undefined) throw new Error('the database did not say which snapshot it took');
      const { rowsMax } = this.#limits;
      const { rows, bytes } = await this.#rows(transaction, query, rowsMax + 1);
      if (rows.length > rowsMax) throw new Error(`there are more than ${rowsMax} rows: give the query a limit`);
      return { rows, bytes, snapshot: seen.snapshot };
    });
  }

  /** The first rows, `rowsMax` at most, of a query alone. Rejects as `read` does. */
  async page(query: SqlQuery, rowsMax: number): Promise<readonly string[]> {
    return await this.#sql.begin('isolation level repeatable read read only', async (transaction) => {
      await transaction`
        SELECT pg_catalog.set_config(s.key, s.value, true)
        FROM pg_catalog.json_each_text(${this.#settings}::pg_catalog.text::pg_catalog.json) s`;
      return (await this.#rows(transaction, query, rowsMax)).rows;
    });
  }

  /** Of each transaction, as JSON. */
  get #settings(): string {
    const timeout = String(this.#limits.timeoutMs);
    return JSON.stringify({ ...printing, statement_timeout: timeout, lock_timeout: timeout });
  }

  async #rows(transaction: Transaction, query: SqlQuery, rowsMax: number): Promise<{ rows: string[]; bytes: number }> {
    const { bytesMax } = this.#limits;
    const params = query.params as never[];
    const described = await transaction.unsafe(`SELECT * FROM (${query.sql}\n) q`, params).describe();
    const columns = described.columns as unknown as readonly Column[];
    if (columns.length === 0) throw new Error('the query has no columns');
    const names = columns.map((_column, index) => `c${index + 1}`).join(', ');
    const expressions = await this.#print(transaction, columns);
    const text = `SELECT pg_catalog.row_to_json(r)::pg_catalog.text AS row FROM (${query.sql}\n) q (${names})
      CROSS JOIN LATERAL (SELECT ${expressions}) r LIMIT ${rowsMax}`;
    const rows: string[] = [];
    let bytes = 0;
    for await (const portionOfRows of transaction.unsafe<{ row: string }[]>(text, params).cursor(portion)) {
      for (const { row } of portionOfRows) {
        bytes += Buffer.byteLength(row);
        if (bytes > bytesMax) throw new Error(`the rows have more than ${bytesMax} bytes: give the query a limit`);
        rows.push(singleLine(row));
      }
    }
    return { rows, bytes };
  }

  /** The columns of the query as they are in the changes of the tables that they come from. */
  async #print(transaction: Transaction, columns: readonly Column[]): Promise<string> {
    const key = JSON.stringify(columns.map(({ name, type, table }) => [name, type, table]));
    const known = this.#printed.get(key);
    if (known !== undefined && performance.now() - known.at < printedMsMax) return known.expressions;
    const [row] = await transaction<{ expressions: string }[]>`
      SELECT pg_catalog.string_agg(pg_catalog.format('%s AS %I', p.expression, c.name), ', ' ORDER BY c.place) AS expressions
      FROM ROWS FROM (
        pg_catalog.unnest(${textArray(columns.map(({ name }) => name))}::pg_catalog.text[]),
        pg_catalog.unnest(${textArray(columns.map(({ type }) => String(type)))}::pg_catalog.oid[]),
        pg_catalog.unnest(${textArray(columns.map(({ table }) => String(table)))}::pg_catalog.oid[])
      ) WITH ORDINALITY c (name, type, source, place)
      LEFT JOIN realtime.watched w ON w.target::pg_catalog.oid OPERATOR(pg_catalog.=) c.source
      CROSS JOIN LATERAL realtime.printed(c.type, pg_catalog.concat('q.c', c.place), '', coalesce(w.numbers, 'json')) p`;
    const expressions = row?.expressions ?? '';
    if (this.#printed.size >= printedMax) this.#printed.clear();
    this.#printed.set(key, { expressions, at: performance.now() });
    return expressions;
  }
}

type Transaction = Parameters<Parameters<Database['begin']>[1]>[0];
