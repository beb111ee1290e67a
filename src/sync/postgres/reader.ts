// Reads the log on this node, in its order, and tells the hub what it is interested in.
//
// Most of the time nothing is read. The relay and the appender of this process hand over what they have just committed,
// notifications what other nodes have. If that follows directly on what was delivered, it goes on to the hub at once.
// Only what was missed, or was too large for a notification, is read from the table: rows after the last delivered
// `seq`. Numbers are given out behind a fence, so a lower one never appears later. Whenever sockets lag, also within a
// batch, the reader waits for them.

import { backoffMs } from '../../time/backoff.ts';
import type { Clock } from '../../time/clock.ts';
import type { SyncObserver } from '../../core/observer.ts';
import type { SyncEvents } from '../../core/sync-adapter.ts';
import type { Database } from '../../database/connect.ts';
import type { LogRow } from '../../database/log-row.ts';
import { Publication } from '../../core/publication.ts';
import { readLog } from './queries.ts';

export interface ReaderOptions {
  readonly sql: Database;
  readonly clock: Clock;
  readonly observer: SyncObserver;
  readonly name: string;
  readonly log: (message: string, error: unknown) => void;
  /** Tells the other nodes of rows that this process has committed. Absent where the database itself does. */
  readonly tell?: ((rows: readonly LogRow[]) => void) | undefined;
}

const pageRows = 1_000;
/** Handed-over rows that wait. Past the first number their giver waits; past the second they are read from the log. */
const backlogHigh = 4_000;
const backlogMax = 40_000;
/** With more channels of interest than this, all rows are read: the list would cost more than it spares. */
const filterChannelsMax = 500;
const backoff = { firstMs: 250, maxMs: 1_000 };

export class PostgresReader {
  readonly #options: ReaderOptions;
  readonly #events: SyncEvents;
  readonly #interest = new Set<string>();
  /** Counts additions: a read that did not know a channel must not move past its rows. */
  #interestVersion = 0;
  #last: number;
  /** Counts restarts: what was read from the log before is not of this one. */
  #restarts = 0;
  #handed: (readonly LogRow[])[] = [];
  #backlog = 0;
  #behind = false;
  /** Reads in a row that failed. */
  #failures = 0;
  #running: Promise<void> | undefined;
  #closed = false;
  #waiting: (() => void)[] = [];

  constructor(options: ReaderOptions, events: SyncEvents, last: number) {
    this.#options = options;
    this.#events = events;
    this.#last = last;
  }

  get interest(): ReadonlySet<string> {
    return this.#interest;
  }

  /** The newest row that was delivered or passed over. */
  get last(): number {
    return this.#last;
  }

  /** A fresh copy of the database counts from the start again: continue from there. */
  restart(last: number): void {
    this.#last = last;
    this.#restarts++;
    this.#handed = [];
    this.#settleBacklog(-this.#backlog);
  }

