// The logs of channels in a stream that counts: the server gives each message of a subject the next number, in the
// order in which it stores them.
//
//   append    one message. An idempotency key is the message's id, which the server remembers
//   head      the newest message of the subject, from the stream's leader: replicas may be behind
//   read      a stretch of a subject. Its messages lie anywhere in the stream, so its beginning is found by halving

import { JetStreamError, JetStreamApiError, type StoredMsg } from '@nats-io/jetstream';
import { Publication } from '../../core/publication.ts';
import {
  pageBytesMax,
  type Appended,
  type HistoryPage,
  type HistoryQuery,
  type Outgoing,
} from '../../core/sync-adapter.ts';
import type { Position } from '../../protocol/position.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import type { ChannelRule } from '../../rules/rules.ts';
import { boundPage } from '../bound-page.ts';
import { answerTimeoutMs } from './connection.ts';
import { Gate } from '../gate.ts';
import { NatsRefusal, type StreamError } from './failure.ts';
import { getLarge, headerBytesMax, putLarge, type LargeDataOptions } from './large-data.ts';
import { countIn, entryHeaders, lengthOf, readEntry, type Entry } from './message.ts';

interface Ack {
  readonly seq: number;
  readonly val?: string;
  readonly duplicate?: boolean;
  readonly error?: StreamError;
}

/** Which entries a reader may see. */
type Wanted = (entry: Entry) => boolean;

/** Another publication with the same key is being stored. */
const keyUnderWay = 10_158;
const readsAtOnce = 256;
const firstPiece = 32;
const pieceMax = 512;

export class NatsLog {
  readonly #options: LargeDataOptions;
  readonly #reads = new Gate(readsAtOnce);

  constructor(options: LargeDataOptions) {
    this.#options = options;
  }

