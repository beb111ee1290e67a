// Reads stretches of channels. Two statements at a time: more would take the database's processors from those who publish.
// A read that finds neither under way begins at once. Those that wait meanwhile share the next statement, so that a crowd
// on a thousand channels costs dozens of statements and not a thousand.
//
// What a statement brings is bounded: a channel of a shared one has a small share, and if it has more to tell, it is read
// once more by a statement of its own. So each page is what a read alone would have brought, and a channel that cannot be
// read fails nobody else.

import { unavailable, type Database } from '../../database/connect.ts';
import { dataFault } from '../../database/data-fault.ts';
import type { HistoryPage } from '../../core/sync-adapter.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import type { Clock } from '../../time/clock.ts';
import { within } from '../../time/within.ts';
import { readHistories, type Stretch } from './queries.ts';

const lanes = 2;
/** As many as a node reads at once, or about: together they bring 4 MiB at most. */
const channelsMax = 32;
const shareBytesMax = 128 << 10;
const answerTimeoutMs = 1_000;
/** A read that has not got its turn by then is not done any more: without an answer each turn takes its whole time. */
const waitMsMax = 4_000;

interface Waiting {
  readonly stretch: Stretch;
  readonly until: number;
  /** It does not share a statement. */
  alone: boolean;
  readonly resolve: (page: HistoryPage) => void;
  readonly reject: (error: unknown) => void;
}

export class PostgresHistories {
  readonly #sql: Database;
  readonly #clock: Clock;
  #waiting: Waiting[] = [];
  #running = 0;

  constructor(sql: Database, clock: Clock) {
    this.#sql = sql;
    this.#clock = clock;
  }

  /** Rejects with `unavailable` when the database does. */
  read(stretch: Stretch): Promise<HistoryPage> {
    return new Promise((resolve, reject) => {
      const until = this.#clock.monotonic() + waitMsMax;
      this.#waiting.push({ stretch, until, alone: false, resolve, reject });
      if (this.#running === lanes) return;
      this.#running++;
      void this.#run();
    });
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    for (let together = this.#next(); together.length > 0; together = this.#next()) {
      await this.#answer(together);
      // Who was answered may ask for the next channel: those reads come in this turn of the event loop, and go together.
      await new Promise(setImmediate);
    }
    this.#running--;
  }

  /** The one that has waited longest, and those who can share its statement. */
  #next(): readonly Waiting[] {
    const now = this.#clock.monotonic();
    const late = this.#waiting.filter(({ until }) => now > until);
    if (late.length > 0) this.#waiting = this.#waiting.filter(({ until }) => now <= until);
    for (const { reject } of late) reject(new RealtimeError('unavailable'));
    const [first] = this.#waiting;
    if (first === undefined) return [];
    const together: Waiting[] = [];
    this.#waiting = this.#waiting.filter((waiting) => {
      const goes = waiting === first || (together.length < channelsMax && !first.alone && canShare(waiting, first));
      if (goes) together.push(waiting);
      return !goes;
    });
    return together;
  }

  async #answer(together: readonly Waiting[]): Promise<void> {
    const stretches = together.map(({ stretch }) => stretch);
    try {
      const share = together.length === 1 ? undefined : shareBytesMax;
      const reading = readHistories(this.#sql, stretches, share);
      const pages = await within(reading, answerTimeoutMs, 'the answer of the database');
      const large = together.filter((waiting, index) => {
        const page = pages[index];
        if (page !== undefined) waiting.resolve(page);
        return page === undefined;
      });
      this.#readAlone(large);
    } catch (error) {
      // One of them holds what cannot be read.
      if (together.length > 1 && dataFault(error) !== undefined) this.#readAlone(together);
      else for (const { reject } of together) reject(unavailable(error));
    }
  }

  /** They have waited longer than all who wait. */
  #readAlone(again: readonly Waiting[]): void {
    for (const waiting of again) waiting.alone = true;
    this.#waiting.unshift(...again);
  }
}

function canShare({ alone, stretch }: Waiting, first: Waiting): boolean {
  return !alone && (stretch.query.since === undefined) === (first.stretch.query.since === undefined);
}
