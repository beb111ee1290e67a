// How the streams are asked for what they hold: one message, or several of a channel that follow each other. The driver
// has a request for several too. It leaves a subscription behind at every call, and never ends when the connection is lost
// in the middle: `answers.ts` asks in its place.

import { DirectMsgHeaders, type StoredMsg } from '@nats-io/jetstream';
import type { Msg } from '@nats-io/transport-node';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import type { Clock } from '../../time/clock.ts';
import { Gate } from '../gate.ts';
import { ask } from './answers.ts';
import type { NatsClient } from './connection.ts';
import { readEntry, type Entry } from './message.ts';
import { textOf, type MessageText } from './message-text.ts';
import type { NatsNames } from './names.ts';
import { NewestEntries, type Tried } from './newest.ts';
import type { Goal } from './stretch.ts';
import { Sweep } from './sweep.ts';
import { walk } from './walk.ts';

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
const endOfBatch = 204;
const notFound = 404;

export class NatsReads {
  readonly #options: NatsReadsOptions;
  readonly #gate = new Gate(readsAtOnce);
  readonly #sweep: Sweep;
  readonly #newest: NewestEntries;

  constructor(options: NatsReadsOptions) {
    const { client, names, clock } = options;
    this.#options = options;
    this.#sweep = new Sweep({
      clock,
      epoch: () => client.epoch,
      walk: (from, take) => this.#pass(() => walk(client, names.logStream, from, take)),
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
    const values: Value[] = [];
    const question = {
      subject: `$JS.API.DIRECT.GET.${names.logStream}`,
      text: JSON.stringify(query),
      timeoutMs: batchTimeoutMs,
    };
    const last = await ask(client.reading, question, (message) => {
      values.push(read(message));
      return false;
    });
    const { code = 0, description = '' } = last?.headers ?? {};
    if (code !== endOfBatch && code !== notFound) throw new Error(`NATS answered ${code} ${description} to a read`);
    return values;
  }
}

/** One that cannot be read fails nobody but its channel. */
function triedOf(message: Msg): Tried {
  const text = textOf(message);
  const subject = text.headers.get(DirectMsgHeaders.Subject);
  try {
    return { subject, entry: entryIn(text) };
  } catch (error) {
    return { subject, error };
  }
}

function entryOf(message: Msg): Entry {
  return entryIn(textOf(message));
}

function entryIn({ headers, body }: MessageText): Entry {
  return readEntry({ seq: Number(headers.get(DirectMsgHeaders.Sequence)), headers, body });
}
