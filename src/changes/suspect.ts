// Finds the row that makes a batch fail, and parks it. Batches become smaller until one of a single row fails, and grow
// again with each one that passes.

import type { DirectSession } from '../database/direct-session.ts';
import { batchMaxDefault, parking } from './destination.ts';

const step = 8;

export class Suspect {
  readonly #session: DirectSession;
  #max: number | undefined;
  /** The row that a batch of one would be, as it was before the batch was tried. */
  #next: string | undefined;

  constructor(session: DirectSession) {
    this.#session = session;
  }

  /** Rows of the next batch at most; undefined: as many as always. */
  get max(): number | undefined {
    return this.#max;
  }

  /** Before each batch. */
  async prepare(): Promise<void> {
    if (this.#max === 1) this.#next = await this.#nextId();
  }

  passed(): void {
    if (this.#max === undefined) return;
    this.#max = this.#max * step >= batchMaxDefault ? undefined : this.#max * step;
  }

  /** The batch failed, for what it carries. Answers how many rows are parked now. */
  async failed(code: string, error: unknown): Promise<number> {
    const max = this.#max;
    this.#max = Math.max(1, Math.floor((max ?? batchMaxDefault) / step));
    if (max !== 1) return 0;
    // Another row may have become visible before it meanwhile: then nobody knows which one failed.
    const id = await this.#nextId();
    if (id === undefined || id !== this.#next) return 0;
    await this.#session.query(parking([id], code, error));
    return 1;
  }

  async #nextId(): Promise<string | undefined> {
    const [rows] = await this.#session.query('select realtime.next_id() as id');
    const id = rows?.[0]?.['id'];
    return typeof id === 'string' ? id : undefined;
  }
}
