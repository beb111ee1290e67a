// Rows and the position at which they are true. Why this is exact stands in docs/architecture.md; in short:
//
//   1. this node's position in the channel is noted: all up to there was committed before what follows
//   2. rows are read as one snapshot of the database sees them
//   3. changes that the snapshot sees and that wait for the relay are waited for, then the log's head is reached: all
//      that the snapshot sees stands in the log up to there
//   4. of what stands between the two, each change keeps the transaction that wrote it, so the snapshot tells which the
//      rows hold. The rows' position goes past those that are held, up to the first that is not
//
// Whoever asks with the same query and parameters shares the rows, and so does whoever comes within a second after.

import type { Identity } from '../core/access.ts';
import type { OlderPage, OlderWish, Snapshot, SnapshotChannel, Snapshots, SnapshotWish } from '../core/snapshot.ts';
import { Turns } from '../core/turns.ts';
import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { snapshotFrame } from '../protocol/frames.ts';
import type { RowsQuery, RowsRequest, SqlQuery } from '../rules/config.ts';
import type { ChannelPattern } from '../rules/pattern.ts';
import type { RowsRule } from '../rules/rules.ts';
import type { Clock } from '../time/clock.ts';
import { within } from '../time/within.ts';
import type { DatabaseRows } from './database-rows.ts';
import { SharedSnapshots } from './shared-snapshots.ts';
import { queryOf, sql } from './sql.ts';
import { visibilityOf, type Sees } from './visibility.ts';
import type { WaitingChanges } from './waiting-changes.ts';

export type SnapshotOutcome = 'taken' | 'shared' | 'failed';

export interface DatabaseSnapshotsPorts {
  readonly rows: DatabaseRows;
  readonly waiting: WaitingChanges;
  readonly rowsOf: (channel: string) => RowsRule;
  readonly clock: Clock;
  readonly observe: (outcome: SnapshotOutcome) => void;
  readonly failed: (message: string, details: object) => void;
}

/** Queries at once, and those of one account; whoever waits longer for its turn gets `unavailable`. */
export const queriesMax = 4;
const turnLimits = { total: queriesMax, each: 2 };
/** Rows that are on their way, and those of one account: up to `bytesMax` each, as long as the relay needs. */
const readLimits = { total: 16, each: 8 };
/** An epoch that changes meanwhile, or a log that is trimmed faster than it is read, makes the rows void. */
const attemptsMax = 3;
const lookMs = { first: 2, max: 50 };
const frameBytes = 128 << 10;
/** Between two failures that are reported. */
const reportEveryMs = 10_000;

export class DatabaseSnapshots implements Snapshots {
  readonly #ports: DatabaseSnapshotsPorts;
  readonly #timeoutMs: number;
  readonly #queries = new Turns(turnLimits);
  readonly #reads = new Turns(readLimits);
  readonly #shared: SharedSnapshots;
  #reportedAt = Number.NEGATIVE_INFINITY;
  /** Failures since then. */
  #unreported = 0;

  /** `timeoutMs`: for the rule's function, for each of the query's statements, and for the relay to catch up. */
  constructor(timeoutMs: number, ports: DatabaseSnapshotsPorts) {
    this.#ports = ports;
    this.#timeoutMs = timeoutMs;
    this.#shared = new SharedSnapshots(ports.clock);
  }

  has(channel: string): boolean {
    return this.#ports.rowsOf(channel).snapshot !== undefined;
  }

