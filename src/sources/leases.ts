// Which partitions this node reads. A lease is an advisory lock of the database, so it ends with the session of a node
// that dies. Another node takes it within about a second.
//
//   1. One session of its own for all leases of this node. Sessions that hold the members' lock are counted.
//   2. Every second: the node's share is all partitions by all members, rounded up. It gives back what exceeds its share,
//      and tries for what is free up to it.
//   3. Without the session there are no leases: every reader stops, and another session is opened.
//
// Two nodes that both believe to hold a lease do no harm: marks are compared when messages are taken.

import { literal } from '../database/connect.ts';
import { abandonment, DirectSession, ownSettings } from '../database/direct-session.ts';
import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';

export interface LeasesOptions {
  /** Must reach the database directly: a pooler would take the locks away. */
  readonly url: string;
  readonly clock: Clock;
  /** The partitions that there are, and that this node may try for now. In any order. */
  readonly wanted: () => readonly Wanted[];
  /** This node holds a lease from now on, until the signal is aborted. Resolves when it is not used any more. */
  readonly use: (name: string, ended: AbortSignal) => Promise<void>;
  /** Another node has this lease, or is the one to take it. */
  readonly elsewhere: (name: string) => void;
  readonly failed: (error: unknown) => void;
}

export interface Wanted {
  readonly name: string;
  /** Not at the moment: it failed here just now. Others may try. */
  readonly isResting: boolean;
}

interface Lease {
  readonly abort: AbortController;
  /** Resolves when it is not used any more. */
  readonly used: Promise<void>;
  isUsed: boolean;
}

/** Locks of leases have a first key of their own, since the second one is a hash. */
const firstKey = 1937006947;
const membersLock = '1937006946, 7';
const tickMs = 1_000;
const backoff = { firstMs: 250, maxMs: 5_000 };

export class Leases {
  readonly #options: LeasesOptions;
  readonly #abort = new AbortController();
  readonly #held = new Map<string, Lease>();
  #running: Promise<void> | undefined;
  #wake: (() => void) | undefined;

  constructor(options: LeasesOptions) {
    this.#options = options;
  }

  get held(): readonly string[] {
    return [...this.#held.keys()];
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Looks now instead of at the next tick. */
  hurry(): void {
    this.#wake?.();
  }

  /** Readers stop first, then the leases are free. Never rejects. */
  async close(): Promise<void> {
    this.#abort.abort();
    this.#wake?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { url, clock, failed } = this.#options;
    const { signal } = this.#abort;
    for (let failures = 0; !signal.aborted;) {
      let session: DirectSession | undefined;
      try {
        session = await DirectSession.open({
          url,
          applicationName: 'sobranie sources',
          signal,
          onClosed: () => this.#endAll(),
        });
        await session.query(`${ownSettings}; ${abandonment}; select pg_advisory_lock_shared(${membersLock})`);
        while (!signal.aborted) {
          await this.#tick(session);
          failures = 0;
          await this.#wait(tickMs * (0.5 + clock.random() / 2));
        }
      } catch (error) {
        if (!signal.aborted) failed(error);
      }
      this.#endAll();
      await Promise.all([...this.#held.values()].map(({ used }) => used));
      this.#held.clear();
      await session?.close();
      if (!signal.aborted) await this.#wait(backoffMs(failures++, backoff, clock));
    }
  }

  async #tick(session: DirectSession): Promise<void> {
    const wanted = this.#options.wanted();
    const names = new Set(wanted.map(({ name }) => name));
    const [rows] = await session.query(`
      select count(distinct k.pid)::int as members from pg_locks k
      where k.locktype = 'advisory' and k.granted and k.classid = 1937006946 and k.objid = 7
        and k.database = (select d.oid from pg_database d where d.datname = current_database())`);
    const share = Math.ceil(names.size / Math.max(1, Number(rows?.[0]?.['members'])));
    let spare = [...this.#held.values()].filter(({ isUsed }) => isUsed).length - share;
    for (const [name, lease] of this.#held) {
      // What has failed here may go elsewhere.
      const isOver = !lease.isUsed || !names.has(name) || spare-- > 0;
      if (isOver) await this.#release(session, name, lease);
    }
    for (const { name, isResting } of rotated(wanted, this.#options.clock)) {
      if (isResting || this.#held.has(name)) continue;
      if (this.#held.size >= share) {
        this.#options.elsewhere(name);
        continue;
      }
      const [answer] = await session.query(`select pg_try_advisory_lock(${keyOf(name)}) as held`);
      if (answer?.[0]?.['held'] === true) this.#hold(name);
      else this.#options.elsewhere(name);
    }
  }

  #hold(name: string): void {
    const abort = new AbortController();
    const lease = { abort, isUsed: true, used: Promise.resolve() };
    const used = this.#options.use(name, abort.signal).then(() => {
      lease.isUsed = false;
      this.#wake?.();
    });
    this.#held.set(name, Object.assign(lease, { used }));
  }

  async #release(session: DirectSession, name: string, { abort, used }: Lease): Promise<void> {
    abort.abort();
    await used;
    this.#held.delete(name);
    await session.query(`select pg_advisory_unlock(${keyOf(name)})`);
  }

  #endAll(): void {
    for (const { abort } of this.#held.values()) abort.abort();
  }

  #wait(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function keyOf(name: string): string {
  return `${firstKey}, hashtext(${literal(name)})`;
}

/** From a place by chance, so that nodes that start together do not all try for the same ones first. */
function rotated(wanted: readonly Wanted[], clock: Clock): readonly Wanted[] {
  const start = Math.floor(clock.random() * wanted.length);
  return [...wanted.slice(start), ...wanted.slice(0, start)];
}
