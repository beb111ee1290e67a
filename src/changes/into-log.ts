// Takes batches into the log of the same database. One statement deletes, numbers, appends and notifies, as one
// transaction, so that nothing can be lost or doubled between two places. This process gets the rows with the answer
// and hands them to its own reader; other nodes receive the notification.

import { literal } from '../database/connect.ts';
import type { Row } from '../database/direct-session.ts';
import type { LogRow } from '../database/log-row.ts';
import { quietly } from '../database/quietly.ts';
import {
  batchMaxDefault,
  rowBytesMaxDefault,
  type Batch,
  type Destination,
  type DestinationPorts,
  type OutboxState,
} from './destination.ts';

/** This node's reader of the log. */
export interface LogReader {
  /** Rows that were just committed, in the order of the log. No further batch is read before a promise resolves. */
  hand(rows: readonly LogRow[]): void | Promise<void>;
  /** There may be rows in the log that nobody hands over. */
  catchUp(): void;
  /** It tells the other nodes of what it is handed; the database must not. */
  readonly tells?: boolean;
}

export type IntoLogPorts = Pick<DestinationPorts, 'rules' | 'rowBytesMax' | 'publish' | 'published' | 'failed'>;

export class IntoLog implements Destination {
  readonly #ports: IntoLogPorts;
  readonly #reader: LogReader;
  readonly #batchMax: number;

  constructor(ports: IntoLogPorts, reader: LogReader, batchMax: number = batchMaxDefault) {
    this.#ports = ports;
    this.#reader = reader;
    this.#batchMax = batchMax;
  }

  /** Planned once: with few rows to move, planning is a tenth of the work. */
  begin(): string {
    const prepared = `prepare sobranie_relay (text) as ${this.#call(this.#batchMax, '$1')}`;
    return this.#reader.tells === true ? `${quietly}; ${prepared}` : prepared;
  }

  begun(): void {
    // The statement is prepared: nothing was answered.
  }

  statement(state: OutboxState | undefined, max?: number): string {
    const from = state === undefined ? 'null' : literal(state);
    return max === undefined ? `execute sobranie_relay (${from})` : this.#call(max, from);
  }

  async take(rows: readonly Row[]): Promise<Batch> {
    const report = rows.at(-1);
    if (report === undefined) throw new Error('realtime.relay answered nothing');
    if (rows.length > 1) {
      // The driver builds each row with exactly the columns that the function declares, numbers parsed.
      await this.#handOver(rows.slice(0, -1) as unknown as readonly LogRow[]);
    }
    return {
      rows: Number(report['offset']),
      dropped: Number(report['at']),
      state: String(report['data']),
      parked: Number(report['user'] ?? 0),
    };
  }

  end(): undefined {
    return undefined;
  }

  interrupted(): void {
    this.#reader.catchUp();
  }

  #call(max: number, from: string): string {
    const { rules, rowBytesMax = rowBytesMaxDefault } = this.#ports;
    return `select * from realtime.relay(${max}, ${literal(JSON.stringify(rules))}, ${from}, ${rowBytesMax})`;
  }

  async #handOver(rows: readonly LogRow[]): Promise<void> {
    const { published, failed } = this.#ports;
    try {
      for (const { channel, seq } of rows) if (seq > 0) published(channel);
      const logged = rows.every(({ seq }) => seq > 0) ? rows : rows.filter(({ seq }) => seq > 0);
      if (logged.length < rows.length) {
        for (const { channel, data, seq } of rows) if (seq === 0) void this.#publishEphemeral(channel, data);
      }
      await this.#reader.hand(logged);
    } catch (error) {
      failed('changes could not be handed to the reader of this node: it reads them from the log', error);
      this.#reader.catchUp();
    }
  }

  /** Nobody waits for it: to a node that cannot receive it now it is worth nothing. */
  async #publishEphemeral(channel: string, data: string): Promise<void> {
    try {
      await this.#ports.publish({ channel, data });
    } catch (error) {
      this.#ports.failed('an ephemeral change could not be published', error);
    }
  }
}
