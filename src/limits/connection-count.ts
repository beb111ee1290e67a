// How many connections each key, such as a user, has: of this node exactly, of the others by asking them.
//
//   - A node whose own count is small does not ask: as long as every node stays below its even share of the limit, all
//     of them together cannot pass it.
//   - One that would pass its share asks the others before it lets a connection in. The question shows them that a
//     share was passed somewhere. From then on they ask as well, for as long as they are reminded.
//   - Questions about one key are joined: however many connections come, it is asked ten times a second at most, and a
//     refusal is remembered for a second.
//
// So the limit holds over all nodes, but for connections that open on several of them within the same tenth of a
// second. Nodes that do not answer count as having none: nobody is locked out by a node that is away.

import type { Clock } from '../time/clock.ts';

/** What is known of all nodes together. */
export interface WholeCount {
  /** Nodes that live, this one among them. */
  readonly nodes: () => number;
  /** Connections under the key on all nodes. Rejects when the others cannot be asked. */
  readonly connections: (key: string) => Promise<number>;
}

export interface ConnectionCountOptions {
  readonly max: number;
  /** Keeps the keys of this count apart from those of others when nodes ask each other. */
  readonly prefix: string;
  readonly whole: WholeCount;
  readonly clock: Clock;
}

/** What the other nodes have, and who is asking them. */
interface Elsewhere {
  count: number;
  askedAt: number;
  answeredAt: number;
  asking: Promise<void> | undefined;
}

const askEveryMs = 100;
const rememberedMs = 1_000;
/** How often a node that holds more than its share reminds the others. */
export const remindEveryMs = 10_000;
/** How long a node asks the others after a question or a reminder. */
const contestedMs = 2.5 * remindEveryMs;
/** Questions that a node sends at once as reminders. */
const remindersMax = 50;

export class ConnectionCount {
  readonly #options: ConnectionCountOptions;
  readonly #here = new Map<string, number>();
  readonly #elsewhere = new Map<string, Elsewhere>();
  readonly #contestedUntil = new Map<string, number>();

  constructor(options: ConnectionCountOptions) {
    this.#options = options;
  }

  /** Keys with a connection, and what is remembered of others. */
  get size(): number {
    return this.#here.size + this.#elsewhere.size + this.#contestedUntil.size;
  }

  /** Of this node, under all keys. */
  get connections(): number {
    return [...this.#here.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Undefined when nobody has to be asked before `hasRoom`. */
  ask(key: string): Promise<void> | undefined {
    const { max, whole } = this.#options;
    const here = this.#here.get(key) ?? 0;
    if (here >= max) return undefined;
    const nodes = whole.nodes();
    if (nodes < 2 || (here + 1 <= max / nodes && !this.#isContested(key))) return undefined;
    return this.hasRoom(key) ? this.#askAnew(key) : undefined;
  }

  /** Whether one more would fit, by what is known now. */
  hasRoom(key: string): boolean {
    const elsewhere = this.#elsewhere.get(key);
    const isFresh = elsewhere !== undefined && this.#now() - elsewhere.answeredAt < rememberedMs;
    return (this.#here.get(key) ?? 0) + (isFresh ? elsewhere.count : 0) < this.#options.max;
  }

  joined(key: string): void {
    this.#here.set(key, (this.#here.get(key) ?? 0) + 1);
  }

  left(key: string): void {
    const count = this.#here.get(key);
    if (count === undefined) return;
    if (count === 1) this.#here.delete(key);
    else this.#here.set(key, count - 1);
  }

  /** What this node has; another one that asks has passed its share. */
  answer(key: string): number {
    this.#contestedUntil.set(key, this.#now() + contestedMs);
    return this.#here.get(key) ?? 0;
  }

  /** Forgets what is old. To be called every second or so. */
  sweep(): void {
    const now = this.#now();
    for (const [key, until] of this.#contestedUntil) if (now >= until) this.#contestedUntil.delete(key);
    for (const [key, { answeredAt, asking }] of this.#elsewhere) {
      if (asking === undefined && now - answeredAt >= rememberedMs) this.#elsewhere.delete(key);
    }
  }

  /** Lets the others know for which keys this node holds more than its share. */
  remind(): void {
    const { max, whole } = this.#options;
    const nodes = whole.nodes();
    if (nodes < 2) return;
    let reminders = 0;
    for (const [key, count] of this.#here) {
      if (count <= max / nodes) continue;
      if (++reminders > remindersMax) return;
      void this.#askAnew(key);
    }
  }

  #now(): number {
    return this.#options.clock.monotonic();
  }

  #isContested(key: string): boolean {
    return this.#now() < (this.#contestedUntil.get(key) ?? 0);
  }

  /** Resolves with an answer to a question that was asked after this call. Never rejects. */
  async #askAnew(key: string): Promise<void> {
    const never = Number.NEGATIVE_INFINITY;
    const known = this.#elsewhere.get(key) ?? { count: 0, askedAt: never, answeredAt: never, asking: undefined };
    this.#elsewhere.set(key, known);
    const underWay = known.asking;
    if (underWay !== undefined) await underWay;
    // Whoever waited for the same question waits for the same next one.
    known.asking ??= this.#question(key, known);
    await known.asking;
  }

  async #question(key: string, known: Elsewhere): Promise<void> {
    const { whole, clock, prefix } = this.#options;
    const pause = known.askedAt + askEveryMs - clock.monotonic();
    if (pause > 0) await clock.sleep(pause);
    known.askedAt = clock.monotonic();
    const here = this.#here.get(key) ?? 0;
    try {
      known.count = Math.max(0, (await whole.connections(prefix + key)) - here);
    } catch {
      // The sync layer is away and says so by itself.
      known.count = 0;
    }
    // A node that is gone makes the others wait for it: what they said is new all the same.
    known.answeredAt = clock.monotonic();
    known.asking = undefined;
  }
}
