// One sign of life for all members of this node, and what the answer says of other nodes: those that are dead are buried
// by whoever notices.
//
// A node whose sign of life is late must not change anything before it gave another: it may have been taken for dead,
// and what it entered under its name would have nobody to remove it.

import type { Clock } from '../time/clock.ts';
import type { PresenceStore, SignOfLife } from './store.ts';

export interface HeartbeatPorts {
  readonly store: PresenceStore;
  readonly clock: Clock;
  /** The node's name in the store, which changes when the store forgot it. */
  readonly node: () => string;
  /** The store does not know this node, which gave a sign of life before. */
  readonly forgotten: () => void;
  /** After each of the regular signs of life, given or not: the moment for what is done at a constant rate. */
  readonly beat: (isGiven: boolean) => void;
  readonly log: (message: string, error: unknown) => void;
}

/** A node is dead this long after its last sign of life. */
export const lifeMs = 10_000;
const everyMs = 3_000;
const retryMs = 1_000;
/** Between two nodes' looks at one that is due to die. */
const lookLaterMs = 300;
/** Nothing is changed when less than this is left. */
const marginMs = 4_000;

export class Heartbeat {
  readonly #ports: HeartbeatPorts;
  #livesUntil = Number.NEGATIVE_INFINITY;
  #giving: Promise<void> | undefined;
  readonly #burying = new Set<string>();
  #isLooking = false;
  #isFailing = false;
  #closed = false;

  constructor(ports: HeartbeatPorts) {
    this.#ports = ports;
  }

  start(): void {
    void this.#beat();
  }

  /** Whether the store knows for long enough that this node lives, under its present name. */
  get isSure(): boolean {
    return this.#livesUntil - this.#ports.clock.monotonic() >= marginMs;
  }

  /** A sign of life. Rejects when the store cannot be reached. */
  give(): Promise<void> {
    this.#giving ??= this.#give().finally(() => {
      this.#giving = undefined;
    });
    return this.#giving;
  }

  /** As `give`, but one that is under way does not count: its answer may be older than what made this necessary. */
  async giveAgain(): Promise<void> {
    await this.#giving?.catch(() => undefined);
    await this.give();
  }

  close(): void {
    this.#closed = true;
  }

  async #beat(): Promise<void> {
    const { clock, beat, log } = this.#ports;
    while (!this.#closed) {
      try {
        await this.give();
        this.#isFailing = false;
      } catch (error) {
        if (!this.#isFailing) log('a sign of life could not be given', error);
        this.#isFailing = true;
      }
      if (!this.#closed) beat(!this.#isFailing);
      await clock.sleep(this.#isFailing ? retryMs * (0.5 + clock.random()) : everyMs);
    }
  }

  async #give(): Promise<void> {
    const { store, clock, node, forgotten } = this.#ports;
    const name = node();
    const begunAt = clock.monotonic();
    const sign = await store.live(name, lifeMs);
    const isFirst = this.#livesUntil === Number.NEGATIVE_INFINITY;
    this.#livesUntil = begunAt + lifeMs;
    if (!sign.isKnown && !isFirst) forgotten();
    this.#look(sign);
  }

  /** The name changed: the next sign of life is the first one. */
  renamed(): void {
    this.#livesUntil = Number.NEGATIVE_INFINITY;
  }

  #look({ dead, nextDeathMs }: SignOfLife): void {
    if (this.#closed) return;
    for (const node of dead) void this.#bury(node);
    if (nextDeathMs === undefined || nextDeathMs > everyMs || this.#isLooking) return;
    this.#isLooking = true;
    const { clock } = this.#ports;
    void clock.sleep(nextDeathMs + clock.random() * lookLaterMs).then(() => {
      this.#isLooking = false;
      // That the store is away, the beats report.
      if (!this.#closed) this.give().catch(() => undefined);
    });
  }

  async #bury(node: string): Promise<void> {
    if (this.#burying.has(node)) return;
    const { store, log } = this.#ports;
    this.#burying.add(node);
    try {
      while (!this.#closed && !(await store.bury(node)).isDone);
    } catch (error) {
      // The next sign of life names it again.
      log('the members of a dead node could not be removed yet', error);
    } finally {
      this.#burying.delete(node);
    }
  }
}
