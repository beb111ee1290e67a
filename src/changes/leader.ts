// The loop of the one relay that leads: it takes batches while rows come, and sleeps when none do. It lives as long as
// one database session, whose locks it holds; relay.ts opens the session and starts over when it ends.
//
// The doorbell, from this side:
//  1. Awake, it reads again as soon as a batch is handed over, until a read finds nothing.
//  2. A read that finds nothing is followed by one that also tries to take the doorbell's lock exclusively. It is
//     refused while any transaction that left rows is open: then it reads again after 1 ms, soon 5 ms.
//  3. With the lock, that same read has seen every row whose writer did not ring. If it found nothing: asleep.
//  4. Asleep, writers ring. Each ring is one read, the lock still held: at a low rate that is the fastest path. What it
//     finds ends no sleep: whoever commits after it has rung.
//  5. Many rings cost the writers more than polling costs the relay: then it releases the lock.
//  6. Where writers must not notify, as they may prepare their transactions, it never takes the lock and polls.
//  7. While many rows come, it gathers them between reads: a read costs the database as much as fifty more rows in it.
// A safety read about every second looks again at all that became visible since the one before, so that nothing rests on
// a ring alone. The whole outbox is read at the beginning, and when the housekeeping finds what was overlooked: it may
// hold millions of rows that were taken and cannot be vacuumed while a snapshot is open, and delivery waits for a read.

import type { Clock } from '../time/clock.ts';
import type { DirectSession, Row } from '../database/direct-session.ts';
import type { LayerName } from './layer-name.ts';
import { literal } from '../database/connect.ts';
import { dataFault } from '../database/data-fault.ts';
import { waitsBeyond, type Batch, type Destination, type OutboxState } from './destination.ts';
import { Suspect } from './suspect.ts';

/** Two-key advisory locks; the first key is ours in every use. */
export const doorbellLock = '1937006946, 1';
export const leaderLock = '1937006946, 2';

export interface LeaderOptions {
  readonly session: DirectSession;
  readonly destination: Destination;
  readonly bell: Bell;
  readonly clock: Clock;
  readonly safetyMs: number;
  /** Names the sync layer that it carries to; others then know whether it is theirs. */
  readonly layer?: LayerName | undefined;
  /** It leads, and the log is vouched for. Nothing is carried before this resolves. */
  readonly leads?: (() => Promise<unknown>) | undefined;
  /** A read went well, whatever it found. */
  readonly passed?: () => void;
  /** A batch was handed over. */
  readonly moved: (rows: number, dropped: number, seconds: number) => void;
  /** The layer took a part of a batch, and then failed. */
  readonly failed: (error: unknown) => void;
  /** Rows could not be carried, and are parked. */
  readonly parked: (rows: number, error?: unknown) => void;
  /** Asked between reads. */
  readonly closing: () => boolean;
}

/** Rings per millisecond above which the lock is released… */
const ringRate = 0.16;
/** …and how many may come at once, whatever the rate. */
const ringsMax = 8;
/** After releasing the lock, the relay does not try to sleep before the outbox was empty for this long. */
const restlessMs = 10;
const pauseMinMs = 1;
const pauseMaxMs = 5;
/** Between two reads of an empty outbox, where writers do not notify. */
const pollMaxMs = 20;
/** Rows per millisecond above which the next read waits for more of them… */
const busyRate = 2.5;
/** …this long, which is what it adds to their way at most. */
const gatherMs = 6;
/** The rate is that of so long, about. */
const rateMs = 20;

export class Leader {
  readonly #options: LeaderOptions;
  /** Undefined until the first read, which is of everything. */
  #state: OutboxState | undefined;
  /** The doorbell's lock is ours: every commit from now on rings. */
  #holding = false;
  #idle = false;
  #writersNotify = true;
  #pauseMs = pauseMinMs;
  /** Rings beyond the rate, a leaky bucket: how many were counted, and when. */
  #ringsOver = 0;
  #ringsSeen = 0;
  #ringsAt = 0;
  #restlessUntil = 0;
  /** Rows per millisecond lately, and until when they were counted. */
  #rate = 0;
  #countedAt: number;
  /** Of the last safety read. Undefined: the next one is of everything. */
  #sweptState: OutboxState | undefined;
  #sweptAt: number;
  #sweepMs = 0;
  readonly #suspect: Suspect;

