// Takes batches into a log outside of the database: reads rows, publishes them there, then deletes exactly those.
//
// A crash between publishing and deleting brings the same rows again, so the log ignores repeats: by an idempotency key
// of each row, or by its place in a numbered batch, which takes one mark per channel (`carried`). The deletion travels
// with the next read: this saves a round trip and costs nothing, as it may be repeated.

import { literal, textArray } from '../database/connect.ts';
import type { Row } from '../database/direct-session.ts';
import { TermEnded } from '../core/sync-adapter.ts';
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

type ChannelRow = OutboxRow & { readonly channel: string };

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
  #source = '';
  #term = 0;
  /** A log has seen a higher term than this database gave: it was set back to an earlier state. */
  #termMin = 1;
  #batch = 0;
  /** All that earlier terms may have published and not deleted was taken by now. */
  #clean = false;

  constructor(ports: IntoAdapterPorts, batchMax: number = batchMaxDefault) {
    this.#ports = ports;
    this.#batchMax = batchMax;
  }

  /** In the session that holds the leader's lock: a term that was taken elsewhere could be newer than its holder. */
  begin(): string {
    return `select l.epoch, setval('realtime.terms', greatest(nextval('realtime.terms'), ${this.#termMin})) as term
      from realtime.log l`;
  }

  begun(rows: readonly Row[]): void {
    const [row] = rows;
    if (row === undefined) throw new Error('the table realtime.log is empty');
    this.#source = String(row['epoch']);
    this.#term = Number(row['term']);
    this.#batch = 0;
    this.#clean = false;
    // Ids of another session may be those of another database.
    this.#published = [];
    this.#made = [];
    this.#known.clear();
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
    if (report['id'] !== 'more') this.#clean = true;
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
    // The next session begins a term of its own, by which what comes again is known.
  }

  async #publish(rows: readonly ChannelRow[]): Promise<void> {
    this.#batch++;
    const places = placesOf(rows);
    for (let from = 0; from < rows.length;) {
      const next = sliceEnd(rows, from);
      try {
        // All at once and in order, so that the log takes them in order and in few round trips.
        await Promise.all(rows.slice(from, next).map((row) => this.#publishRow(row, places)));
      } catch (error) {
        if (error instanceof TermEnded) this.#termMin = error.term + 1;
        throw error;
      }
      await this.#ports.settled();
      from = next;
    }
  }

  async #publishRow({ id, channel, data, key, xid }: ChannelRow, places: Map<string, Places>): Promise<void> {
    if (key !== null) return void (await this.#ports.publish({ channel, data, key, xid }));
    const { ids, taken } = places.get(channel) ?? { ids: [], taken: 0 };
    const place = taken + 1;
    places.set(channel, { ids, taken: place });
    // NUL keeps these keys apart from those that people choose, which hold none.
    await this.#ports.publish({
      channel,
      data,
      key: `\u0000${this.#source} ${id}`,
      xid,
      carried: { source: this.#source, term: this.#term, batch: this.#batch, place, id, ids, clean: this.#clean },
    });
  }

  #remember(made: readonly Made[]): void {
    if (this.#known.size > knownMax) this.#known = new Set();
    for (const each of made) this.#known.add(each);
  }
}

/** The rows of a batch that go to one channel without a key of their own, and how many of them were handed over. */
interface Places {
  readonly ids: readonly string[];
  readonly taken: number;
}

function placesOf(rows: readonly ChannelRow[]): Map<string, Places> {
  const byChannel = new Map<string, string[]>();
  for (const { id, channel, key } of rows) {
    if (key !== null) continue;
    const ids = byChannel.get(channel);
    if (ids === undefined) byChannel.set(channel, [id]);
    else ids.push(id);
  }
  return new Map([...byChannel].map(([channel, ids]) => [channel, { ids, taken: 0 }]));
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

function madeBy(rows: readonly ChannelRow[]): Made[] {
  const made = new Set<Made>();
  for (const { watch, channel, is_templated } of rows) {
    if (is_templated && watch !== null) made.add(`${watch} ${channel}`);
  }
  return [...made];
}
