// What the Postgres adapter asks the database: heads, stretches of the log, stretches of a channel. Nothing else of
// the adapter contains SQL, but for the append.

import { Publication } from '../../core/publication.ts';
import { pageBytesMax, type HistoryPage, type HistoryQuery } from '../../core/sync-adapter.ts';
import type { ChannelRule } from '../../rules/rules.ts';
import type { Position } from '../../protocol/position.ts';
import { textArray, type Database } from '../../database/connect.ts';
import type { LogRow } from '../../database/log-row.ts';
import type { LogName } from '../log-bus.ts';

/** Text that one read of the whole log brings at most, so that large rows do not fill the memory. */
const logPageBytesMax = 4 << 20;

/** More publications, or milliseconds, than any log holds. */
const unbounded = 1e15;

/** `seq` is null in the one row of an outer join that found nothing. */
interface RawRow {
  readonly seq: number | null;
  readonly channel: string;
  readonly epoch: string;
  readonly offset: number;
  readonly data: string;
  readonly at: number;
  readonly from_user: string | null;
  readonly from_connection: string | null;
  readonly except_connection: string | null;
  readonly xid: string | null;
}

function toLogRow(row: RawRow): LogRow {
  return {
    seq: row.seq ?? 0,
    channel: row.channel,
    epoch: row.epoch,
    offset: row.offset,
    data: row.data,
    at: row.at,
    user: row.from_user,
    connection: row.from_connection,
    except: row.except_connection,
    xid: row.xid,
  };
}

export interface LogState extends LogName {
  /** The newest publication's; 0 when there is none. */
  readonly seq: number;
}

/** A channel's head, beside its row: that holds it only once the publication itself was trimmed. */
function headOffset(sql: Database, channel: ReturnType<Database>): ReturnType<Database> {
  return sql`coalesce(greatest(c."offset", (
    SELECT h."offset" FROM realtime.publications h WHERE h.channel = ${channel} ORDER BY h."offset" DESC LIMIT 1
  )), 0)`;
}

export async function readLogState(sql: Database): Promise<LogState> {
  const [row] = await sql<LogState[]>`
    SELECT epoch, topic, (SELECT coalesce(max(seq), 0) FROM realtime.publications) AS seq FROM realtime.log`;
  if (row === undefined) throw new Error('the table realtime.log is empty');
  return row;
}

/**
 * The log's row. Such a small table is never analyzed, and is taken for hundreds of rows: what is joined to it would seem so
 * dear that PostgreSQL compiles the statement, which takes longer than to run it.
 */
function logRow(sql: Database): ReturnType<Database> {
  return sql`(SELECT * FROM realtime.log LIMIT 1) AS log`;
}

/** The heads of channels; one that never had a publication stands at 0 of the epoch in which it will begin. */
export async function readHeads(sql: Database, channels: readonly string[]): Promise<Map<string, Position>> {
  const rows = await sql<{ channel: string; epoch: string; offset: number }[]>`
    SELECT asked.channel, coalesce(c.epoch, realtime.first_epoch(asked.channel, log.epoch)) AS epoch,
      ${headOffset(sql, sql`asked.channel`)} AS "offset"
    FROM unnest(${textArray(channels)}::text[]) AS asked (channel)
    CROSS JOIN ${logRow(sql)}
    LEFT JOIN realtime.channels c ON c.channel = asked.channel`;
  return new Map(rows.map(({ channel, epoch, offset }) => [channel, { epoch, offset }]));
}

export interface LogPage {
  readonly rows: readonly LogRow[];
  /** Everything up to here was read: the last row's, or the log's end if that was reached. */
  readonly seq: number;
}

/** The log after `seq`, of these channels alone when they are given, in order. */
export async function readLog(
  sql: Database,
  seq: number,
  channels: readonly string[] | undefined,
  limit: number,
): Promise<LogPage> {
  const wanted = channels === undefined ? sql`` : sql`AND p.channel = ANY (${textArray(channels)}::text[])`;
  // octet_length of a text that is stored out of line is read from its pointer, not from the text.
  const rows = await sql<(RawRow & { top: number })[]>`
    WITH top AS (SELECT coalesce(max(seq), 0) AS seq FROM realtime.publications),
    page AS (
      SELECT p.*, sum(octet_length(p.data)) OVER (ORDER BY p.seq) - octet_length(p.data) AS before
      FROM (
        SELECT * FROM realtime.publications p WHERE p.seq > ${seq} ${wanted} ORDER BY p.seq LIMIT ${limit}
      ) p
    )
    SELECT top.seq AS top, page.seq, page.channel, c.epoch, page."offset", page.data, page.at,
      page.from_user, page.from_connection, page.except_connection, page.xid
    FROM top
    LEFT JOIN page ON page.before < ${logPageBytesMax}
    LEFT JOIN realtime.channels c ON c.channel = page.channel
    ORDER BY page.seq`;
  const read = rows.filter((row) => row.seq !== null).map(toLogRow);
  const top = rows[0]?.top ?? seq;
  const last = read.at(-1)?.seq;
  // A page cut short by its number of rows or bytes says nothing about what follows it.
  const whole = read.length < limit && read.reduce((sum, { data }) => sum + data.length, 0) < logPageBytesMax / 4;
  return { rows: read, seq: Math.max(seq, whole ? Math.max(top, last ?? 0) : (last ?? seq)) };
}

/** A stretch of one channel. `internal` readers are not bound by the rule, only by what is still stored. */
export interface Stretch {
  readonly channel: string;
  readonly rule: ChannelRule;
  readonly query: HistoryQuery;
  readonly internal: boolean;
}