  constructor(options: LeaderOptions) {
    this.#options = options;
    this.#sweptAt = options.clock.monotonic();
    this.#countedAt = this.#sweptAt;
    this.#suspect = new Suspect(options.session);
  }

  /** Relays until the session ends or `closing` answers true. Rejects when a batch cannot be read or taken. */
  async lead(): Promise<void> {
    const { session, closing, destination } = this.#options;
    // Before anything is told in the name of the log.
    const { layer } = this.#options;
    const claim = layer === undefined ? 'realtime.vouch()' : `realtime.lead(${literal(layer.current)})`;
    await session.query(`select ${claim}`);
    await this.#options.leads?.();
    destination.begun((await session.query(destination.begin())).at(-1) ?? []);
    const answers = await session.query('select realtime.adopt(); select realtime.writers_notify() as notify');
    this.#writersNotify = answers.at(-1)?.[0]?.['notify'] === true;
    while (!closing()) {
      const outcome = await this.#read();
      if (outcome === 'found') {
        this.#pauseMs = pauseMinMs;
        if (this.#restlessUntil > 0) this.#restlessUntil = this.#options.clock.monotonic() + restlessMs;
        if (this.#gathers()) await this.#options.bell.wait(gatherMs);
      } else if (outcome === 'rest') {
        await this.#rest();
      }
    }
    const last = destination.end();
    if (last !== undefined) await session.query(`${last}select 1`);
  }

  /** The next safety read is of everything, and comes as soon as reads of everything may. */
  readAll(): void {
    this.#sweptState = undefined;
  }

  /** One round trip: the lock, if it is to change hands, and a batch. Answers what to do then. */
  async #read(): Promise<'found' | 'again' | 'rest'> {
    const { session, destination, bell, clock, moved } = this.#options;
    const startedAt = clock.monotonic();
    const max = this.#suspect.max;
    const sweep = max !== undefined || this.#sweepDue(startedAt);
    const takeLock = this.#idle && !this.#holding && this.#writersNotify && startedAt >= this.#restlessUntil;
    const letGo = this.#holding && this.#ringsTooFast(startedAt);
    if (letGo) this.#restlessUntil = startedAt + restlessMs;
    if (this.#holding) bell.hush();

    const lock = takeLock ? `select pg_try_advisory_lock(${doorbellLock}) as held; ` : '';
    const unlock = letGo ? `select pg_advisory_unlock(${doorbellLock}); ` : '';
    const from = sweep ? this.#sweptState : this.#state;
    const statement = destination.statement(max === undefined ? from : undefined, max);
    await this.#suspect.prepare();
    let answers: readonly (readonly Row[])[];
    try {
      answers = await session.query(lock + unlock + statement);
    } catch (error) {
      const code = dataFault(error);
      if (code === undefined || session.closed) throw error;
      await this.#narrow(code, error);
      return 'found';
    }
    this.#suspect.passed();
    if (letGo) this.#holding = false;
    if (takeLock) this.#holding = locked(answers[0]);

    const batch = await this.#take(answers.at(-1) ?? []);
    this.#state = batch.state;
    this.#options.passed?.();
    if (batch.parked > 0) this.#options.parked(batch.parked);
    const elapsed = clock.monotonic() - startedAt;
    if (sweep || from === undefined) {
      if (isAll(batch)) this.#sweptState = batch.state;
      this.#sweptAt = clock.monotonic();
      this.#sweepMs = elapsed;
    }
    this.#idle = batch.rows === 0;
    this.#count(batch.rows);
    if (!this.#idle) {
      moved(batch.rows, batch.dropped, elapsed / 1000);
      return this.#holding && isAll(batch) && destination.end() === undefined ? 'rest' : 'found';
    }
    const untried = !takeLock && !this.#holding && this.#writersNotify && clock.monotonic() >= this.#restlessUntil;
    return untried ? 'again' : 'rest';
  }

  /**
   * A layer that took a part is slow, and not away. The relay goes on, as giving up the lead costs a slow machine seconds, in
   * which more rows come than were taken: so 500 rows a second once fell behind for good.
   */
  async #take(rows: readonly Row[]): Promise<Batch> {
    const { session, destination, failed } = this.#options;
    const batch = await destination.take(rows);
    if (batch.failure === undefined) return batch;
    failed(batch.failure);
    const answers = await session.query(`${destination.end() ?? ''}${destination.begin()}`);
    destination.begun(answers.at(-1) ?? []);
    return batch;
  }

  /** A row of the batch cannot be read or moved. The others go on without it. */
  async #narrow(code: string, error: unknown): Promise<void> {
    const { session } = this.#options;
    // Nobody knows whether the failed statement took the doorbell's lock or released it.
    await session.query(`select pg_advisory_unlock(${doorbellLock})`);
    this.#holding = false;
    const parked = await this.#suspect.failed(code, error);
    if (parked > 0) this.#options.parked(parked, error);
  }

