// Takes batches into a log outside of the database: reads rows, publishes them there, then deletes exactly those.
//
// A crash between publishing and deleting brings the same rows again, so the log ignores repeats: by an idempotency key
// of each row, or by its place in a numbered batch, which takes one mark per channel (`carried`). The deletion travels
// with the next read: this saves a round trip and costs nothing, as it may be repeated.

import { literal, textArray } from '../database/connect.ts';
import type { Row } from '../database/direct-session.ts';
import { TermEnded } from '../core/sync-adapter.ts';
import { isOutOfMemory, refusalOf } from './refusal.ts';
import { isChannelName, isServerChannel } from '../protocol/channel.ts';
import {
  batchMaxDefault,
  parking,
  rowBytesMaxDefault,
  waitsBeyond,
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

/** A row that was not published. Without a reason of its own it waits behind one that was refused. */
interface Failure {
  readonly row: ChannelRow;
  readonly reason: string | undefined;
  readonly error: unknown;
}

/** A channel that a template made: the watch and the channel, which holds no blank. */
type Made = `${number} ${string}`;

export type IntoAdapterPorts = Pick<DestinationPorts, 'sql' | 'publish' | 'settled' | 'rowBytesMax'>;

/** A full layer may have room again soon. After so many tries it is the large rows that have none. */
const fullRetries = 4;
const largeCharacters = 64 << 10;
/** Channels of templates that are known to be written down; past this many, they are written down again. */
const knownMax = 50_000;
const sliceBytesMax = 1 << 20;
const atOnceMin = 10;

export class IntoAdapter implements Destination {
  readonly #ports: IntoAdapterPorts;
  readonly #batchMax: number;
  /** Ids of rows that were published and wait for their deletion. */
  #published: readonly string[] = [];
  /** Rows that the layer refused, to be parked with the deletion: SQL for each. */
  #refused: readonly string[] = [];
  /** Batches in a row that a full layer refused. */
  #fullFor = 0;
  /** Rows that are on their way at once: fewer after some that were not answered in time... */
  #atOnceMax: number;
  /** ...and soon more again up to here, slowly from here on: more than that was too much lately. */
  #slowFrom: number;
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
    this.#atOnceMax = batchMax;
    this.#slowFrom = batchMax;
  }

  /** In the session that holds the leader's lock: a term that was taken elsewhere could be newer than its holder. */
  begin(): string {
    // By the clock, as a database that was set back would give terms again that a log has seen.
    const now = 'floor(extract(epoch from clock_timestamp()) * 1000)::bigint';
    return `select l.source, setval('realtime.terms', greatest(nextval('realtime.terms'), ${this.#termMin}, ${now})) as term
      from realtime.log l`;
  }

  begun(rows: readonly Row[]): void {
    const [row] = rows;
    if (row === undefined) throw new Error('the table realtime.log is empty');
    this.#source = String(row['source']);
    this.#term = Number(row['term']);
    this.#batch = 0;
    this.#clean = false;
    // Ids of another session may be those of another database.
    this.#published = [];
    this.#refused = [];
    this.#made = [];
    this.#known.clear();
  }

  statement(state: OutboxState | undefined, max: number = this.#batchMax): string {
    const from = state === undefined ? 'null' : literal(state);
    const { rowBytesMax = rowBytesMaxDefault } = this.#ports;
    return `${this.end() ?? ''}select * from realtime.peek(${max}, ${from}, ${rowBytesMax})`;
  }

  async take(rows: readonly Row[]): Promise<Batch> {
    // The read that these rows answer was sent together with the deletion.
    this.#remember(this.#made);
    this.#published = [];
    this.#refused = [];
    this.#made = [];
    const report = rows.at(-1);
    if (report === undefined) throw new Error('realtime.peek answered nothing');
    const read = rows.slice(0, -1) as unknown as readonly OutboxRow[];
    const valid = read.filter(hasChannel);
    let failures: readonly Failure[] = [];
    try {
      if (valid.length > 0) failures = await this.#publish(valid);
    } catch (error) {
      const { length } = this.#published;
      if (length === 0) throw error;
      return { rows: length, dropped: 0, state: undefined, parked: 0, failure: error };
    }
    const refused = failures.filter(({ reason }) => reason !== undefined);
    const left = new Set(failures.map(({ row }) => row.id));
    if (!waitsBeyond(String(report['data'])) && left.size === 0) this.#clean = true;
    this.#refused = refused.map(({ row, reason = '', error }) => parking([row.id], reason, rootOf(error)));
    this.#published = [...new Set(read.map(({ id }) => id))].filter((id) => !left.has(id));
    this.#made = madeBy(valid.filter(({ id }) => !left.has(id))).filter((made) => !this.#known.has(made));
    return {
      rows: this.#published.length + left.size,
      dropped: read.filter((row) => row.channel !== null && row.fault === null && !hasChannel(row)).length,
      // What is parked is read again, as a gap, and so is what follows it in its channel.
      state: left.size > 0 ? undefined : String(report['data']),
      parked: refused.length + Number(report['key'] ?? 0),
    };
  }

  end(): string | undefined {
    const parked = this.#refused.map((statement) => `${statement}; `).join('');
    if (this.#published.length === 0) return parked === '' ? undefined : parked;
    const watches = this.#made.map((made) => made.slice(0, made.indexOf(' ')));
    const channels = this.#made.map((made) => made.slice(made.indexOf(' ') + 1));
    const given = [this.#published, watches, channels].map((values) => literal(textArray(values)));
    return `${parked}select realtime.taken(${given.join(', ')}); `;
  }

  interrupted(): void {
    // The next session begins a term of its own, by which what comes again is known.
  }

  /** Answers the rows that were not published. Rejects when the layer could not be asked. */
  async #publish(rows: readonly ChannelRow[]): Promise<readonly Failure[]> {
    this.#batch++;
    const places = placesOf(rows);
    const failures = new Map<string, Failure[]>();
    let isFull = false;
    for (let from = 0; from < rows.length;) {
      const next = Math.min(sliceEnd(rows, from), from + this.#atOnceMax);
      // All at once and in order, so that the log takes them in order and in few round trips.
      const slice = rows.slice(from, next);
      const outcomes = await Promise.allSettled(slice.map((row) => this.#publishRow(row, places)));
      await this.#ports.settled();
      try {
        slice.forEach((row, index) => {
          const outcome = outcomes[index];
          if (outcome?.status !== 'rejected') return;
          isFull ||= isOutOfMemory(outcome.reason);
          this.#note(failures, row, outcome.reason);
        });
      } catch (error) {
        const waits = new Set([...failures.values()].flatMap((some) => some.map(({ row }) => row)));
        this.#keepPublished(
          rows,
          (row, index) => waits.has(row) || (index >= from && outcomes[index - from]?.status !== 'fulfilled'),
        );
        throw error;
      }
      const more =
        this.#atOnceMax < this.#slowFrom ? Math.min(this.#atOnceMax * 2, this.#slowFrom) : this.#atOnceMax + atOnceMin;
      this.#atOnceMax = Math.min(this.#batchMax, more);
      from = next;
    }
    this.#fullFor = isFull ? this.#fullFor + 1 : 0;
    return [...failures.values()].flat();
  }

  /**
   * The layer gave out in the middle of a batch. What it has taken is deleted all the same: a layer that is slower than a
   * whole batch may take would be given the same rows for ever. What it was given at once is halved.
   */
  #keepPublished(rows: readonly ChannelRow[], isLeft: (row: ChannelRow, index: number) => boolean): void {
    const left = new Set(rows.filter(isLeft).map(({ id }) => id));
    this.#published = [...new Set(rows.map(({ id }) => id))].filter((id) => !left.has(id));
    this.#made = madeBy(rows.filter(({ id }) => !left.has(id))).filter((made) => !this.#known.has(made));
    this.#atOnceMax = Math.max(atOnceMin, Math.floor(this.#atOnceMax / 2));
    this.#slowFrom = this.#atOnceMax;
  }

  /**
   * The first failure of a channel decides: what follows it there has to wait for the gap that takes its place. A channel
   * that refuses even a gap takes nothing at all.
   */
  #note(failures: Map<string, Failure[]>, row: ChannelRow, error: unknown): void {
    if (error instanceof TermEnded) this.#termMin = error.term + 1;
    const [first, ...more] = failures.get(row.channel) ?? [];
    if (first === undefined) {
      const reason = this.#reasonOf(row, error);
      // The same rows come again; those that were taken are known by their places.
      if (reason === undefined) throw error;
      failures.set(row.channel, [{ row, reason, error }]);
      return;
    }
    const reason = first.row.data === '' ? first.reason : undefined;
    failures.set(row.channel, [first, ...more, { row, reason, error: first.error }]);
  }

  #reasonOf(row: ChannelRow, error: unknown): string | undefined {
    const isTooLarge = isOutOfMemory(error) && this.#fullFor >= fullRetries && row.data.length > largeCharacters;
    return isTooLarge ? 'OOM' : refusalOf(error);
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

/** What the layer itself said. */
function rootOf(error: unknown): unknown {
  return error instanceof Error && error.cause !== undefined ? rootOf(error.cause) : error;
}

function madeBy(rows: readonly ChannelRow[]): Made[] {
  const made = new Set<Made>();
  for (const { watch, channel, is_templated } of rows) {
    if (is_templated && watch !== null) made.add(`${watch} ${channel}`);
  }
  return [...made];
}