interface StretchRow extends Omit<RawRow, 'seq' | 'channel' | 'data' | 'offset'> {
  /** Place of the stretch among those that were asked for, from 1. */
  readonly n: number;
  readonly head: number;
  /** Null in the one row of a stretch that has none. */
  readonly offset: number | null;
  /** Null where the stretch is too large to share a statement. */
  readonly data: string | null;
  /** Rows that were found, one more than asked at most. */
  readonly total: number;
}

/**
 * Stretches of channels, all from a position on or all the newest ones. One statement sees one state of heads and log.
 * Where `shareBytes` is given, a stretch with more bytes of data than that is not read: undefined stands for it.
 */
export async function readHistories(
  sql: Database,
  stretches: readonly Stretch[],
  shareBytes = unbounded,
): Promise<readonly (HistoryPage | undefined)[]> {
  const order = stretches[0]?.query.since === undefined ? sql`DESC` : sql`ASC`;
  const numbers = (of: (stretch: Stretch) => number): string => `{${stretches.map(of).join(',')}}`;
  const channels = textArray(stretches.map(({ channel }) => channel));
  const after = numbers(({ query }) => query.since?.offset ?? 0);
  const sizes = numbers(({ rule, internal }) => (internal ? unbounded : rule.historySize));
  const ages = numbers(({ rule, internal }) => (internal ? unbounded : rule.historySeconds * 1_000));
  const limits = numbers(({ query }) => query.limit);
  const bytes = numbers(({ query }) => Math.ceil(query.bytesMax ?? pageBytesMax));
  // One row more than asked tells whether there is more.
  const rows = await sql<StretchRow[]>`
    WITH asked AS MATERIALIZED (
      SELECT asked.*, coalesce(c.epoch, realtime.first_epoch(asked.channel, log.epoch)) AS epoch,
        ${headOffset(sql, sql`asked.channel`)} AS head, (extract(epoch FROM clock_timestamp()) * 1000)::bigint - asked.age AS since
      FROM unnest(${channels}::text[], ${after}::bigint[], ${sizes}::bigint[], ${ages}::bigint[], ${limits}::bigint[], ${bytes}::bigint[])
        WITH ORDINALITY AS asked (channel, after, size, age, rows, bytes, n)
      CROSS JOIN ${logRow(sql)}
      LEFT JOIN realtime.channels c ON c.channel = asked.channel
    )
    SELECT asked.n, asked.head, asked.epoch, page."offset", CASE WHEN page.whole <= ${shareBytes}::bigint THEN page.data END AS data,
      page.at, page.from_user, page.from_connection, page.except_connection, page.xid, coalesce(page.total, 0) AS total
    FROM asked LEFT JOIN LATERAL (
      SELECT p.*, count(*) OVER () AS total, sum(octet_length(p.data)) OVER () AS whole,
        sum(octet_length(p.data)) OVER (ORDER BY p."offset" ${order}) - octet_length(p.data) AS before
      FROM (
        SELECT p.* FROM realtime.publications p
        WHERE p.channel = asked.channel AND p."offset" > asked.after AND p."offset" > asked.head - asked.size
          AND p.at > asked.since
        ORDER BY p."offset" ${order} LIMIT asked.rows + 1
      ) p
    ) page ON page.before < CASE WHEN page.whole <= ${shareBytes}::bigint THEN asked.bytes ELSE 1 END
    ORDER BY asked.n, page."offset" ${order}`;
  const ofEach = stretches.map((): StretchRow[] => []);
  for (const row of rows) ofEach[row.n - 1]?.push(row);
  return stretches.map((stretch, index) => pageOf(stretch, ofEach[index] ?? []));
}

/** Undefined when the stretch is too large to share a statement. */
function pageOf({ channel, query: { since, limit } }: Stretch, rows: readonly StretchRow[]): HistoryPage | undefined {
  const [first] = rows;
  if (first === undefined) throw new Error('the table realtime.log is empty');
  const { head: offset, epoch, total } = first;
  const head = { epoch, offset };
  const read: Publication[] = [];
  for (const row of rows.slice(0, limit)) {
    if (row.offset === null) break;
    if (row.data === null) return undefined;
    read.push(publicationOf(channel, row, row.offset, row.data));
  }
  if (since === undefined) {
    const publications = afterLastHole(read.reverse());
    return { head, publications, complete: read.length === total };
  }
  return pageSince(since, head, read);
}

function publicationOf(channel: string, row: StretchRow, offset: number, data: string): Publication {
  const { epoch, at, from_user: user, from_connection: connection, except_connection: except, xid } = row;
  return Publication.ofRow({ channel, offset, epoch, data, at, user, connection, except, xid });
}

/** After a clock went back and forward again, rows in the middle look too old and are trimmed. */
function afterLastHole(publications: readonly Publication[]): readonly Publication[] {
  const hole = publications.findLastIndex(({ offset }, index) => {
    const before = publications[index - 1];
    return before !== undefined && offset !== before.offset + 1;
  });
  return hole === -1 ? publications : publications.slice(hole);
}

function pageSince(since: Position, head: Position, read: readonly Publication[]): HistoryPage {
  if (since.epoch !== head.epoch || since.offset > head.offset) {
    return { head, publications: [], complete: false, gap: 'epoch_changed' };
  }
  const publications = afterLastHole(read);
  const first = publications[0]?.offset ?? head.offset + 1;
  if (first > since.offset + 1) return { head, publications, complete: false, gap: 'trimmed' };
  const last = publications.at(-1)?.offset ?? since.offset;
  return { head, publications, complete: last === head.offset };
}
