// Takes batches into a log outside of the database: reads rows, publishes them there, then deletes exactly those.
//
// A crash between publishing and deleting brings the same rows again, so each is published under an idempotency key of
// its own, by which the log ignores repeats. The deletion travels with the next read: this saves a round trip and costs
// nothing, as it may be repeated.

import { literal, textArray } from '../database/connect.ts';
import type { Row } from '../database/direct-session.ts';
import { isChannelName, isServerChannel } from '../protocol/channel.ts';
import {
  batchMaxDefault,
  type Batch,
  type Destination,
  type DestinationPorts,
  type OutboxState,
} from './destination.ts';

/** A publication of the outbox, as `realtime.peek` answers it. */
interface OutboxRow {
  /** Of the row. A row that stands for all channels of a template is answered once for each, or once without a channel. */
  readonly id: string;
  readonly channel: string | null;
  /** JSON text on one line; empty for a gap. */
  readonly data: string;
  /** Idempotency key of `realtime.send`. */
  readonly key: string | null;
  /** The watch that captured it. */
  readonly watch: number | null;
  /** The channel was made by a template of the watch. */
  readonly is_templated: boolean;
  /** Why there is a gap. */
  readonly fault: string | null;
  /** The transaction that wrote it. */
  readonly xid: string;
}

/** A channel that a template made: the watch and the channel, which holds no blank. */
type Made = `${number} ${string}`;

export type IntoAdapterPorts = Pick<DestinationPorts, 'sql' | 'publish' | 'settled'>;

/** Channels of templates that are known to be written down; past this many, they are written down again. */
const knownMax = 50_000;
const sliceBytesMax = 1 << 20;

export class IntoAdapter implements Destination {
  readonly #ports: IntoAdapterPorts;
  readonly #batchMax: number;
  /** Ids of rows that were published and wait for their deletion. */
  #published: readonly string[] = [];
  /** Channels that templates made, to be written down with the deletion: a TRUNCATE concerns them. */
  #made: readonly Made[] = [];
  #known = new Set<Made>();
  /** Names the database: a fresh copy gives ids anew, and they are not the ones from before. */
  #source: Promise<string> | undefined;

  constructor(ports: IntoAdapterPorts, batchMax: number = batchMaxDefault) {
    this.#ports = ports;
    this.#batchMax = batchMax;
  }

  begin(): undefined {
    // Ids of another session may be those of another database.
    this.#published = [];
    this.#made = [];
    this.#known.clear();
    return undefined;
  }

  statement(state: OutboxState | undefined): string {
    const from = state === undefined ? 'null' : literal(state);
    return `${this.end() ?? ''}select * from realtime.peek(${this.#batchMax}, ${from})`;
  }

  async take(rows: readonly Row[]): Promise<Batch> {
    // The read that these rows answer was sent together with the deletion.
    this.#remember(this.#made);
    this.#published = [];
    this.#made = [];
    const report = rows.at(-1);
    if (report === undefined) throw new Error('realtime.peek answered nothing');
    const read = rows.slice(0, -1) as unknown as readonly OutboxRow[];
    const valid = read.filter(hasChannel);
    if (valid.length > 0) await this.#publish(valid);
    this.#published = [...new Set(read.map(({ id }) => id))];
    this.#made = madeBy(valid).filter((made) => !this.#known.has(made));
    return {
      rows: this.#published.length,
      dropped: read.filter((row) => row.channel !== null && row.fault === null && !hasChannel(row)).length,
      state: String(report['data']),
    };
  }

  end(): string | undefined {
    if (this.#published.length === 0) return undefined;
    const watches = this.#made.map((made) => made.slice(0, made.indexOf(' ')));
    const channels = this.#made.map((made) => made.slice(made.indexOf(' ') + 1));
    const given = [this.#published, watches, channels].map((values) => literal(textArray(values)));
    return `select realtime.taken(${given.join(', ')}); `;
  }

  interrupted(): void {
    this.#source = undefined;
  }

  async #publish(rows: readonly (OutboxRow & { channel: string })[]): Promise<void> {
    const source = await this.#knowSource();
    for (let from = 0; from < rows.length;) {
      const next = sliceEnd(rows, from);
      // All at once and in order, so that the log takes them in order and in few round trips.
      await Promise.all(rows.slice(from, next).map((row) => this.#publishRow(row, source)));
      await this.#ports.settled();
      from = next;
    }
  }

  async #publishRow(row: OutboxRow & { channel: string }, source: string): Promise<void> {
    const { id, channel, data, key, xid } = row;
    // NUL keeps these keys apart from those that people choose, which hold none.
    await this.#ports.publish({ channel, data, key: key ?? `\u0000${source} ${id}`, xid });
  }

  #remember(made: readonly Made[]): void {
    if (this.#known.size > knownMax) this.#known = new Set();
    for (const each of made) this.#known.add(each);
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

/** A batch may hold more than may wait for a socket, so it is published in slices: the end of the one that begins here. */
function sliceEnd(rows: readonly OutboxRow[], from: number): number {
  let bytes = 0;
  let end = from;
  while (end < rows.length && bytes < sliceBytesMax) bytes += rows[end++]?.data.length ?? 0;
  return end;
}

function hasChannel<R extends OutboxRow>(row: R): row is R & { channel: string } {
  return isChannelName(row.channel) && !isServerChannel(row.channel);
}

function madeBy(rows: readonly (OutboxRow & { channel: string })[]): Made[] {
  const made = new Set<Made>();
  for (const { watch, channel, is_templated } of rows) {
    if (is_templated && watch !== null) made.add(`${watch} ${channel}`);
  }
  return [...made];
}
