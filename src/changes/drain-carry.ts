// Carries batches to a log outside of the database: read, append there, then delete exactly what was read. A crash
// between append and deletion brings the same ids again, which the sink ignores. Deletion travels with the next read,
// which saves a round trip and costs nothing, as it may be repeated.

import type { Row } from '../database/direct-session.ts';
import type { OutboxRow } from '../database/outbox-row.ts';
import { isChannelName, isServerChannel } from '../protocol/channel.ts';
import { arrayLiteral, parseHorizon, type Batch, type Drain } from './drain.ts';
import type { CarrySink } from './relay-sink.ts';

export class DrainCarry implements Drain {
  readonly #sink: CarrySink;
  readonly #batchMax: number;
  #appended: readonly number[] = [];

  constructor(sink: CarrySink, batchMax: number) {
    this.#sink = sink;
    this.#batchMax = batchMax;
  }

  setup(): undefined {
    return undefined;
  }

  statement(ranges: readonly number[] | undefined): string {
    return `${this.remainder() ?? ''}select * from realtime.peek(${this.#batchMax}, ${arrayLiteral(ranges)})`;
  }

  async finish(rows: readonly Row[]): Promise<Batch> {
    // The read that this answers carried the deletion.
    this.#appended = [];
    const report = rows.at(-1);
    if (report === undefined) throw new Error('realtime.peek answered nothing');
    const read = rows.slice(0, -1) as unknown as readonly OutboxRow[];
    const wanted = read.filter(({ channel }) => isChannelName(channel) && !isServerChannel(channel));
    if (wanted.length > 0) await this.#sink.append(wanted);
    const ids = read.map(({ id }) => id);
    this.#appended = ids;
    return { ids, dropped: read.length - wanted.length, horizon: parseHorizon(report['key']) };
  }

  remainder(): string | undefined {
    if (this.#appended.length === 0) return undefined;
    return `delete from realtime.outbox where id = any(${arrayLiteral(this.#appended)}); `;
  }
}
