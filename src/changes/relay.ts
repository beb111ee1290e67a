// Brings table changes from the outbox to the sync layer. Every node runs one; an advisory lock lets one lead at a
// time, the others stand by. The work itself is in leader.ts; this file is its life:
//  1. Connect: one session for everything, as its locks and its LISTEN end with it.
//  2. LISTEN for the doorbell, then try the leader's lock, again every second or so while another relay has it.
//  3. Lead until the session ends, a batch cannot be handed over, or `close`.
//  4. Let go, wait with full jitter, and start over: for ever, until `close`.
// Two relays that both believe to lead do no harm: a fence orders them in the log of this database, and a log elsewhere
// ignores repeats.

import { backoffMs } from '../time/backoff.ts';
import { systemClock, type Clock } from '../time/clock.ts';
import { isDoneWithin, within } from '../time/within.ts';
import { unavailable } from '../database/connect.ts';
import { abandonment, answerSecondsDefault, DirectSession, ownSettings } from '../database/direct-session.ts';
import type { LayerName } from './layer-name.ts';
import type { Destination } from './destination.ts';
import { Housekeeping, type HousekeepingObserver } from './housekeeping.ts';
import { Bell, Leader, leaderLock } from './leader.ts';

/** Calls come from the relay's loop and from its housekeeping: cheap, and none throws. */
export interface RelayObserver extends HousekeepingObserver {
  /** This process began or ceased to be the one that relays. */
  leader(leader: boolean): void;
  /** A batch was moved: rows taken, how many of them were dropped, seconds from query to hand-over. */
  batch(rows: number, dropped: number, seconds: number): void;
  /** Rows could not be carried: they are in `realtime.parked`, with the error, which is given where it is one for all. */
  parked(rows: number, error?: unknown): void;
}

export interface RelayOptions {
  /** Must reach the database directly: a pooler in transaction mode takes locks and LISTEN away. */
  readonly url: string;
  /** Shown by the database for the relay's session, and carried by its notifications. Default: `sobranie relay`. */
  readonly applicationName?: string;
  /** Of this relay alone. */
  readonly destination: Destination;
  readonly observer: RelayObserver;
  /**
   * Called each time that it leads, before it carries anything. If it rejects, or takes longer than a query may, the relay
   * starts over: meanwhile it has the lock, and nobody else can lead.
   */
  readonly leads?: (() => Promise<unknown>) | undefined;
  readonly layer?: LayerName | undefined;
  readonly clock?: Clock;
  /** Longest sleep without looking. Default: 1,000. */
  readonly safetyMs?: number;
  /** Between two tries for the leader's lock. Default: 1,000. */
  readonly standbyMs?: number;
  /** A query unanswered for this long ends the connection. Default: `answerSecondsDefault`. */
  readonly answerSeconds?: number;
  /** How long a start waits for the end of a relay of another layer, which may be draining. Default: 15,000. */
  readonly otherLayerMs?: number;
  /** Called once when a start begins to wait for that. */
  readonly waitsFor?: (layer: string) => void;
}

export interface RelayHealth {
  /** Connected: leading, or standing by while another relay leads. */
  readonly up: boolean;
  readonly leader: boolean;
  /** What it fails with, again and again; undefined while it works. */
  readonly fault: unknown;
  /** All that it was to carry lately is parked. */
  readonly parksAll: boolean;
}

/** A relay of another sync layer leads in this database: nothing would ever be heard here. */
export class OtherLayer extends Error {
  constructor(own: string, other: string) {
    super(`another cluster relays the changes of this database, to ${other}, while this server's sync layer is ${own}`);
    this.name = 'OtherLayer';
  }
}

/** Changes are counted over so long for whether all of them are parked. */
const parkedWindowMs = 30_000;
const parkedMin = 10;
/** The session of one that vanished ends within 12 s. */
export const otherLayerMsMin = 15_000;

const backoff = { firstMs: 100, maxMs: 10_000 };
const closeMs = 5_000;
/** A start waits for so long, at most, for the first leading or standing by. */
const settleMs = 10_000;

