// What a client believes a watched table to hold: the rows of a snapshot, then each change applied strictly. A change
// that does not follow from the rows before it was sent twice, or one before it was never sent.

import type { Frame } from './clients.ts';

export interface Row {
  readonly id: number;
  readonly [column: string]: unknown;
}

interface Change {
  readonly action: 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE';
  readonly data: Row | null;
  readonly old: Partial<Row> | null;
}

export class RowsBelief {
  readonly rows = new Map<number, Row>();
  /** What went wrong, in words; empty as long as all is well. */
  readonly faults: string[] = [];
  /** All rows of the snapshot are here. */
  isWhole = false;
  /** Where the client stands: as the rows or the last message said. */
  epoch = '';
  offset = 0;
  readonly #seen: string[] = [];

  /** Any frame of the channel, the first of a connection among them. */
  take(frame: Frame): void {
    const begins = frame.type === 'subscribed' ? frame : frame.type === 'welcome' ? frame.channels?.[0] : undefined;
    if (begins !== undefined && begins.recovered !== true) this.#reset();
    if (frame.type === 'snapshot') this.#snapshot(frame);
    else if (frame.type === 'message') this.#message(frame);
    else if (frame.type === 'gap') this.#fault(`a gap: ${frame.reason}`, frame);
  }

  /** What was missed does not follow: rows do. */
  #reset(): void {
    this.rows.clear();
    this.isWhole = false;
  }

  #snapshot(frame: Frame): void {
    if (this.isWhole) this.#fault('rows again', frame);
    for (const row of frame.rows as readonly Row[]) {
      if (this.rows.has(row.id)) this.#fault(`row ${row.id} twice in the snapshot`, frame);
      this.rows.set(row.id, row);
    }
    if (frame.more === true) return;
    this.isWhole = true;
    this.epoch = frame.epoch ?? '';
    this.offset = frame.offset ?? 0;
    this.#seen.push(`rows at ${frame.offset}: ${[...this.rows.keys()].join(' ')}`);
  }

  #message(frame: Frame): void {
    if (!this.isWhole) this.#fault('a message before the rows', frame);
    if ((frame.offset ?? 0) <= this.offset) this.#fault(`offset ${frame.offset} after ${this.offset}`, frame);
    this.offset = frame.offset ?? 0;
    const { action, data, old } = frame.data as Change;
    const id = data?.id ?? old?.id ?? 0;
    const before = this.rows.get(id);
    this.#seen.push(`${frame.offset} ${action} ${id}`);
    if (action === 'INSERT') {
      if (before !== undefined) this.#fault(`row ${id} inserted twice`, frame);
    } else if (before === undefined) this.#fault(`${action} of row ${id}, which is not there`, frame);
    else {
      for (const [name, value] of Object.entries(old ?? {})) {
        if (before[name] !== value) this.#fault(`${action} of row ${id}: ${name} was ${String(before[name])}`, frame);
      }
    }
    if (data === null) this.rows.delete(id);
    else this.rows.set(id, data);
  }

  #fault(text: string, frame: Frame): void {
    this.faults.push(`${text}; ${JSON.stringify(frame).slice(0, 300)}; before: ${this.#seen.slice(-12).join(', ')}`);
  }
}
