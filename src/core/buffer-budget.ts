// The memory that readers may cost together. Each reader has a limit of its own, but a thousand that stop reading would
// cost a thousand times as much: past the budget those that lag the furthest are cut, and come back by position.
// Lifecycle: `start` looks at a share of the sessions each tenth of a second, at all of them within one; `close` ends it.

import type { Connection } from './connection.ts';

export interface BufferBudgetOptions {
  /** Live: they come and go while they are walked. */
  readonly sessions: { readonly size: number; values(): IterableIterator<Connection> };
  readonly bytesMax: number;
  /** Told once per tick that had to cut. */
  readonly onCut: (cut: { readonly readers: number; readonly bytes: number }) => void;
}

const tickMs = 100;
const ticksPerRound = 10;
/** So many are looked at in any tick: a share of few would leave the fast too long unseen. */
const shareMin = 1_000;
/** Less than this is on its way to any reader, and not worth remembering. */
const lagBytesMin = 64 << 10;
/** Cutting goes on to below the budget, so that it is not met again at once. */
const shareAfterCut = 0.75;

export class BufferBudget {
  readonly #options: BufferBudgetOptions;
  readonly #lagging = new Map<Connection, number>();
  #total = 0;
  #round: Iterator<Connection> | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(options: BufferBudgetOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer ??= setInterval(() => this.look(), tickMs);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** One tick: those known to lag, and the next share of all. */
  look(): void {
    for (const session of this.#lagging.keys()) this.#note(session);
    let share = Math.max(shareMin, Math.ceil(this.#options.sessions.size / ticksPerRound));
    while (share-- > 0) {
      this.#round ??= this.#options.sessions.values();
      const next = this.#round.next();
      if (next.done === true) {
        this.#round = undefined;
        break;
      }
      this.#note(next.value);
    }
    if (this.#total > this.#options.bytesMax) this.#cut();
  }

  #note(session: Connection): void {
    const bytes = session.closed ? 0 : session.outlet.bufferedBytes();
    this.#total -= this.#lagging.get(session) ?? 0;
    if (bytes < lagBytesMin) {
      this.#lagging.delete(session);
      return;
    }
    this.#lagging.set(session, bytes);
    this.#total += bytes;
  }

  #cut(): void {
    const goal = this.#options.bytesMax * shareAfterCut;
    const worstFirst = [...this.#lagging].toSorted(([, a], [, b]) => b - a);
    let readers = 0;
    let freed = 0;
    for (const [session, bytes] of worstFirst) {
      if (this.#total <= goal) break;
      session.outlet.terminate();
      this.#lagging.delete(session);
      this.#total -= bytes;
      freed += bytes;
      readers++;
    }
    this.#options.onCut({ readers, bytes: freed });
  }
}
