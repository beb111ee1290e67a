// Sends the events that wait, from one node of the cluster at a time: the one that holds a lock of the database. Batches
// go out in order, one at a time; one that the receiver did not take is tried again, for as long as it takes.
//
//   1. connect a session of its own, whose end gives the lock up, and try the lock every second or so
//   2. with it: take from dead nodes what they had, send what waits, delete what was taken
//   3. after a failure wait, longer each time, with jitter; after the loss of the session begin again

import { DirectSession } from '../database/direct-session.ts';
import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';
import { pause } from '../time/pause.ts';
import { NotTaken, type Delivery } from './delivery.ts';
import type { HookStore } from './store.ts';

export interface SenderObserver {
  /** Events: taken by the receiver, not taken this time, or dropped as too many waited. */
  hooks(outcome: 'sent' | 'failed' | 'lost', count: number): void;
}

export interface SenderOptions {
  /** Must reach the database directly. */
  readonly url: string;
  readonly store: HookStore;
  readonly delivery: Delivery;
  readonly observer: SenderObserver;
  readonly clock: Clock;
  readonly log: (message: string, error: unknown) => void;
}

const senderLock = '1937006946, 6';
const batchMax = 100;
const standbyMs = 1_000;
const idleMs = 250;
const lookMs = 1_000;
const databaseBackoff = { firstMs: 250, maxMs: 5_000 };
const receiverBackoff = { firstMs: 500, maxMs: 60_000 };

export class Sender {
  readonly #options: SenderOptions;
  readonly #abort = new AbortController();
  #running: Promise<void> | undefined;
  #pending: number | undefined;

  constructor(options: SenderOptions) {
    this.#options = options;
  }

  /** Events that wait; undefined on the nodes that do not send. */
  get pending(): number | undefined {
    return this.#pending;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Gives up a request under way: its events are sent again. Never rejects. */
  async close(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { url, clock, log } = this.#options;
    const { signal } = this.#abort;
    for (let failures = 0; !signal.aborted;) {
      let session: DirectSession | undefined;
      try {
        session = await DirectSession.open({ url, applicationName: 'sobranie hooks', signal });
        await this.#serve(session, () => (failures = 0));
      } catch (error) {
        if (!signal.aborted) log('hooks cannot be sent now: the database is away', error);
      } finally {
        this.#pending = undefined;
        await session?.close();
      }
      await pause(backoffMs(failures++, databaseBackoff, clock), signal);
    }
  }

  async #serve(session: DirectSession, isWell: () => void): Promise<void> {
    const { clock } = this.#options;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      const [rows] = await session.query(`select pg_try_advisory_lock(${senderLock}) as held`);
      isWell();
      if (rows?.[0]?.['held'] === true) break;
      await pause(standbyMs * (0.5 + clock.random() / 2), signal);
    }
    let lookedAt = -Infinity;
    for (let failures = 0; !signal.aborted;) {
      if (clock.monotonic() - lookedAt >= lookMs) {
        // On the session itself: without it the lock is gone.
        await session.query('select 1');
        await this.#look();
        lookedAt = clock.monotonic();
      }
      const outcome = await this.#sendSome();
      if (typeof outcome === 'object') {
        const waitMs = Math.min(outcome.retryAfterMs, receiverBackoff.maxMs);
        await pause(Math.max(waitMs, backoffMs(failures++, receiverBackoff, clock)), signal);
      } else failures = 0;
      if (outcome === 'none') await pause(idleMs, signal);
    }
  }

  async #look(): Promise<void> {
    const { store, observer } = this.#options;
    const lost = await store.sweep();
    if (lost > 0) observer.hooks('lost', lost);
    this.#pending = await store.pending();
  }

  /** An object when the receiver did not take them. */
  async #sendSome(): Promise<'sent' | 'none' | { readonly retryAfterMs: number }> {
    const { store, delivery, observer, log } = this.#options;
    const events = await store.waiting(batchMax);
    if (events.length === 0) return 'none';
    try {
      await delivery.send(events, this.#abort.signal);
    } catch (error) {
      const retryAfterMs = error instanceof NotTaken ? error.retryAfterMs : 0;
      if (this.#abort.signal.aborted) return { retryAfterMs };
      observer.hooks('failed', events.length);
      log('the receiver did not take the hooks; trying again', error);
      return { retryAfterMs };
    }
    await store.taken(events);
    observer.hooks('sent', events.length);
    return 'sent';
  }
}