export class Relay {
  readonly #options: RelayOptions;
  readonly #clock: Clock;
  readonly #bell = new Bell();
  readonly #abort = new AbortController();
  #session: DirectSession | undefined;
  #running: Promise<void> | undefined;
  /** Resolves when it leads, stands by or has failed for the first time. */
  readonly #settled = Promise.withResolvers<void>();
  #closing = false;
  #leader = false;
  #failures = 0;
  #fault: unknown;
  #carried = { rows: 0, parked: 0, since: 0 };

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /**
   * Connects, and resolves when it leads or stands by, or within ten seconds. Throws `unavailable` when the database
   * cannot be reached; it may be started again then. A relay of a new layer voids what was told before it leads: a node
   * that listened earlier would take publications and void them a moment later.
   */
  async start(): Promise<void> {
    if (this.#running !== undefined) throw new Error('the relay was started before');
    const session = await this.#open();
    try {
      await this.#refuseOtherLayer(session);
    } catch (error) {
      await session.close();
      throw error;
    }
    this.#session = session;
    this.#running = this.#run();
    await isDoneWithin(this.#settled.promise, settleMs);
  }

  health(): RelayHealth {
    const up = this.#session !== undefined && !this.#session.closed;
    const { rows, parked } = this.#carried;
    // Each parked row was moved once more, as a gap.
    const parksAll = this.#leader && parked >= parkedMin && rows <= parked;
    return { up, leader: this.#leader, fault: this.#fault, parksAll };
  }

  /** Ends after the batch under way, within five seconds. Idempotent, never rejects. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#settled.resolve();
    this.#bell.ring();
    // A leader gets time for the batch under way; connecting and standing by end at once.
    if (!this.#leader) this.#abort.abort();
    const running = this.#running ?? Promise.resolve();
    const isDone = await isDoneWithin(running, closeMs);
    this.#abort.abort();
    if (!isDone) await isDoneWithin(running, 1_000);
    await this.#session?.close();
  }

  async #open(): Promise<DirectSession> {
    let session: DirectSession | undefined;
    try {
      session = await DirectSession.open({
        url: this.#options.url,
        applicationName: this.#options.applicationName ?? 'sobranie relay',
        answerSeconds: this.#options.answerSeconds,
        worksLong: true,
        onNotification: () => this.#bell.ring(),
        onClosed: () => this.#bell.ring(),
        signal: this.#abort.signal,
      });
      await session.query(`listen realtime_wake; ${ownSettings}; ${abandonment}`);
      return session;
    } catch (error) {
      await session?.close();
      throw unavailable(error);
    }
  }

  #count(rows: number, parked: number): void {
    const now = this.#clock.monotonic();
    if (now - this.#carried.since > parkedWindowMs) this.#carried = { rows: 0, parked: 0, since: now };
    this.#carried.rows += rows;
    this.#carried.parked += parked;
  }

  /** Throws `OtherLayer` when a relay of another layer leads, and goes on to. */
  async #refuseOtherLayer(session: DirectSession): Promise<void> {
    const { layer, otherLayerMs = otherLayerMsMin, waitsFor } = this.#options;
    if (layer === undefined) return;
    const until = this.#clock.monotonic() + otherLayerMs;
    for (let looks = 0; ; looks++) {
      const [rows] = await session.query(`
        select l.layer from realtime.log l where exists (
          select from pg_locks k where k.locktype = 'advisory' and k.granted and k.classid = 1937006946 and k.objid = 2
            and k.database = (select d.oid from pg_database d where d.datname = current_database()))`);
      const other = rows?.[0]?.['layer'];
      // Asked each time: nodes of the same layer may be about to give it back the name that it lost.
      const own = await layer.confirm(typeof other === 'string' ? other : undefined);
      if (typeof other !== 'string' || other === own) return;
      if (this.#clock.monotonic() > until) throw new OtherLayer(own, other);
      if (looks === 1) waitsFor?.(other);
      await this.#bell.wait(500);
    }
  }

  async #run(): Promise<void> {
    while (!this.#closing) {
      try {
        const session = this.#session?.closed === false ? this.#session : await this.#open();
        this.#session = session;
        await this.#serve(session);
      } catch (error) {
        this.#failures++;
        this.#fault = error;
        this.#settled.resolve();
        if (!this.#closing) {
          this.#options.observer.error(error);
          this.#options.destination.interrupted();
        }
      }
      await this.#session?.close();
      // The end of a session rings too. That ring would end this wait at once, and so each later one.
      this.#bell.hush();
      if (!this.#closing) await this.#bell.wait(backoffMs(this.#failures, backoff, this.#clock));
    }
  }

  /** Stands by, then leads, until the session ends. */
  async #serve(session: DirectSession): Promise<void> {
    const { standbyMs = 1_000 } = this.#options;
    for (;;) {
      const [rows] = await session.query(`select pg_try_advisory_lock(${leaderLock}) as held`);
      if (this.#closing) return;
      if (rows?.[0]?.['held'] === true) break;
      this.#failures = 0;
      this.#fault = undefined;
      this.#settled.resolve();
      // Spread, so that the nodes of a cluster do not all try in the same instant.
      await this.#bell.wait(standbyMs * (0.5 + this.#clock.random() / 2));
      if (this.#closing) return;
    }
    await this.#lead(session);
  }

  async #lead(session: DirectSession): Promise<void> {
    const { url, destination, observer, safetyMs = 1_000, answerSeconds = answerSecondsDefault } = this.#options;
    const leader = new Leader({
      session,
      destination,
      bell: this.#bell,
      clock: this.#clock,
      safetyMs,
      moved: (rows, dropped, seconds) => this.#moved(rows, dropped, seconds),
      layer: this.#options.layer,
      leads: async () => {
        await within(Promise.resolve(this.#options.leads?.()), answerSeconds * 1_000, 'what comes before relaying');
        this.#settled.resolve();
      },
      passed: () => (this.#fault = undefined),
      failed: (error) => observer.error(error),
      parked: (rows, error) => {
        this.#count(0, rows);
        observer.parked(rows, error);
      },
      closing: () => this.#closing,
    });
    const overlooked = (): void => leader.readAll();
    const housekeeping = new Housekeeping({ url, observer, clock: this.#clock, overlooked });
    this.#leader = true;
    observer.leader(true);
    housekeeping.start();
    try {
      await leader.lead();
    } finally {
      this.#leader = false;
      observer.leader(false);
      await housekeeping.close();
    }
  }

  #moved(rows: number, dropped: number, seconds: number): void {
    this.#failures = 0;
    this.#count(rows, 0);
    this.#options.observer.batch(rows, dropped, seconds);
  }
}
