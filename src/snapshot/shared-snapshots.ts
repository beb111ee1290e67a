// Rows that are shared: by those who ask for the same while they are read, and by those who come shortly after. A crowd
// costs one query a second, and what is kept meanwhile has a limit.

import type { Snapshot } from '../core/snapshot.ts';
import type { Clock } from '../time/clock.ts';

interface Entry {
  readonly snapshot: Promise<Snapshot>;
  /** Monotonic milliseconds; undefined while the rows are read. */
  readAt: number | undefined;
  bytes: number;
}

const sharedMs = 1_000;
const bytesMax = 32 << 20;

export class SharedSnapshots {
  readonly #clock: Clock;
  /** The newest of each key, in the order in which they were begun. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #isSwept = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** One that is there and usable, or what `read` brings. Rejects as `read` does. */
  async get(
    key: string,
    isUsable: (snapshot: Snapshot) => boolean,
    read: () => Promise<Snapshot>,
  ): Promise<{ snapshot: Snapshot; isNew: boolean }> {
    for (;;) {
      const known = this.#fresh(key);
      if (known === undefined) return { snapshot: await this.#begin(key, read).snapshot, isNew: true };
      const snapshot = await known.snapshot;
      if (isUsable(snapshot)) return { snapshot, isNew: false };
      if (this.#entries.get(key) === known) this.#forget(key, known);
    }
  }

  #fresh(key: string): Entry | undefined {
    const entry = this.#entries.get(key);
    if (entry?.readAt === undefined || this.#clock.monotonic() - entry.readAt < sharedMs) return entry;
    this.#forget(key, entry);
    return undefined;
  }

  #begin(key: string, read: () => Promise<Snapshot>): Entry {
    const entry: Entry = { snapshot: read(), readAt: undefined, bytes: 0 };
    this.#entries.set(key, entry);
    entry.snapshot.then(
      ({ frames }) =>
        this.#keep(
          key,
          entry,
          frames.reduce((sum, frame) => sum + Buffer.byteLength(frame), 0),
        ),
      () => this.#forget(key, entry),
    );
    return entry;
  }

  #keep(key: string, entry: Entry, bytes: number): void {
    if (this.#entries.get(key) !== entry) return;
    entry.readAt = this.#clock.monotonic();
    entry.bytes = bytes;
    this.#bytes += bytes;
    for (const [other, { readAt }] of this.#entries) {
      if (this.#bytes <= bytesMax) break;
      if (readAt !== undefined) this.#forget(other, this.#entries.get(other));
    }
    this.#sweepLater();
  }

  #sweepLater(): void {
    if (this.#isSwept) return;
    this.#isSwept = true;
    setTimeout(() => {
      this.#isSwept = false;
      for (const key of this.#entries.keys()) this.#fresh(key);
      if (this.#entries.size > 0) this.#sweepLater();
    }, sharedMs);
  }

  #forget(key: string, entry: Entry | undefined): void {
    if (entry === undefined || this.#entries.get(key) !== entry) return;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
  }
}
