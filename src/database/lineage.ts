// Watches whose words the database speaks. A standby that was promoted, a dump or a disk that was restored, or a schema
// that was made again are another incarnation of it: some of what was told may be true no longer, so the log gets another
// epoch and a later generation (`realtime.vouch`). Every node looks, since the log may be elsewhere.
//
// Lifecycle: `start`, `look` at any time, `close`.

import type { Database } from './connect.ts';

export interface LineageOptions {
  readonly sql: Database;
  /** The generation: at the start, and each later one. Must not reject. */
  readonly changed: (generation: number) => void | Promise<void>;
  /** A look by itself failed. */
  readonly failed: (error: unknown) => void;
}

export interface Seen {
  readonly epoch: string;
  readonly generation: number;
  /** How far the database had written. */
  readonly place: string;
  /** Of the relay that leads, or led at last; null before the first. */
  readonly layer: string | null;
}

const everyMs = 2_000;

export class Lineage {
  readonly #options: LineageOptions;
  #seen: Seen | undefined;
  #looking: Promise<Seen> | undefined;
  #following: void | Promise<void> = undefined;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(options: LineageOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    await this.look();
    this.#timer = setInterval(() => {
      this.look().catch((error: unknown) => this.#options.failed(error));
    }, everyMs);
  }

  /** Rejects with the driver's errors: the schema is gone, it is a standby, it cannot be reached. */
  look(): Promise<Seen> {
    this.#looking ??= this.#look().finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  /** Looks, and resolves when what it saw has been followed. Rejects as `look` does. */
  async followed(): Promise<void> {
    // One that is under way may have looked before what the caller knows of.
    await this.#looking?.catch((error: unknown) => this.#options.failed(error));
    await this.look();
    await this.#following;
  }

  /** What the last look saw. */
  get seen(): Seen | undefined {
    return this.#seen;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<Seen> {
    const { sql, changed } = this.#options;
    const before = this.#seen;
    const [seen] = await sql<Seen[]>`
      SELECT epoch, generation, place::text AS place, layer
      FROM realtime.look(${before?.epoch ?? null}, ${before?.place ?? null}::text::pg_lsn)`;
    if (seen === undefined) throw new Error('the table realtime.log is empty');
    this.#seen = seen;
    if (seen.generation !== before?.generation) this.#following = changed(seen.generation);
    return seen;
  }
}
