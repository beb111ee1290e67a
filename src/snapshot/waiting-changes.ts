// Whether the outbox still holds changes that a snapshot sees. A look passes all that the table's pages hold, also what was
// taken and cannot be vacuumed yet. So there is one look at a time, and whoever asks meanwhile shares the next.

import { textArray, type Database } from '../database/connect.ts';

interface Question {
  readonly channel: string;
  /** In the words of `pg_current_snapshot`. */
  readonly snapshot: string;
  readonly answer: (isWaiting: boolean) => void;
  readonly fail: (error: unknown) => void;
}

export class WaitingChanges {
  readonly #sql: Database;
  #asked: Question[] = [];
  #isLooking = false;

  constructor(sql: Database) {
    this.#sql = sql;
  }

  /** Of the channel, or of a template, which may stand for it. Rejects with the database's error. */
  has(channel: string, snapshot: string): Promise<boolean> {
    return new Promise((answer, fail) => {
      this.#asked.push({ channel, snapshot, answer, fail });
      if (!this.#isLooking) void this.#look();
    });
  }

  async #look(): Promise<void> {
    this.#isLooking = true;
    while (this.#asked.length > 0) {
      const questions = this.#asked;
      this.#asked = [];
      try {
        const waiting = await this.#waiting(questions);
        for (const [index, { answer }] of questions.entries()) answer(waiting.has(index + 1));
      } catch (error) {
        for (const { fail } of questions) fail(error);
      }
    }
    this.#isLooking = false;
  }

  /** The places of the questions whose answer is yes, from 1. */
  async #waiting(questions: readonly Question[]): Promise<ReadonlySet<number>> {
    const channels = textArray(questions.map(({ channel }) => channel));
    const snapshots = textArray(questions.map(({ snapshot }) => snapshot));
    const sql = this.#sql;
    const rows = await sql<{ place: number }[]>`
      SELECT DISTINCT q.place::pg_catalog.int4 AS place
      FROM (
        SELECT DISTINCT o.channel, o.xid FROM realtime.outbox o
        WHERE o.channel OPERATOR(pg_catalog.=) ANY (${channels}::pg_catalog.text[])
          OR pg_catalog.strpos(o.channel, '{') OPERATOR(pg_catalog.>) 0
      ) w
      JOIN ROWS FROM (
        pg_catalog.unnest(${channels}::pg_catalog.text[]), pg_catalog.unnest(${snapshots}::pg_catalog.text[])
      ) WITH ORDINALITY q (channel, snapshot, place)
      ON (w.channel OPERATOR(pg_catalog.=) q.channel OR pg_catalog.strpos(w.channel, '{') OPERATOR(pg_catalog.>) 0)
        AND pg_catalog.pg_visible_in_snapshot(w.xid, q.snapshot::pg_catalog.pg_snapshot)`;
    return new Set(rows.map(({ place }) => place));
  }
}