  async take(channel: SnapshotChannel, wish: SnapshotWish): Promise<Snapshot> {
    const { observe } = this.#ports;
    try {
      const query = await this.#rowsQuery(channel.name, wish);
      const { account } = wish;
      const read = () => inTurn(this.#reads, account, () => this.#read(channel, query, account));
      const { snapshot, isNew } = await this.#shared.get(keyOf(channel.name, query), wish.isUsable, read);
      observe(isNew ? 'taken' : 'shared');
      return snapshot;
    } catch (error) {
      observe('failed');
      if (error instanceof RealtimeError) throw error;
      this.#report(channel.name, error);
      throw new RealtimeError('unavailable', 'The rows of this channel cannot be read now.', { cause: error });
    }
  }

  /** A crowd that asks for rows of one bad query must not fill the log. */
  #report(channel: string, error: unknown): void {
    const now = this.#ports.clock.monotonic();
    if (now - this.#reportedAt < reportEveryMs) {
      this.#unreported++;
      return;
    }
    this.#ports.failed('rows could not be read: their subscribers get "unavailable"', {
      channel,
      more: this.#unreported,
      err: error,
    });
    this.#reportedAt = now;
    this.#unreported = 0;
  }

  async older(channel: string, { identity, account, before, limit }: OlderWish): Promise<OlderPage> {
    const { pattern, older } = this.#ports.rowsOf(channel);
    if (older === undefined) throw new RealtimeError('bad_request', `No rule says which rows are older in ${channel}.`);
    try {
      const request = requestOf(channel, pattern, identity);
      // One more than is wanted says that there are more.
      const query = await this.#query(older({ ...request, before, limit: limit + 1 }));
      const rows = await inTurn(this.#queries, account, () => this.#ports.rows.page(query, limit + 1));
      return { rows: rows.slice(0, limit), complete: rows.length <= limit };
    } catch (error) {
      if (isBadValue(error)) throw new RealtimeError('bad_request', '"before" names no row.', { cause: error });
      this.#report(channel, error);
      throw new RealtimeError('unavailable', 'The rows of this channel cannot be read now.', { cause: error });
    }
  }

  async #rowsQuery(channel: string, { identity }: SnapshotWish): Promise<SqlQuery> {
    const { pattern, snapshot } = this.#ports.rowsOf(channel);
    if (snapshot === undefined) throw new Error('no rule says which rows the channel has');
    return this.#query(snapshot(requestOf(channel, pattern, identity)));
  }

  /** A query builder's query is no promise, but would run if it were awaited. */
  async #query(answer: RowsQuery | Promise<SqlQuery>): Promise<SqlQuery> {
    if (!(answer instanceof Promise)) return queryOf(answer);
    return queryOf(await within(answer, this.#timeoutMs, 'the rule’s function'));
  }

  async #read(channel: SnapshotChannel, query: SqlQuery, account: string): Promise<Snapshot> {
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const from = channel.position;
      const seen = await inTurn(this.#queries, account, () => this.#ports.rows.read(query));
      await this.#untilRelayed(channel.name, seen.snapshot);
      const head = await channel.reachLog();
      if (head.epoch !== from.epoch) continue;
      const sees = visibilityOf(seen.snapshot);
      const window = await windowOf(channel, from, head, sees);
      if (window === undefined) continue;
      const { position, heldUpTo } = window;
      return {
        position,
        frames: framesOf(channel.name, seen.rows, position),
        holds: ({ epoch, offset, xid }) =>
          offset <= heldUpTo && epoch === position.epoch && xid !== undefined && sees(xid),
      };
    }
    throw new Error('the log changes faster than its rows can be read');
  }

  async #untilRelayed(channel: string, snapshot: string): Promise<void> {
    const { waiting, clock } = this.#ports;
    const until = clock.monotonic() + this.#timeoutMs;
    for (let pauseMs = lookMs.first; await waiting.has(channel, snapshot);) {
      if (clock.monotonic() > until) throw new Error('the relay did not bring the changes that the rows hold');
      await clock.sleep(pauseMs);
      pauseMs = Math.min(pauseMs * 2, lookMs.max);
    }
  }
}

async function inTurn<Value>(turns: Turns, account: string, work: () => Promise<Value>): Promise<Value> {
  await turns.take(account);
  try {
    return await work();
  } finally {
    turns.give(account);
  }
}

/**
 * Where the rows stand, and up to where the log may hold more of what they hold. Undefined when the log does not reach
 * back so far.
 */
async function windowOf(
  channel: SnapshotChannel,
  from: Position,
  head: Position,
  sees: Sees,
): Promise<{ position: Position; heldUpTo: number } | undefined> {
  let position = from;
  let heldUpTo = from.offset;
  let reached = from;
  while (reached.offset < head.offset) {
    const page = await channel.readStored(reached);
    const last = page.publications.at(-1);
    if (page.gap !== undefined || last === undefined || last.epoch !== from.epoch) return undefined;
    for (const { epoch, offset, xid } of page.publications) {
      if (offset > head.offset || xid === undefined || !sees(xid)) continue;
      if (position.offset === offset - 1) position = { epoch, offset };
      heldUpTo = offset;
    }
    reached = { epoch: last.epoch, offset: last.offset };
  }
  return { position, heldUpTo };
}

function requestOf(channel: string, pattern: ChannelPattern, { user, claims = {} }: Identity): RowsRequest {
  return { user, claims, channel, captures: pattern.capture(channel), sql };
}

/** The database could not read a value as what it should be: SQLSTATE 22, a data exception. */
function isBadValue(error: unknown): boolean {
  const { code } = error as { readonly code?: unknown };
  return typeof code === 'string' && code.startsWith('22');
}

function keyOf(channel: string, { sql: text, params }: SqlQuery): string {
  const plain = (_name: string, value: unknown): unknown => (typeof value === 'bigint' ? `${value}n` : value);
  return `${channel}\n${text}\n${JSON.stringify(params, plain)}`;
}

function framesOf(channel: string, rows: readonly string[], position: Position): string[] {
  const portions: string[][] = [];
  let bytes = 0;
  for (const row of rows) {
    bytes += row.length;
    if (portions.length === 0 || bytes > frameBytes) {
      portions.push([]);
      bytes = row.length;
    }
    portions.at(-1)?.push(row);
  }
  if (portions.length === 0) portions.push([]);
  return portions.map((each, index) => snapshotFrame(channel, each, position, index < portions.length - 1));
}
