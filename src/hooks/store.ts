// The tables of the hooks: what the nodes have, and the events that wait. See migrations/0012_hooks.sql.

import { textArray, type Database } from '../database/connect.ts';
import type { Subject } from './subjects.ts';

export interface WaitingEvent {
  readonly seq: number;
  readonly id: string;
  readonly event: string;
  /** Empty for a user's. */
  readonly channel: string;
  readonly who: string;
  /** Unix milliseconds. */
  readonly at: number;
}

export interface ChangeAnswer {
  /** False when the node is new here, or was taken for dead. */
  readonly known: boolean;
  /** Events that were dropped, as too many waited. */
  readonly lost: number;
}

/** A node that gave no sign for so long is dead; each gives one far more often. */
export const deadSeconds = 12;

export class HookStore {
  readonly #sql: Database;
  readonly #node: string;
  readonly #eventsMax: number;

  constructor(sql: Database, node: string, eventsMax: number) {
    this.#sql = sql;
    this.#node = node;
    this.#eventsMax = eventsMax;
  }

  /** A sign of life, with what has changed. */
  async change(changes: readonly { readonly subject: Subject; readonly isHere: boolean }[]): Promise<ChangeAnswer> {
    const [kinds, channels, whos] = (['kind', 'channel', 'who'] as const).map((name) =>
      textArray(changes.map(({ subject }) => subject[name])),
    );
    const here = textArray(changes.map(({ isHere }) => String(isHere)));
    const [answer] = await this.#sql<ChangeAnswer[]>`
      SELECT known, lost FROM realtime.hook_change(${this.#node}, ${kinds ?? '{}'}::text[], ${channels ?? '{}'}::text[],
        ${whos ?? '{}'}::text[], ${here}::boolean[], ${this.#eventsMax}::integer)`;
    if (answer === undefined) throw new Error('realtime.hook_change answered nothing');
    return answer;
  }

  /** Answers how many events were dropped. */
  async sweep(): Promise<number> {
    const [row] = await this.#sql<{ lost: number }[]>`
      SELECT realtime.hook_sweep(${deadSeconds}::float8, ${this.#eventsMax}::integer) AS lost`;
    return row?.lost ?? 0;
  }

  async end(afterSeconds: number): Promise<void> {
    await this.#sql`SELECT realtime.hook_end(${this.#node}, ${afterSeconds}::float8, ${deadSeconds}::float8)`;
  }

  /** The oldest ones. */
  async waiting(countMax: number): Promise<readonly WaitingEvent[]> {
    return await this.#sql<WaitingEvent[]>`
      SELECT seq, id::text AS id, event, channel, who, floor(extract(epoch FROM at) * 1000)::bigint AS at
      FROM realtime.hook_events ORDER BY seq LIMIT ${countMax}`;
  }

  async pending(): Promise<number> {
    const [row] = await this.#sql<{ count: number }[]>`SELECT count(*) AS count FROM realtime.hook_events`;
    return row?.count ?? 0;
  }

  async taken(events: readonly WaitingEvent[]): Promise<void> {
    const seqs = textArray(events.map(({ seq }) => String(seq)));
    const sql = this.#sql;
    await sql`DELETE FROM realtime.hook_events WHERE seq = ANY (${seqs}::bigint[])`;
  }
}
