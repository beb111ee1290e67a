// What the leading relay does beside relaying, on a connection of its own so that it delays no row: trims the log,
// forgets idle channels, counts what waits, and renews the watches of tables that were altered. Lifecycle: `start`, `close`; it runs only while this process leads.

import type { Clock } from '../time/clock.ts';
import { pause } from '../time/pause.ts';
import { DirectSession, ownSettings } from '../database/direct-session.ts';
import { LogTrimmer, type LogState } from './log-trimmer.ts';

/** What could not be captured of a watched table. */
export interface CaptureFault {
  readonly table: string;
  /** Since the watch began. */
  readonly count: number;
  readonly lastReason: string;
}

/** No call may throw. */
export interface HousekeepingObserver {
  /** What waits: rows, counted up to 10,000, and the age of the oldest in seconds. Every few seconds. */
  waiting(rows: number, lagSeconds: number): void;
  /** Watched tables of which something could not be captured, with how often; what is newest of it. */
  faults(faults: readonly CaptureFault[]): void;
  /** How the log stands, after each turn of trimming it. */
  log(state: LogState): void;
  /** It failed and will try again. */
  error(error: unknown): void;
}

export interface HousekeepingOptions {
  readonly url: string;
  readonly observer: HousekeepingObserver;
  readonly clock: Clock;
  /** Rows wait for longer than the relay needs to take them: it may not know of them. */
  readonly overlooked: () => void;
}

const intervalMs = 5_000;
/** Between two turns of trimming while there is more to trim than one of them can: writers must not outrun it. */
const behindMs = 100;
/**
 * A count of all that waits passes every row that was taken and cannot be vacuumed yet, as long as a snapshot is open
 * anywhere: there may be millions. It gets this part of the time; in between, only what came later is counted.
 */
const wholeCountShare = 0.02;
/** Older rows are no backlog that the relay is working on, if it reads at all. */
const overlookedSeconds = 10;

export class Housekeeping {
  readonly #options: HousekeepingOptions;
  #session: DirectSession | undefined;
  readonly #closed = new AbortController();
  #running: Promise<void> | undefined;
  readonly #trimmer: LogTrimmer;
  #isBehind = false;
  /** One that fails keeps none of the others from its turn: a log that nobody trims grows without an end. */
  readonly #tasks = [
    (session: DirectSession) => this.#look(session),
    (session: DirectSession) => this.#renew(session),
    (session: DirectSession) => this.#tellFaults(session),
    (session: DirectSession) => this.#forgetRowChanges(session),
    (session: DirectSession) => this.#trim(session),
  ];
  /** Of the oldest row that waits. */
  #lowest = '0/0';
  #countWholeAt = -Infinity;

  constructor(options: HousekeepingOptions) {
    this.#options = options;
    this.#trimmer = new LogTrimmer(options.clock);
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Never rejects. */
  async close(): Promise<void> {
    this.#closed.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { observer } = this.#options;
    while (!this.#closed.signal.aborted) {
      this.#isBehind = false;
      for (const task of this.#tasks) {
        try {
          await task(await this.#connected());
        } catch (error) {
          if (this.#closed.signal.aborted) break;
          observer.error(error);
          // The others would fail as well.
          if (this.#session?.closed !== false) break;
        }
      }
      await pause(this.#isBehind ? behindMs : intervalMs, this.#closed.signal);
    }
    await this.#session?.close();
  }

  async #connected(): Promise<DirectSession> {
    if (this.#session === undefined || this.#session.closed) {
      this.#session = await DirectSession.open({
        url: this.#options.url,
        applicationName: 'sobranie housekeeping',
        worksLong: true,
        signal: this.#closed.signal,
      });
      // Without a search_path of its own: tables are named as the operator names them.
      await this.#session.query(`${ownSettings}; reset search_path; select 1`);
    }
    return this.#session;
  }

  async #look(session: DirectSession): Promise<void> {
    const { observer } = this.#options;
    const { pending, lagSeconds } = await this.#count(session);
    observer.waiting(pending, lagSeconds);
    if (pending > 0 && lagSeconds > overlookedSeconds) this.#options.overlooked();
  }

  /** The watches of tables that were altered; until then their writers pay for it. */
  async #renew(session: DirectSession): Promise<void> {
    await session.query('select realtime.renew_captures(false)');
  }

  async #tellFaults(session: DirectSession): Promise<void> {
    const [faults = []] = await session.query(`
      select "table"::text as "table", fault_count as count, last_reason as "lastReason"
      from realtime.watches where fault_count > 0`);
    this.#options.observer.faults(faults as unknown as readonly CaptureFault[]);
  }

  /** Where row triggers' changes are, which nobody asks for once their transaction has ended. */
  async #forgetRowChanges(session: DirectSession): Promise<void> {
    await session.query('select realtime.forget_row_changes()');
  }

  async #trim(session: DirectSession): Promise<void> {
    const log = await this.#trimmer.turn(session, this.#closed.signal);
    this.#options.observer.log(log);
    this.#isBehind = !log.isDone;
  }

  async #count(session: DirectSession): Promise<{ pending: number; lagSeconds: number }> {
    const { clock } = this.#options;
    const startedAt = clock.monotonic();
    const isWhole = startedAt >= this.#countWholeAt;
    const [rows] = await session.query(`select * from realtime.outbox_stats('${isWhole ? '0/0' : this.#lowest}')`);
    const stats = rows?.[0];
    const lowest = stats?.['lowest'];
    this.#lowest = typeof lowest === 'string' ? lowest : '0/0';
    const now = clock.monotonic();
    if (isWhole) this.#countWholeAt = now + (now - startedAt) / wholeCountShare;
    return { pending: Number(stats?.['pending']), lagSeconds: Number(stats?.['lag_seconds']) };
  }
}
