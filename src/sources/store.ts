// What sources keep in the database: how far each partition was taken, together with what came of it. See
// migrations/0013_sources.sql.

import { textArray, type Database } from '../database/connect.ts';
import { dataFault } from '../database/data-fault.ts';
import type { Plan } from './plan.ts';

export interface Taking {
  readonly source: string;
  readonly partition: string;
  /** The mark as it was read, or as this node has stored it. */
  readonly expected: string | undefined;
  readonly mark: string;
  readonly plan: Plan;
}

/** How text is written. */
interface Form {
  data(json: string): string;
  words(text: string): string;
}

const asItIs: Form = {
  data: (json) => json,
  words: (text) => text.replaceAll('\0', '').toWellFormed(),
};
const inAscii: Form = {
  data: (json) => json.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`),
  words: (text) => text.replace(/[^\x20-\x7e]/g, '?'),
};

/** Of a parked message that is larger, the beginning is kept. */
const parkedBytesMax = 1 << 20;
const parkedBeginning = 1_000;

export class SourceStore {
  readonly #sql: Database;
  /** Up to where the outbox was counted. */
  #counted = '0/0';

  constructor(sql: Database) {
    this.#sql = sql;
  }

  /** The partition's mark; undefined when nothing of it was taken yet. */
  async mark(source: string, partition: string): Promise<string | undefined> {
    const sql = this.#sql;
    await sql`
      insert into realtime.sources (source, partition) values (${source}, ${partition}) on conflict do nothing`;
    const [row] = await sql<{ mark: string | null }[]>`
      select mark from realtime.sources where source = ${source} and partition = ${partition}`;
    return row?.mark ?? undefined;
  }

  /**
   * All of it, in one transaction, or nothing. Answers false when the mark is another one. Rejects with the driver's
   * error; nobody knows then whether it was done, but for the mark.
   */
  async take(taking: Taking): Promise<boolean> {
    try {
      return await this.#take(taking, asItIs);
    } catch (error) {
      if (dataFault(error) === undefined) throw error;
      // A character that the database's encoding lacks. Escaped, JSON says the same.
      return await this.#take(taking, inAscii);
    }
  }

  async #take({ source, partition, expected, mark, plan }: Taking, form: Form): Promise<boolean> {
    const { entries, parked, published, skipped } = plan;
    const channels = textArray(entries.map(({ channel }) => channel));
    const data = textArray(entries.map((entry) => form.data(entry.data)));
    const set = parked.map(({ channel, body, error }) => ({
      channel: form.words(channel),
      data: Buffer.from(body.length > parkedBytesMax ? body.subarray(0, parkedBeginning) : body).toString('base64'),
      bytes: body.length,
      error: form.words(error),
    }));
    const [row] = await this.#sql<{ taken: boolean }[]>`
      select realtime.take_messages(${source}, ${partition}, ${expected ?? null}, ${mark},
        ${published + skipped + parked.length}, ${channels}::text[], ${data}::text[],
        ${JSON.stringify(set)}::text::jsonb) as taken`;
    return row?.taken === true;
  }

  /** Rows of the outbox that wait, counted up to 10,000. */
  async waiting(): Promise<number> {
    const [row] = await this.#sql<{ pending: number; lowest: string }[]>`
      select pending, lowest::text as lowest from realtime.outbox_stats(${this.#counted}::text::pg_lsn)`;
    this.#counted = row?.lowest ?? '0/0';
    return Number(row?.pending ?? 0);
  }
}