  /** Resolves when the stream holds it; with a repeated key, with the position from before. */
  async append(outgoing: Outgoing): Promise<Appended> {
    const { channel, rule, data, at, from, except, xid, key } = outgoing;
    const { client, names } = this.#options;
    await client.keep(rule.historySize);
    const isSmall = data.length <= headerBytesMax / 3 || Buffer.byteLength(data) <= headerBytesMax;
    const stored = isSmall ? data : await putLarge(data, rule.historySeconds, this.#options);
    const fields = entryHeaders(at, { from, except, xid }, stored);
    const deadline = this.#options.clock.monotonic() + answerTimeoutMs;
    for (let id = key === undefined ? undefined : digest(`${channel}\n${key}`); ;) {
      if (id !== undefined) fields.set('Nats-Msg-Id', id);
      const answer = await client.request(names.log(channel), undefined, fields);
      const text = answer.string();
      const ack = JSON.parse(text) as Ack;
      const offset = countIn(text);
      if (ack.error === undefined && offset !== undefined) return { epoch: client.epoch, offset };
      if (ack.error !== undefined && ack.error.err_code !== keyUnderWay) throw new NatsRefusal(ack.error);
      if (this.#options.clock.monotonic() > deadline) throw new Error('the answers about a key did not end');
      if (ack.duplicate !== true) continue;
      const before = await this.#kept(channel, rule, ack.seq);
      if (before !== undefined) return { epoch: client.epoch, offset: before.offset, isRepeat: true };
      // The key was used by what the rule keeps no longer: its next use is a name that follows from that one.
      id = digest(`${id} ${ack.seq}`);
    }
  }

  async head(channel: string): Promise<Position> {
    const newest = await this.#newest(channel);
    return { epoch: this.#options.client.epoch, offset: newest?.offset ?? 0 };
  }

  async read(channel: string, rule: ChannelRule, query: HistoryQuery, internal: boolean): Promise<HistoryPage> {
    const newest = await this.#newest(channel);
    const head = { epoch: this.#options.client.epoch, offset: newest?.offset ?? 0 };
    const { since } = query;
    if (since !== undefined && (since.epoch !== head.epoch || since.offset > head.offset)) {
      return { head, publications: [], complete: false, gap: 'epoch_changed' };
    }
    if (newest === undefined || since?.offset === head.offset) return { head, publications: [], complete: true };
    const oldest = internal ? 0 : this.#options.clock.now() - rule.historySeconds * 1_000;
    const lowest = internal ? 1 : Math.max(1, head.offset - rule.historySize + 1);
    const isKept: Wanted = ({ offset, at }) => offset >= lowest && at > oldest;
    if (since === undefined) return this.#readNewest(channel, newest, isKept, query);
    return this.#readSince(channel, newest, isKept, { ...query, since });
  }

  /** The publication as subscribers get it; undefined when its data are gone. */
  async publication(channel: string, { offset, at, sender, data }: Entry): Promise<Publication | undefined> {
    const text = typeof data === 'string' ? data : await getLarge(data, this.#options);
    if (text === undefined) return undefined;
    return new Publication({ channel, offset, epoch: this.#options.client.epoch, data: text, at, ...sender });
  }

  async #readSince(
    channel: string,
    newest: Entry,
    isKept: Wanted,
    query: HistoryQuery & { readonly since: Position },
  ): Promise<HistoryPage> {
    const { since, limit, bytesMax = pageBytesMax } = query;
    const head = { epoch: since.epoch, offset: newest.offset };
    const first = await this.#first(channel, newest, (entry) => entry.offset > since.offset && isKept(entry));
    if (first === undefined) return { head, publications: [], complete: false, gap: 'trimmed' };
    const entries: Entry[] = [];
    let [bytes, count, from] = [0, firstPiece, first.seq];
    while (entries.length < limit && bytes <= bytesMax && from <= newest.seq) {
      const piece = await this.#piece(channel, from, Math.min(count, limit - entries.length), newest);
      if (piece.length === 0) break;
      for (const entry of piece) bytes += lengthOf(entry);
      entries.push(...piece);
      from = (piece.at(-1)?.seq ?? newest.seq) + 1;
      count = Math.min(pieceMax, count * 4);
    }
    const publications = await this.#publications(channel, shortened(entries, bytesMax));
    const begins = publications[0]?.offset === since.offset + 1;
    const complete = begins && publications.at(-1)?.offset === head.offset;
    return boundPage({ head, publications, complete, ...(begins ? {} : { gap: 'trimmed' as const }) }, query);
  }

  async #readNewest(channel: string, newest: Entry, isKept: Wanted, query: HistoryQuery): Promise<HistoryPage> {
    const { limit, bytesMax = pageBytesMax } = query;
    const head = { epoch: this.#options.client.epoch, offset: newest.offset };
    let entries: Entry[] = [];
    let [bytes, count, isAll] = [0, firstPiece, false];
    // One more than asked tells whether there is more.
    while (!isAll && entries.length <= limit && bytes <= bytesMax) {
      const end = (entries[0]?.offset ?? newest.offset + 1) - 1;
      const from = Math.max(1, end - Math.min(count, limit + 1 - entries.length) + 1);
      const first = await this.#first(channel, newest, (entry) => entry.offset >= from && isKept(entry));
      if (first === undefined || first.offset > end) break;
      const piece = await this.#piece(channel, first.seq, end - first.offset + 1, newest);
      for (const entry of piece) bytes += lengthOf(entry);
      entries = [...piece, ...entries];
      isAll = first.offset > from || from === 1;
      count = Math.min(pieceMax, count * 4);
    }
    const found = entries.length <= limit ? entries : entries.slice(-limit);
    const small = shortened(found.toReversed(), bytesMax).toReversed();
    const publications = await this.#publications(channel, small);
    // The entry before the page's first is either not kept, or was not asked for.
    const complete = publications.length === entries.length && bytes <= bytesMax;
    return boundPage({ head, publications, complete }, query);
  }

  /** What follows the last one whose data are gone. */
  async #publications(channel: string, entries: readonly Entry[]): Promise<Publication[]> {
    const found = await Promise.all(entries.map((entry) => this.publication(channel, entry)));
    const publications: Publication[] = [];
    for (const publication of found) {
      if (publication === undefined) publications.length = 0;
      else publications.push(publication);
    }
    return publications;
  }

  /** The oldest entry that is wanted. Of two entries the later one is wanted if the earlier one is. */
  async #first(channel: string, newest: Entry, isWanted: Wanted): Promise<Entry | undefined> {
    if (!isWanted(newest)) return undefined;
    let best = newest;
    let low = (await this.#next(channel, 1))?.seq ?? newest.seq;
    for (let high = newest.seq - 1, middle = low; low <= high; middle = Math.floor((low + high) / 2)) {
      const entry = await this.#next(channel, middle);
      if (entry === undefined || entry.seq >= best.seq) high = middle - 1;
      else if (isWanted(entry)) [best, high] = [entry, middle - 1];
      else low = entry.seq + 1;
    }
    return best;
  }

  #newest(channel: string): Promise<Entry | undefined> {
    return this.#stored({ last_by_subj: this.#options.names.log(channel) });
  }

  #next(channel: string, seq: number): Promise<Entry | undefined> {
    return this.#stored({ seq, next_by_subj: this.#options.names.log(channel) });
  }

  async #stored(query: { last_by_subj: string } | { seq: number; next_by_subj: string }): Promise<Entry | undefined> {
    const { client, names } = this.#options;
    if (!client.up) throw new RealtimeError('unavailable');
    // The leader answers all that the stream's API is asked, in one queue, which a crowd of subscribers would fill.
    const { direct, streams } = client.manager;
    const found = await this.#reads.pass(() => (client.isSingle ? direct : streams).getMessage(names.logStream, query));
    return found === null ? undefined : entryOf(found);
  }

  /** The entry, if it is this channel's and the rule keeps it. */
  async #kept(channel: string, rule: ChannelRule, seq: number): Promise<Entry | undefined> {
    const [found, newest] = await Promise.all([this.#next(channel, seq), this.#newest(channel)]);
    if (found?.seq !== seq || newest === undefined) return undefined;
    const isYoung = this.#options.clock.now() - found.at <= rule.historySeconds * 1_000;
    return isYoung && found.offset > newest.offset - rule.historySize ? found : undefined;
  }

  /** Up to so many entries from there on, without a hole, up to the newest. */
  async #piece(channel: string, seq: number, count: number, newest: Entry): Promise<Entry[]> {
    const { client, names } = this.#options;
    const entries: Entry[] = [];
    try {
      const query = { seq, next_by_subj: names.log(channel), batch: count };
      const found = await client.manager.direct.getBatch(names.logStream, query);
      for await (const message of found) {
        const entry = entryOf(message);
        const before = entries.at(-1);
        if (entry.seq > newest.seq || (before !== undefined && entry.offset !== before.offset + 1)) break;
        entries.push(entry);
      }
    } catch (error) {
      // A replica that is behind may have nothing yet.
      if (!(error instanceof JetStreamError || error instanceof JetStreamApiError)) throw error;
    }
    return entries;
  }
}

function entryOf(message: StoredMsg): Entry {
  return readEntry({ seq: message.seq, headers: message.header, body: message.string() });
}

/** So many as the page takes, and at least one: the data of the rest need not be fetched. */
function shortened(entries: readonly Entry[], bytesMax: number): readonly Entry[] {
  let bytes = 0;
  const end = entries.findIndex((entry, index) => (bytes += lengthOf(entry)) > bytesMax && index > 0);
  return end === -1 ? entries : entries.slice(0, end);
}

function digest(text: string): string {
  return new Bun.CryptoHasher('sha256').update(text).digest('base64url');
}
