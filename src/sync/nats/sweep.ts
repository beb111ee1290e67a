// The reads of a crowd. To find the next message of a channel, NATS looks at all that lie before it, of other channels: for
// a thousand channels that each lack fifty messages it would walk a thousand times over the same fifty thousand. Once many
// read so in one second, the stretch that they lie in is read in one walk, and kept for some seconds. A single reader
// would wait longer for it than for its own messages.
//
// What was read stays true: a message of the log never changes. A stretch of another log is of no use.

import type { Clock } from '../../time/clock.ts';
import { lengthOf, type Entry } from './message.ts';
import { isWanted, type Goal } from './stretch.ts';

/** Where a reader begins, and the newest entry of its channel. */
export interface Sought {
  readonly seq: number;
  readonly newest: Entry;
  /** How many it takes. */
  readonly count: number;
  readonly bytesMax: number;
}

export interface SweepOptions {
  readonly clock: Clock;
  /** Names the log. */
  readonly epoch: () => string;
  /** Messages of all channels in their order, from a number of the stream on, until `take` answers false or none is left. */
  readonly walk: (from: number, take: (swept: Swept) => boolean) => Promise<void>;
}

export interface Swept {
  readonly subject: string;
  readonly entry: Entry;
}

interface Stretch {
  readonly epoch: string;
  readonly from: number;
  /** The last number that was read. */
  to: number;
  readonly entries: Map<string, Entry[]>;
}

interface Recent {
  readonly seq: number;
  readonly to: number;
  readonly begunAt: number;
}

/** So many messages of others to each of its own, and it is the walk that a read costs. */
const othersMin = 32;
/** Fewer readers in a second cost less than the walk for all. */
const crowdMin = 16;
const crowdMs = 1_000;
/** Messages. */
const stretchMax = 1 << 16;
const bytesMax = 32 << 20;
/** What an entry takes beside its data. */
const overheadBytes = 300;
const keptMs = 5_000;

export class Sweep {
  readonly #options: SweepOptions;
  #recent: Recent[] = [];
  #stretch: Stretch | undefined;
  #sweeping: Promise<void> | undefined;
  #forgetting: ReturnType<typeof setTimeout> | undefined;

  constructor(options: SweepOptions) {
    this.#options = options;
  }

  /** What the reader seeks, as far as it was read for all; undefined if it has to read for itself. */
  async piece(subject: string, sought: Sought): Promise<readonly Entry[] | undefined> {
    const { seq, newest, count } = sought;
    const known = this.#find(subject, sought);
    if (known !== undefined || newest.seq - seq < othersMin * count) return known;
    if (this.#sweeping === undefined) {
      const now = this.#options.clock.monotonic();
      this.#recent = this.#recent.filter(({ begunAt }) => now - begunAt < crowdMs);
      this.#recent.push({ seq, to: newest.seq, begunAt: now });
      if (this.#recent.length < crowdMin) return undefined;
      this.#sweeping = this.#sweep().finally(() => {
        this.#sweeping = undefined;
      });
    }
    await this.#sweeping;
    return this.#find(subject, sought);
  }

  /** Somebody may find something. */
  get isCurrent(): boolean {
    return this.#stretch !== undefined || this.#sweeping !== undefined;
  }

  /** What was read for all, if the entry with which the reader begins is known to be a part of it. */
  async from(subject: string, goal: Goal, piece: Omit<Sought, 'seq'>): Promise<readonly Entry[] | undefined> {
    await this.#sweeping;
    const first = this.#stretch?.entries.get(subject)?.find(({ offset }) => offset === goal.offset);
    return first === undefined || !isWanted(first, goal)
      ? undefined
      : this.#find(subject, { seq: first.seq, ...piece });
  }

  close(): void {
    clearTimeout(this.#forgetting);
    this.#stretch = undefined;
    this.#recent = [];
  }

  /** Never rejects: whoever finds nothing reads for itself. */
  async #sweep(): Promise<void> {
    const to = Math.max(...this.#recent.map((each) => each.to));
    const first = Math.min(...this.#recent.map(({ seq }) => seq));
    // Some who come later begin a little before those who are here.
    const from = Math.max(1, to - stretchMax, first - Math.ceil((to - first) / 16));
    const stretch: Stretch = { epoch: this.#options.epoch(), from, to: from - 1, entries: new Map() };
    this.#recent = [];
    try {
      await this.#walk(stretch, to);
    } catch {
      // The readers meet the same failure, and tell of it.
    }
    clearTimeout(this.#forgetting);
    this.#stretch = stretch;
    this.#forgetting = setTimeout(() => this.close(), keptMs);
    this.#forgetting.unref();
  }

  async #walk(stretch: Stretch, to: number): Promise<void> {
    let bytes = 0;
    await this.#options.walk(stretch.from, ({ subject, entry }) => {
      const entries = stretch.entries.get(subject);
      if (entries === undefined) stretch.entries.set(subject, [entry]);
      else entries.push(entry);
      bytes += overheadBytes + lengthOf(entry);
      stretch.to = entry.seq;
      return stretch.to < to && bytes < bytesMax;
    });
  }

  #find(subject: string, { seq, newest, count, bytesMax: most }: Sought): readonly Entry[] | undefined {
    const stretch = this.#stretch;
    if (stretch === undefined || stretch.epoch !== this.#options.epoch()) return undefined;
    if (seq < stretch.from || seq > stretch.to) return undefined;
    const found: Entry[] = [];
    let bytes = 0;
    for (const entry of stretch.entries.get(subject) ?? []) {
      if (entry.seq < seq) continue;
      const before = found.at(-1);
      const follows = before === undefined || entry.offset === before.offset + 1;
      if (!follows || entry.seq > newest.seq || found.length === count || bytes >= most) break;
      found.push(entry);
      bytes += lengthOf(entry);
    }
    return found.length === 0 ? undefined : found;
  }
}
