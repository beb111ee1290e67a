// Appends what clients and the API publish to the log. While one append is on its way the next ones gather, so a busy
// node makes few transactions of many publications each.
//
// It has a connection of its own: publications wait for no other query, and a session that has just done the same does
// it in two thirds of the time. That connection opens with the first publication, and again after a loss.

import type { Appended, Outgoing } from '../../core/sync-adapter.ts';
import { literal, unavailable, type Database } from '../../database/connect.ts';
import { dataFault } from '../../database/data-fault.ts';
import { quietly } from '../../database/quietly.ts';
import type { LogRow } from '../../database/log-row.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';

interface Waiting {
  readonly outgoing: Outgoing;
  readonly bytes: number;
  /** Its publisher has got `unavailable`: it must not be appended any more. */
  late: boolean;
  resolve(appended: Appended): void;
  reject(error: unknown): void;
}

const batchMax = 500;
const batchBytesMax = 1 << 20;
/** Publications that may wait for the database. Past these limits a publisher gets `unavailable` at once. */
const waitingMax = 10_000;
const waitingBytesMax = 64 << 20;
/** A publisher waits no longer. Nobody knows then whether the database took it; with a key, a retry is safe. */
const answerTimeoutMs = 1_000;

export class PostgresAppender {
  readonly #sql: Database;
  readonly #appended: (rows: readonly LogRow[]) => void;
  readonly #failed: (error: unknown) => void;
  readonly #before: string;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #running: Promise<void> | undefined;

  /**
   * `sql` is a client of one connection, which `close` ends. `appended` gets the rows of each committed batch, before
   * the publishers get their positions. `quiet`: the database does not notify; that is left to who hears `appended`.
   */
  constructor(
    sql: Database,
    appended: (rows: readonly LogRow[]) => void,
    failed: (error: unknown) => void,
    { quiet = false }: { readonly quiet?: boolean } = {},
  ) {
    this.#before = quiet ? `${quietly}; ` : '';
    this.#sql = sql;
    this.#appended = appended;
    this.#failed = failed;
  }

  append(outgoing: Outgoing): Promise<Appended> {
    const bytes = outgoing.data.length;
    if (this.#waiting.length >= waitingMax || this.#waitingBytes + bytes > waitingBytesMax) {
      throw new RealtimeError('unavailable', 'The database cannot keep up; retry.');
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        entry.late = true;
        reject(new RealtimeError('unavailable', 'The database did not answer in time; retry with a key.'));
      }, answerTimeoutMs);
      const settle =
        <Value>(then: (value: Value) => void) =>
        (value: Value) => {
          clearTimeout(timer);
          then(value);
        };
      const entry: Waiting = { outgoing, bytes, late: false, resolve: settle(resolve), reject: settle(reject) };
      this.#waiting.push(entry);
      this.#waitingBytes += bytes;
      this.#running ??= this.#run();
    });
  }

  /** Resolves when nothing waits any more and the connection is closed. */
  async close(): Promise<void> {
    await this.#running;
    await this.#sql.end({ timeout: 1 });
  }

  async #run(): Promise<void> {
    // What the same tick publishes goes into the first batch.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const batch = this.#takeBatch().filter(({ late }) => !late);
      if (batch.length > 0) await this.#appendBatch(batch);
    }
    // In the same step as the last look at the queue: what comes later starts a loop of its own.
    this.#running = undefined;
  }

  #takeBatch(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const entry of this.#waiting) {
      if (count === batchMax || (count > 0 && bytes + entry.bytes > batchBytesMax)) break;
      bytes += entry.bytes;
      count++;
    }
    this.#waitingBytes -= bytes;
    return this.#waiting.splice(0, count);
  }

  async #appendBatch(batch: readonly Waiting[]): Promise<void> {
    try {
      // The simple protocol: its answer comes after the commit. In the extended one it may come before, and subscribers
      // would see what a failing commit then takes back.
      const answer = await this.#sql.unsafe(`${this.#before}SELECT * FROM ${callOf(batch)}`).simple();
      const rows = (this.#before === '' ? answer : answer.at(-1)) as unknown as readonly AppendedRow[];
      const fresh = rows.filter((row) => row.fresh);
      this.#appended(fresh);
      batch.forEach((entry, index) => {
        const row = rows[index];
        if (row === undefined) entry.reject(new Error('the database answered fewer rows than it was given'));
        else entry.resolve({ epoch: row.epoch, offset: row.offset, ...(row.fresh ? {} : { isRepeat: true }) });
      });
    } catch (error) {
      if (batch.length > 1 && dataFault(error) !== undefined) {
        // One of them cannot be stored: the others must not fail with it.
        const half = Math.ceil(batch.length / 2);
        await this.#appendBatch(batch.slice(0, half));
        await this.#appendBatch(batch.slice(half));
        return;
      }
      // A publisher whose data cannot be stored gets the error. It is nothing that the operator could mend, and clients could fill the log.
      if (dataFault(error)?.startsWith('22') !== true) this.#failed(error);
      for (const entry of batch) entry.reject(unavailable(error));
    }
  }
}

interface AppendedRow extends LogRow {
  /** False when the key was used before. */
  readonly fresh: boolean;
}

function callOf(batch: readonly Waiting[]): string {
  const [first, ...others] = batch;
  if (first !== undefined && others.length === 0) return `realtime.append_one(${argumentsOf(first.outgoing)})`;
  const entries = JSON.stringify(batch.map(({ outgoing }) => entryOf(outgoing)));
  return `realtime.append(${literal(entries)}::jsonb)`;
}

function argumentsOf({ channel, rule, data, from, except, key }: Outgoing): string {
  const texts = [key, channel, data, from?.user, from?.connection, except];
  const literals = texts.map((text) => (text === undefined || text === null ? 'NULL' : literal(text)));
  return [rule.historySize, rule.historySeconds, ...literals].join(', ');
}

function entryOf({ channel, rule, data, from, except, key }: Outgoing): object {
  return {
    channel,
    data,
    user: from?.user ?? null,
    connection: from?.connection ?? null,
    except: except ?? null,
    key: key ?? null,
    size: rule.historySize,
    seconds: rule.historySeconds,
  };
}