  async #rest(): Promise<void> {
    const { bell, clock, safetyMs } = this.#options;
    if (!this.#holding) {
      await bell.wait(this.#pauseMs);
      if (clock.monotonic() >= this.#restlessUntil)
        this.#pauseMs = Math.min(this.#pauseMs + 1, this.#writersNotify ? pauseMaxMs : pollMaxMs);
      return;
    }
    this.#restlessUntil = 0;
    this.#pauseMs = pauseMinMs;
    await bell.wait(safetyMs);
  }

  #count(rows: number): void {
    const now = this.#options.clock.monotonic();
    const elapsed = Math.max(now - this.#countedAt, 0.1);
    this.#rate += (rows / elapsed - this.#rate) * Math.min(1, elapsed / rateMs);
    this.#countedAt = now;
  }

  /** Not while rows wait already, which one read could not take. */
  #gathers(): boolean {
    return this.#rate > busyRate && this.#state !== undefined && !waitsBeyond(this.#state);
  }

  #ringsTooFast(now: number): boolean {
    const { rings } = this.#options.bell;
    const leaked = (now - this.#ringsAt) * ringRate;
    this.#ringsOver = Math.max(0, this.#ringsOver - leaked) + rings - this.#ringsSeen;
    this.#ringsSeen = rings;
    this.#ringsAt = now;
    return this.#ringsOver > ringsMax;
  }

  /** A read of everything may have to walk through many dead rows: it gets a tenth of the time at most. */
  #sweepDue(now: number): boolean {
    return now - this.#sweptAt >= Math.max(this.#options.safetyMs, this.#sweepMs * 10);
  }
}

/** A wait that can be cut short: by a notification, or by closing. */
export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;
  #rings = 0;

  /** How often it was rung since it was made. */
  get rings(): number {
    return this.#rings;
  }

  /** Ends the present wait, or the next one before it begins. */
  ring(): void {
    this.#rings++;
    this.#rung = true;
    this.#wake?.();
  }

  /** Forgets the rings so far: the read that follows covers what they announced. */
  hush(): void {
    this.#rung = false;
  }

  /** Waits for a ring, at most this long. One waiter at a time. */
  async wait(milliseconds: number): Promise<void> {
    if (!this.#rung) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, milliseconds);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    this.#rung = false;
  }
}

/** Nothing that was visible is left. */
function isAll({ state }: Batch): boolean {
  return state !== undefined && !waitsBeyond(state);
}

function locked(rows: readonly Row[] | undefined): boolean {
  return rows?.[0]?.['held'] === true;
}
