// Moves batches into the log of the same database: one statement deletes, numbers, appends and notifies, as one
// transaction, so that nothing can be lost or doubled between two places. Rows are handed to this process at once;
// other nodes hear the notification.

import type { Row } from '../database/direct-session.ts';
import type { LogRow } from '../database/log-row.ts';
import { literal } from '../database/connect.ts';
import type { ChannelRule } from '../rules/rules.ts';
import { arrayLiteral, parseArray, parseHorizon, type Batch, type Drain } from './drain.ts';
import type { LogSink, RelayObserver } from './relay-sink.ts';

export class DrainLog implements Drain {
  readonly #sink: LogSink;
  readonly #observer: RelayObserver;
  readonly #rules: string;
  readonly #batchMax: number;

  constructor(sink: LogSink, observer: RelayObserver, rules: readonly ChannelRule[], batchMax: number) {
    this.#sink = sink;
    this.#observer = observer;
    this.#rules = literal(JSON.stringify(rules));
    this.#batchMax = batchMax;
  }

  /** Planned once: with few rows to move, planning is a tenth of the work. */
  setup(): string {
    const call = `realtime.relay(${this.#batchMax}, ${this.#rules}, $1, true)`;
    return `prepare sobranie_relay (bigint[]) as select * from ${call}`;
  }

  statement(ranges: readonly number[] | undefined): string {
    return `execute sobranie_relay (${arrayLiteral(ranges)})`;
  }

  async finish(rows: readonly Row[]): Promise<Batch> {
    const report = rows.at(-1);
    if (report === undefined) throw new Error('realtime.relay answered nothing');
    const dropped = Number(report['at']);
    if (rows.length > 1 || dropped > 0) {
      // The driver builds each row with exactly the columns that the function declares, numbers parsed.
      const moved = rows.slice(0, -1) as unknown as readonly LogRow[];
      try {
        await this.#sink.delivered(moved, dropped);
      } catch (error) {
        // The log has the batch: this process will fill the hole like any other node that missed it.
        this.#observer.error(error);
      }
    }
    return { ids: parseArray(report['data']), dropped, horizon: parseHorizon(report['epoch']) };
  }

  remainder(): undefined {
    return undefined;
  }
}
