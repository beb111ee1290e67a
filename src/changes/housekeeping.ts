// What the leading relay does beside relaying, on a connection of its own so that it delays no row: trims the log,
// forgets idle channels, counts what waits, and renews the watches of tables that were altered. Lifecycle: `start`, `close`; it runs only while this process leads.

import type { Clock } from '../time/clock.ts';
import { DirectSession } from '../database/direct-session.ts';
import { Bell } from './bell.ts';

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
  /** It failed and will try again. */
  error(error: unknown): void;
}

export interface HousekeepingOptions {
  readonly url: string;
  readonly observer: HousekeepingObserver;
  readonly clock: Clock;
}

/** Between two looks at the outbox; the log is trimmed at every second one. */
const intervalMs = 5_000;
/** Rows per statement: it takes a few milliseconds, so that writers and readers get their turn in between. */
const examineMax = 1_000;
/** Statements per turn. The next turn goes on where this one stopped. */
const stepsMax = 50;
const forgetAfterSeconds = 30 * 24 * 3_600;

export class Housekeeping {
  readonly #options: HousekeepingOptions;
  readonly #bell = new Bell();
  #session: DirectSession | undefined;
  readonly #closed = new AbortController();
  #running: Promise<void> | undefined;
  /** Where the slow walk over the whole log stands. */
  #cursor = 0;
  #forgotAt = -Infinity;

  constructor(options: HousekeepingOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Never rejects. */
  async close(): Promise<void> {
    this.#closed.abort();
    this.#bell.ring();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { observer } = this.#options;
    for (let turn = 0; !this.#closed.signal.aborted; turn++) {
      try {
        const session = await this.#connected();
        await this.#look(session);
        if (turn % 2 === 1) await this.#tidy(session);
      } catch (error) {
        if (!this.#closed.signal.aborted) observer.error(error);
      }
      if (!this.#closed.signal.aborted) await this.#bell.wait(intervalMs);
    }
    await this.#session?.close();
  }

  async #connected(): Promise<DirectSession> {
    if (this.#session === undefined || this.#session.closed) {
      this.#session = await DirectSession.open({
        url: this.#options.url,
        applicationName: 'sobranie housekeeping',
        signal: this.#closed.signal,
      });
    }
    return this.#session;
  }

  async #look(session: DirectSession): Promise<void> {
    const { observer } = this.#options;
    const [rows] = await session.query('select * from realtime.outbox_stats()');
    const stats = rows?.[0];
    observer.waiting(Number(stats?.['pending']), Number(stats?.['lag_seconds']));
    // Tables that were altered; until then their writers pay for it.
    await session.query('select realtime.renew_captures(false)');
    const [faults = []] = await session.query(`
      select "table"::text as "table", fault_count as count, last_reason as "lastReason"
      from realtime.watches where fault_count > 0`);
    observer.faults(faults as unknown as readonly CaptureFault[]);
  }

  async #tidy(session: DirectSession): Promise<void> {
    // The oldest rows expire first, so this keeps up with any rate while all channels keep history equally long…
    let after = 0;
    for (let step = 0; step < stepsMax && !this.#closed.signal.aborted; step++) {
      const { deleted, next } = await trim(session, after);
      if (next === null || deleted < examineMax / 4) break;
      after = next;
    }
    // …and a slow walk over the whole log finds those that lie behind rows of a channel that keeps longer.
    for (let step = 0; step < 2 && !this.#closed.signal.aborted; step++) {
      const { next } = await trim(session, this.#cursor);
      this.#cursor = next ?? 0;
      if (next === null) break;
    }
    const now = this.#options.clock.monotonic();
    if (now - this.#forgotAt > 3_600_000) {
      await session.query(`select realtime.forget(${forgetAfterSeconds}); select realtime.forget_parked()`);
      this.#forgotAt = now;
    }
  }
}

async function trim(session: DirectSession, after: number): Promise<{ deleted: number; next: number | null }> {
  const [rows] = await session.query(`select * from realtime.trim(${after}, ${examineMax})`);
  const next = rows?.[0]?.['next'];
  return { deleted: Number(rows?.[0]?.['deleted']), next: typeof next === 'number' ? next : null };
}
