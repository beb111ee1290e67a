// Takes batches into a log outside of the database: reads rows, publishes them there, then deletes exactly those.
//
// A crash between publishing and deleting brings the same rows again, so each is published under an idempotency key of
// its own, by which the log ignores repeats. The deletion travels with the next read: this saves a round trip and costs
// nothing, as it may be repeated.

import type { Row } from '../database/direct-session.ts';
import { isChannelName, isServerChannel } from '../protocol/channel.ts';
import {
  arrayLiteral,
  batchMaxDefault,
  parseHorizon,
  type Batch,
  type Destination,
  type DestinationPorts,
} from './destination.ts';

/** A row of the outbox, as `realtime.peek` reads it. */
interface OutboxRow {
  /** Rises within a transaction and with the changes of one row. The row keeps it when it is read again. */
  readonly id: number;
  readonly channel: string;
  /** JSON text on one line. */
  readonly data: string;
  /** Idempotency key of `realtime.send`. */
  readonly key: string | null;
}

export type IntoAdapterPorts = Pick<DestinationPorts, 'sql' | 'publish' | 'settled'>;

export class IntoAdapter implements Destination {
  readonly #ports: IntoAdapterPorts;
  readonly #batchMax: number;
  /** Ids of rows that were published and wait for their deletion. */
  #published: readonly number[] = [];
  /** Names the database: a fresh copy counts its rows from 1, and they are not the ones from before. */
  #source: Promise<string> | undefined;

  constructor(ports: IntoAdapterPorts, batchMax: number = batchMaxDefault) {
    this.#ports = ports;
    this.#batchMax = batchMax;
  }

  begin(): undefined {
    // Ids of another session may be those of another database.
    this.#published = [];
    return undefined;
  }

  statement(ranges: readonly number[] | undefined): string {
    const read = `select id, channel, data, key from realtime.peek(${this.#batchMax}, ${arrayLiteral(ranges)})`;
    return `${this.end() ?? ''}${read}`;
  }

  async take(rows: readonly Row[]): Promise<Batch> {
    // The read that these rows answer was sent together with the deletion.
    this.#published = [];
    const report = rows.at(-1);
    if (report === undefined) throw new Error('realtime.peek answered nothing');
    const read = rows.slice(0, -1) as unknown as readonly OutboxRow[];
    const valid = read.filter(({ channel }) => isChannelName(channel) && !isServerChannel(channel));
    if (valid.length > 0) await this.#publish(valid);
    const ids = read.map(({ id }) => id);
    this.#published = ids;
    return { ids, dropped: read.length - valid.length, horizon: parseHorizon(report['key']) };
  }

  end(): string | undefined {
    if (this.#published.length === 0) return undefined;
    return `delete from realtime.outbox where id = any(${arrayLiteral(this.#published)}); `;
  }

  interrupted(): void {
    this.#source = undefined;
  }

  async #publish(rows: readonly OutboxRow[]): Promise<void> {
    const source = await this.#knowSource();
    // All at once and in order, so that the log takes them in order and in few round trips.
    await Promise.all(rows.map((row) => this.#publishRow(row, source)));
    await this.#ports.settled();
  }

  async #publishRow({ id, channel, data, key }: OutboxRow, source: string): Promise<void> {
    // NUL keeps these keys apart from those that people choose, which hold none.
    await this.#ports.publish({ channel, data, key: key ?? `\u0000${source} ${id}` });
  }

  async #knowSource(): Promise<string> {
    this.#source ??= this.#readSource();
    try {
      return await this.#source;
    } catch (error) {
      this.#source = undefined;
      throw error;
    }
  }

  async #readSource(): Promise<string> {
    const [row] = await this.#ports.sql<{ epoch: string }[]>`SELECT epoch FROM realtime.log`;
    if (row === undefined) throw new Error('the table realtime.log is empty');
    return row.epoch;
  }
}
