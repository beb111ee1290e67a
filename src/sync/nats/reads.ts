// How the streams are asked for what they hold: one message, or several of a channel that follow each other. The driver
// has a request for several too. It leaves a subscription behind at every call, and never ends when the connection is lost
// in the middle.

import { DirectMsgHeaders, type StoredMsg } from '@nats-io/jetstream';
import { errors, type Msg } from '@nats-io/transport-node';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import type { Clock } from '../../time/clock.ts';
import { Gate } from '../gate.ts';
import type { NatsClient } from './connection.ts';
import { headersOf, type HeaderFields } from './header-text.ts';
import { readEntry, type Entry } from './message.ts';
import type { NatsNames } from './names.ts';
import { NewestEntries, type Tried } from './newest.ts';
import type { Goal } from './stretch.ts';
import { Sweep, type Swept } from './sweep.ts';

export interface NatsReadsOptions {
  readonly client: NatsClient;
  readonly names: NatsNames;
  readonly clock: Clock;
}

/** The last message of a subject, or its first one from a number of the stream on. */
type Query = { readonly last_by_subj: string } | { readonly seq: number; readonly next_by_subj: string };

export interface Piece {
  readonly count: number;
  /** About; one message in any case. */
  readonly bytesMax: number;
  /** Nothing after it is read. */
  readonly newest: Entry;
}

/** A crowd's requests would otherwise all wait for the same second, in which the server cannot answer them. */
const readsAtOnce = 256;
/** They may have some mebibytes together. */
const batchTimeoutMs = 5_000;
const sweepBytesMax = 4 << 20;
const endOfBatch = 204;
const notFound = 404;

export class NatsReads {
  readonly #options: NatsReadsOptions;
  readonly #gate = new Gate(readsAtOnce);
  readonly #sweep: Sweep;
  readonly #newest: NewestEntries;

  constructor(options: NatsReadsOptions) {
    const { client, clock } = options;
    this.#options = options;
    this.#sweep = new Sweep({
      clock,
      epoch: () => client.epoch,
      read: (seq, count) => this.#pass(() => this.#messages({ seq, batch: count, max_bytes: sweepBytesMax }, sweptOf)),
    });
    this.#newest = new NewestEntries({
      one: (subject) => this.#entry({ last_by_subj: subject }),
      many: (subjects) => this.#pass(() => this.#messages({ multi_last: subjects, batch: subjects.length }, triedOf)),
    });
  }

  /** Forgets what was read for a crowd. */
  close(): void {
    this.#sweep.close();
  }

  /** Of the leader: replicas may be behind. */
  newest(channel: string): Promise<Entry | undefined> {
    const { client, names } = this.#options;
    const subject = names.log(channel);
    return client.isSingle ? this.#newest.ask(subject) : this.#entry({ last_by_subj: subject });
  }

  /** What a crowd read, from the channel's entry of this offset on; undefined if that is not a part of it. */
  swept(channel: string, goal: Goal, piece: Piece): Promise<readonly Entry[] | undefined> {
    return this.#sweep.from(this.#options.names.log(channel), goal, piece);
  }

  /** A crowd reads, or has read a moment ago. */
  get hasCrowd(): boolean {
    return this.#sweep.isCurrent;
  }

  /** The channel's first entry from there on, of the leader. */
  next(channel: string, seq: number): Promise<Entry | undefined> {
    const { names } = this.#options;
    return this.#entry({ seq, next_by_subj: names.log(channel) });
  }

  /** Null when there is none. */
  message(stream: string, query: Query): Promise<StoredMsg | null> {
    const { client } = this.#options;
    // The leader answers all that the stream's API is asked, in one queue, which a crowd of subscribers would fill.
    const { direct, streams } = client.readManager;
    return this.#pass(() => (client.isSingle ? direct : streams).getMessage(stream, query));
  }

  /** Entries from there on, without a hole among themselves. Empty when there are none. */
  async piece(channel: string, seq: number, piece: Piece): Promise<readonly Entry[]> {
    const { client, names } = this.#options;
    const subject = names.log(channel);
    const swept = await this.#sweep.piece(subject, { seq, ...piece });
    if (swept !== undefined) return swept;
    const entries = await this.#pass(() => this.#batch(subject, seq, piece));
    if (entries.length > 0 || client.isSingle) return entries;
    // Any replica answers, and one that is behind has nothing yet.
    const entry = await this.next(channel, seq);
    return entry === undefined || entry.seq > piece.newest.seq ? [] : [entry];
  }

  async #entry(query: Query): Promise<Entry | undefined> {
    const found = await this.message(this.#options.names.logStream, query);
    if (found === null) return undefined;
    return readEntry({ seq: found.seq, headers: found.header, body: found.string() });
  }

  #pass<Value>(request: () => Promise<Value>): Promise<Value> {
    if (!this.#options.client.up) throw new RealtimeError('unavailable');
    return this.#gate.pass(request);
  }

  async #batch(subject: string, seq: number, { count, bytesMax, newest }: Piece): Promise<readonly Entry[]> {
    const query = { seq, next_by_subj: subject, batch: count, max_bytes: Math.ceil(bytesMax) };
    const entries = await this.#messages(query, entryOf);
    const end = entries.findIndex((entry, index) => {
      const before = entries[index - 1];
      return entry.seq > newest.seq || (before !== undefined && entry.offset !== before.offset + 1);
    });
    return end === -1 ? entries : entries.slice(0, end);
  }

  async #messages<Value>(query: object, read: (message: Msg) => Value): Promise<readonly Value[]> {
    const { client, names } = this.#options;
    const subject = `$JS.API.DIRECT.GET.${names.logStream}`;
    const options = { strategy: 'sentinel', maxWait: batchTimeoutMs } as const;
    const values: Value[] = [];
    for await (const message of await client.reading.requestMany(subject, JSON.stringify(query), options)) {
      // Only the last one has no body.
      if (message.data.length > 0) values.push(read(message));
      else if (isEnd(message)) return values;
    }
    throw new errors.TimeoutError();
  }
}

function isEnd({ headers }: Msg): boolean {
  const { code = 0, description = '' } = headers ?? {};
  if (code === endOfBatch || code === notFound) return true;
  throw new Error(`NATS answered ${code} ${description} to a read`);
}

function sweptOf(message: Msg): Swept {
  const fields = headersOf(message);
  return { subject: fields.get(DirectMsgHeaders.Subject), entry: entryIn(fields, message) };
}

/** One that cannot be read fails nobody but its channel. */
function triedOf(message: Msg): Tried {
  const fields = headersOf(message);
  const subject = fields.get(DirectMsgHeaders.Subject);
  try {
    return { subject, entry: entryIn(fields, message) };
  } catch (error) {
    return { subject, error };
  }
}

function entryOf(message: Msg): Entry {
  return entryIn(headersOf(message), message);
}

function entryIn(fields: HeaderFields, message: Msg): Entry {
  return readEntry({ seq: Number(fields.get(DirectMsgHeaders.Sequence)), headers: fields, body: message.string() });
}