  add(channel: string): void {
    if (this.#interest.has(channel)) return;
    this.#interest.add(channel);
    this.#interestVersion++;
  }

  remove(channel: string): void {
    this.#interest.delete(channel);
  }

  get tells(): boolean {
    return this.#options.tell !== undefined;
  }

  /**
   * Rows that this process has just committed, each `seq` one above the one before. Resolves when their giver may go on.
   */
  hand(rows: readonly LogRow[]): void | Promise<void> {
    this.#options.tell?.(rows);
    return this.#queue(rows);
  }

  #queue(rows: readonly LogRow[]): void | Promise<void> {
    if (this.#closed || rows.length === 0) return undefined;
    if (this.#backlog > backlogMax) {
      this.catchUp();
      return undefined;
    }
    this.#handed.push(rows);
    this.#settleBacklog(rows.length);
    this.#run();
    if (this.#backlog <= backlogHigh) return undefined;
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Rows that another node has committed; nobody waits. With a long backlog they are read from the log later. */
  offer(rows: readonly LogRow[]): void {
    if (this.#backlog > backlogHigh) this.catchUp();
    else void this.#queue(rows);
  }

  /** There may be rows that nobody will hand over. */
  catchUp(): void {
    this.#behind = true;
    this.#run();
  }

  /** Resolves when everything that was known at the call is delivered. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#handed = [];
    this.#settleBacklog(-this.#backlog);
    await this.#running;
  }

  /**
   * What follows directly is delivered in this very step. Only if sockets must be waited for, or a read is needed, does
   * the rest become asynchronous.
   */
  #run(): void {
    if (this.#running !== undefined || this.#closed) return;
    const pending = this.#step();
    if (pending === undefined) return;
    this.#running = this.#goOn(pending).finally(() => {
      this.#running = undefined;
      if (this.#handed.length > 0 || this.#behind) this.#run();
    });
  }

  /** A loop, not a promise that ends with the next step's: while the node is behind, one would be kept per batch. */
  async #goOn(first: Promise<void>): Promise<void> {
    let pending: Promise<void> | undefined = first;
    while (pending !== undefined) {
      await pending;
      pending = this.#step();
    }
  }

  /** Delivers what it can; answers what is to be waited for before the next step, undefined when nothing is left. */
  #step(): Promise<void> | undefined {
    while (!this.#closed) {
      const rows = this.#nextHanded();
      if (rows === undefined) return this.#handed.length > 0 || this.#behind ? this.#readPage() : undefined;
      const settled = this.#deliver(rows);
      if (settled !== undefined) return settled;
    }
    return undefined;
  }

  /** The next handed rows if they follow directly; those that were read meanwhile are dropped. */
  #nextHanded(): readonly LogRow[] | undefined {
    for (;;) {
      const rows = this.#handed[0];
      const first = rows?.[0];
      const last = rows?.at(-1);
      if (rows === undefined || first === undefined || last === undefined) return undefined;
      if (last.seq > this.#last && first.seq !== this.#last + 1) return undefined;
      this.#handed.shift();
      this.#settleBacklog(-rows.length);
      if (last.seq > this.#last) return rows;
    }
  }

  async #readPage(): Promise<void> {
    // Cleared before the read: a call during it asks for another read.
    this.#behind = false;
    const version = this.#interestVersion;
    const restarts = this.#restarts;
    const handed = this.#handed.length;
    const filter = this.#interest.size <= filterChannelsMax ? [...this.#interest] : undefined;
    try {
      const page = await readLog(this.#options.sql, this.#last, filter, pageRows);
      this.#failures = 0;
      if (this.#closed) return;
      const outdated = filter !== undefined && version !== this.#interestVersion;
      if (outdated || restarts !== this.#restarts) this.#behind = true;
      else await this.#takePage(page.rows, page.seq, handed);
    } catch (error) {
      this.#options.log('the log could not be read; trying again', error);
      this.#options.observer.failed(this.#options.name);
      await this.#options.clock.sleep(backoffMs(this.#failures++, backoff, this.#options.clock));
      this.#behind = true;
    }
  }

  /** `handed`: so many hand-overs were there before the page was read. */
  async #takePage(rows: readonly LogRow[], seq: number, handed: number): Promise<void> {
    if (rows.length > 0) {
      const restarts = this.#restarts;
      await this.#deliver(rows);
      if (restarts !== this.#restarts) return;
      // There may be more; the read after the last page finds nothing and ends it.
      this.#behind = true;
    }
    this.#last = Math.max(this.#last, seq);
    if (rows.length === 0) this.#forgetBeyondLog(handed);
  }

  /**
   * Drops what was handed over before the log was read to its end and is not in it: it belongs to a lost log, or none.
   */
  #forgetBeyondLog(handed: number): void {
    const known = this.#handed.slice(0, handed).filter((rows) => (rows.at(-1)?.seq ?? 0) <= this.#last);
    const dropped = this.#handed.slice(0, handed).filter((rows) => !known.includes(rows));
    if (dropped.length === 0) return;
    this.#handed = [...known, ...this.#handed.slice(handed)];
    this.#settleBacklog(-dropped.reduce((sum, rows) => sum + rows.length, 0));
  }

  /** Stops where sockets are to be waited for: a batch may hold more than may wait for one. Then answers the rest. */
  #deliver(rows: readonly LogRow[], from = 0): Promise<void> | undefined {
    const { observer, name, clock } = this.#options;
    let count = 0;
    let settled: void | Promise<void> = undefined;
    let next = from;
    for (; next < rows.length && settled === undefined; next++) {
      const row = rows[next];
      if (row === undefined) break;
      this.#last = Math.max(this.#last, row.seq);
      if (this.#interest.has(row.channel)) {
        this.#events.publication(Publication.ofRow(row));
        count++;
      }
      settled = this.#events.settled();
    }
    const oldest = rows[from];
    if (count > 0 && oldest !== undefined) {
      observer.message(name, 'in', count);
      observer.delay(name, Math.max(0, clock.now() - oldest.at) / 1_000);
    }
    return settled === undefined ? undefined : this.#deliverRest(rows, next, settled);
  }

  async #deliverRest(rows: readonly LogRow[], from: number, settled: Promise<void>): Promise<void> {
    const restarts = this.#restarts;
    await settled;
    // Of another log, or for nobody.
    if (this.#closed || restarts !== this.#restarts) return;
    await this.#deliver(rows, from);
  }

  #settleBacklog(change: number): void {
    this.#backlog += change;
    if (this.#backlog > backlogHigh / 2) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
