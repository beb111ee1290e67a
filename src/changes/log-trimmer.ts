// Trims the log of this database, and forgets idle channels: which rows are looked at, when, and for how long at a time.
// What is past its end is known by the database (`realtime.trim`, `realtime.forget`).
//
// Publications are looked at when they reach certain ages. Each age has a place of its own in the log, up to which that was
// done. So nothing is looked at twice for the same reason. Rows that are kept for a day are not in the way of those that
// are kept for an hour.

import { literal } from '../database/connect.ts';
import type { DirectSession, Row } from '../database/direct-session.ts';
import type { Clock } from '../time/clock.ts';

/** Rows per statement: it takes some milliseconds, so that writers and readers get their turn in between. */
const examineMax = 2_000;
/** For one turn. The next goes on where this one stopped. */
const turnMs = 4_000;
const forgetEveryMs = 3_600_000;
const forgetAfterSeconds = 30 * 24 * 3_600;
/** Channels that are forgotten at once, while all who append wait: a few milliseconds. */
const forgetMax = 250;
/** About 80 bytes each. */
const forgottenKeptMax = 500_000;

export interface LogState {
  /** For how long what should have been looked at has waited for it, in seconds. */
  readonly lagSeconds: number;
  /** Publications in the log, as the database estimates them. */
  readonly publications: number;
  /** Nothing is left that should be looked at now. */
  readonly isDone: boolean;
}

export class LogTrimmer {
  readonly #clock: Clock;
  /** By age in seconds. */
  readonly #places = new Map<number, number>();
  #forgotAt = -Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Looks at what is due, for some seconds at most. Rejects when the database does; a later turn goes on. */
  async turn(session: DirectSession, signal: AbortSignal): Promise<LogState> {
    const [ages = []] = await session.query('select * from realtime.trimming_ages()');
    this.#forgetOtherAges(ages);
    const endsAt = this.#clock.monotonic() + turnMs;
    const dueMs = new Map<number, number>();
    // One statement for each age in turn, so that none waits for another that has much to do.
    let busy = ages.map(({ age }) => Number(age));
    while (busy.length > 0 && this.#clock.monotonic() < endsAt && !signal.aborted) {
      const round = busy;
      busy = [];
      for (const age of round) {
        const { isDone, due } = await this.#trim(session, age);
        dueMs.set(age, due);
        if (!isDone) busy.push(age);
      }
    }
    await this.#write(session);
    if (this.#clock.monotonic() - this.#forgotAt > forgetEveryMs && busy.length === 0)
      await this.#forget(session, signal);
    return {
      lagSeconds: Math.max(0, ...dueMs.values()) / 1_000,
      publications: await countPublications(session),
      isDone: busy.length === 0,
    };
  }

  #forgetOtherAges(ages: readonly Row[]): void {
    const known = new Set(ages.map(({ age }) => Number(age)));
    for (const age of this.#places.keys()) if (!known.has(age)) this.#places.delete(age);
    for (const { age, seq } of ages) {
      if (!this.#places.has(Number(age))) this.#places.set(Number(age), Number(seq));
    }
  }

  async #trim(session: DirectSession, age: number): Promise<{ isDone: boolean; due: number }> {
    const after = this.#places.get(age) ?? 0;
    let row: Row | undefined;
    try {
      row = (await session.query(`select * from realtime.trim(${age}, ${after}, ${examineMax})`))[0]?.[0];
    } catch (error) {
      // Somebody holds the head of a channel for longer than this waits. The next turn tries again.
      if (isLockTimeout(error)) return { isDone: true, due: 0 };
      throw error;
    }
    this.#places.set(age, Number(row?.['next'] ?? after));
    return { isDone: row?.['is_done'] === true, due: Number(row?.['due_ms'] ?? 0) };
  }

  async #write(session: DirectSession): Promise<void> {
    const [ages, places] = [[...this.#places.keys()], [...this.#places.values()]];
    await session.query(`select realtime.trimmed('{${ages.join(',')}}', '{${places.join(',')}}')`);
  }

  async #forget(session: DirectSession, signal: AbortSignal): Promise<void> {
    let after: string | null = '';
    while (after !== null && !signal.aborted) {
      const [rows] = await session.query(
        `select * from realtime.forget(${forgetAfterSeconds}, ${literal(after)}, ${examineMax}, ${forgetMax}, ${forgottenKeptMax})`,
      );
      const next: unknown = rows?.[0]?.['next'];
      after = typeof next === 'string' ? next : null;
    }
    for (let gone = 1; gone > 0 && !signal.aborted;) {
      const [rows] = await session.query(`select realtime.forget_forgotten(${examineMax})::int as gone`);
      gone = Number(rows?.[0]?.['gone'] ?? 0);
    }
    await session.query('select realtime.forget_parked()');
    this.#forgotAt = this.#clock.monotonic();
  }
}

async function countPublications(session: DirectSession): Promise<number> {
  const [rows] = await session.query(`select pg_stat_get_live_tuples('realtime.publications'::regclass) as count`);
  return Number(rows?.[0]?.['count'] ?? 0);
}

function isLockTimeout(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '55P03';
}
