// What the tests of this folder share: a database per file with its clients, a look at the outbox, a relay that
// collects.

import { afterAll } from 'bun:test';
import postgres from 'postgres';
import { IntoLog, type LogReader } from '../../src/changes/into-log.ts';
import { Relay, type RelayOptions } from '../../src/changes/relay.ts';
import { Rules } from '../../src/rules/rules.ts';
import type { LogRow } from '../../src/database/log-row.ts';
import { createDatabase } from '../support/postgres.ts';

export interface Database {
  readonly url: string;
  readonly superUrl: string;
  /** As the owner of the database, who is no superuser. */
  readonly sql: postgres.Sql;
  readonly superuser: postgres.Sql;
  readonly version: number;
}

/** A fresh migrated database for the calling file; gone with its clients when the file's tests are done. */
export async function database(): Promise<Database> {
  const created = await createDatabase({ migrated: true });
  const options = { max: 20, onnotice: () => undefined };
  const sql = postgres(created.url, options);
  const superuser = postgres(created.superUrl, { ...options, max: 2 });
  afterAll(async () => {
    await Promise.all([sql.end({ timeout: 1 }), superuser.end({ timeout: 1 })]);
    await created.drop();
  });
  const [row] = await sql`select current_setting('server_version_num')::int / 10000 as version`;
  return { url: created.url, superUrl: created.superUrl, sql, superuser, version: row!['version'] as number };
}

export const rules = new Rules({
  rules: [
    { channels: 'ephemeral:*', recoverable: false },
    { channels: 'small', history: { size: 10, seconds: 60 } },
  ],
}).all;

/** Polls a condition; throws when it is not met in time. */
export async function until(condition: () => boolean | Promise<boolean>, milliseconds = 10_000): Promise<void> {
  const deadline = performance.now() + milliseconds;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not met within ${milliseconds} ms: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A change or anything else that was published; `{gap: true}` for a gap. */
export interface Seen {
  readonly channel: string;
  readonly data: Record<string, unknown>;
}

/** Moves what is in the outbox into the log by hand, and answers it, in order. */
export async function takenOver(sql: postgres.Sql): Promise<Seen[]> {
  const seen: Seen[] = [];
  // One call takes about 8 MB at most.
  for (;;) {
    const { rows, taken } = await relayed(sql);
    if (taken === 0) return seen;
    for (const { channel, data } of rows) {
      seen.push({ channel, data: (data === '' ? { gap: true } : JSON.parse(data)) as Record<string, unknown> });
    }
  }
}

/** Writes rows into the outbox, as one transaction and in this order. */
export async function leave(
  sql: postgres.Sql,
  rows: readonly (readonly [channel: string, data: string, key?: string])[],
): Promise<void> {
  await sql.begin(async (tx) => {
    for (const [channel, data, key] of rows) {
      await tx`insert into realtime.outbox (xid, lsn, channel, data, key)
        values (pg_current_xact_id(), pg_current_wal_insert_lsn(), ${channel}, ${data}, ${key ?? null})`;
    }
  });
}

export interface Relayed {
  readonly rows: LogRow[];
  readonly taken: number;
  readonly dropped: number;
}

/** One call of realtime.relay, of everything. */
export async function relayed(sql: postgres.Sql, batchMax = 100_000): Promise<Relayed> {
  const rows = await sql`
    select seq::float8, channel, epoch, "offset"::float8, data, at::float8, "user", connection, "except"
    from realtime.relay(${batchMax}, ${JSON.stringify(rules)}::text::jsonb)`;
  const report = rows.at(-1)!;
  return {
    rows: rows.slice(0, -1) as unknown as LogRow[],
    taken: report['offset'] as number,
    dropped: report['at'] as number,
  };
}

export interface TestRelay {
  readonly relay: Relay;
  /** What was handed over. */
  readonly rows: LogRow[];
  /** Channel and data of what the log does not hold. */
  readonly ephemeral: [channel: string, data: string][];
  readonly errors: unknown[];
  /** Rows dropped so far. */
  readonly dropped: () => number;
  /** Rows parked so far. */
  readonly parked: () => number;
  /** How often the reader of this node was told to read the log. */
  readonly catchUps: () => number;
  /** How many times the outbox was read. */
  readonly reads: () => number;
}

export interface TestRelayOptions extends Partial<RelayOptions> {
  /** In place of collecting what is handed over. */
  readonly hand?: LogReader['hand'];
  readonly batchMax?: number;
}

/** A relay that collects what it hands over; into the log unless the options have another destination. */
export async function startRelay(url: string, options: TestRelayOptions = {}): Promise<TestRelay> {
  const rows: LogRow[] = [];
  const ephemeral: TestRelay['ephemeral'] = [];
  const errors: unknown[] = [];
  let dropped = 0;
  let parked = 0;
  let catchUps = 0;
  const collect = (batch: readonly LogRow[]): void => {
    for (const row of batch) rows.push(row);
  };
  const { hand = collect, batchMax, ...more } = options;
  let reads = 0;
  class Counted extends IntoLog {
    override statement(...args: Parameters<IntoLog['statement']>): string {
      reads++;
      return super.statement(...args);
    }
  }
  const relay = new Relay({
    url,
    destination: new Counted(
      {
        rules,
        publish: ({ channel, data }) => ephemeral.push([channel, data]),
        published: () => undefined,
        failed: (_message, error) => errors.push(error),
      },
      { hand, catchUp: () => void catchUps++ },
      batchMax,
    ),
    observer: {
      leader: () => undefined,
      batch: (_rows, count) => (dropped += count),
      parked: (count) => (parked += count),
      waiting: () => undefined,
      log: () => undefined,
      faults: () => undefined,
      error: (error) => errors.push(error),
    },
    standbyMs: 50,
    ...more,
  });
  await relay.start();
  return {
    relay,
    rows,
    ephemeral,
    errors,
    dropped: () => dropped,
    parked: () => parked,
    catchUps: () => catchUps,
    reads: () => reads,
  };
}

/** Numbers of a channel's rows without a hole or a repeat, from `first` on. */
export function expectConsecutive(rows: readonly LogRow[], first = 1): void {
  rows.forEach((row, index) => {
    if (row.offset !== first + index) throw new Error(`offset ${row.offset} where ${first + index} was due`);
  });
}
