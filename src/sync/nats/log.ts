// The logs of channels in a stream that counts: the server gives each message of a subject the next number, in the
// order in which it stores them.
//
//   append    one message. An idempotency key is the message's id, which the server remembers
//   head      the newest message of the subject, from the stream's leader: replicas may be behind
//   read      a stretch of a subject. Its messages lie anywhere in the stream: `stretch.ts` finds its beginning

import { Publication } from '../../core/publication.ts';
import {
  pageBytesMax,
  type Appended,
  type HistoryPage,
  type HistoryQuery,
  type Outgoing,
} from '../../core/sync-adapter.ts';
import type { Position } from '../../protocol/position.ts';
import type { ChannelRule } from '../../rules/rules.ts';
import { boundPage } from '../bound-page.ts';
import { answerTimeoutMs } from './connection.ts';
import { NatsRefusal, type StreamError } from './failure.ts';
import { getLarge, headerBytesMax, putLarge, type LargeDataOptions } from './large-data.ts';
import { countIn, entryHeaders, lengthOf, type Entry } from './message.ts';
import { NatsReads } from './reads.ts';
import { readFromGoal, type Goal, type Known } from './stretch.ts';

interface Ack {
  readonly seq: number;
  readonly val?: string;
  readonly duplicate?: boolean;
  readonly error?: StreamError;
}

interface Bounds {
  /** Entries at most. */
  readonly limit: number;
  readonly bytesMax: number;
}

/** Where a channel's entries lie. */
interface Range {
  readonly newest: Entry;
  readonly known: () => Promise<Known>;
}

/** Another publication with the same key is being stored. */
const keyUnderWay = 10_158;
const firstPiece = 32;
const pieceMax = 512;

export class NatsLog {
  readonly #options: LargeDataOptions;
  readonly #reads: NatsReads;

  constructor(options: LargeDataOptions) {
    this.#options = options;
    this.#reads = new NatsReads(options);
  }

  close(): void {
    this.#reads.close();
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
    const newest = await this.#reads.newest(channel);
    return { epoch: this.#options.client.epoch, offset: newest?.offset ?? 0 };
  }

  async read(channel: string, rule: ChannelRule, query: HistoryQuery, internal: boolean): Promise<HistoryPage> {
    // The oldest one only says where others may lie. What a crowd has read is found without it.
    const oldest = query.since !== undefined && this.#reads.hasCrowd ? undefined : this.#reads.next(channel, 1);
    oldest?.catch(() => undefined);
    const newest = await this.#reads.newest(channel);
    const head = { epoch: this.#options.client.epoch, offset: newest?.offset ?? 0 };
    const { since } = query;
    if (since !== undefined && (since.epoch !== head.epoch || since.offset > head.offset)) {
      return { head, publications: [], complete: false, gap: 'epoch_changed' };
    }
    if (newest === undefined || since?.offset === head.offset) return { head, publications: [], complete: true };
    const kept: Goal = internal
      ? { offset: 1, after: 0 }
      : {
          offset: Math.max(1, head.offset - rule.historySize + 1),
          after: this.#options.clock.now() - rule.historySeconds * 1_000,
        };
    const range: Range = {
      newest,
      known: async () => ({ oldest: (await (oldest ?? this.#reads.next(channel, 1))) ?? newest, newest }),
    };
    if (since === undefined) return this.#readNewest(channel, range, kept, query);
    return this.#readSince(channel, range, kept, { ...query, since });
  }

  /** The publication as subscribers get it; undefined when its data are gone. */
  async publication(channel: string, entry: Entry): Promise<Publication | undefined> {
    const { data } = entry;
    const text = typeof data === 'string' ? data : await getLarge(data, this.#options.names, this.#reads);
    return text === undefined ? undefined : this.#publicationOf(channel, entry, text);
  }

  #publicationOf(channel: string, { offset, at, sender }: Entry, data: string): Publication {
    return new Publication({ channel, offset, epoch: this.#options.client.epoch, data, at, ...sender });
  }

  async #readSince(
    channel: string,
    { newest, known }: Range,
    kept: Goal,
    query: HistoryQuery & { readonly since: Position },
  ): Promise<HistoryPage> {
    const { since, limit, bytesMax = pageBytesMax } = query;
    const head = { epoch: since.epoch, offset: newest.offset };
    const goal = { ...kept, offset: Math.max(kept.offset, since.offset + 1) };
    const swept = await this.#reads.swept(channel, goal, { count: limit, bytesMax, newest });
    const entries = swept?.slice() ?? (await this.#begin(channel, goal, await known(), { limit, bytesMax }));
    if (entries.length === 0) return { head, publications: [], complete: false, gap: 'trimmed' };
    await this.#goOn(channel, entries, { newest, limit, bytesMax });
    const publications = await this.#publications(channel, shortened(entries, bytesMax));
    const begins = publications[0]?.offset === since.offset + 1;
    const complete = begins && publications.at(-1)?.offset === head.offset;
    return boundPage({ head, publications, complete, ...(begins ? {} : { gap: 'trimmed' as const }) }, query);
  }

  async #readNewest(channel: string, range: Range, kept: Goal, query: HistoryQuery): Promise<HistoryPage> {
    const { limit, bytesMax = pageBytesMax } = query;
    const { newest } = range;
    const known = await range.known();
    const head = { epoch: this.#options.client.epoch, offset: newest.offset };
    let entries: readonly Entry[] = [];
    let [bytes, count, isAll, isWhole] = [0, firstPiece, false, true];
    // One more than asked tells whether there is more.
    while (!isAll && entries.length <= limit && bytes <= bytesMax) {
      const end = (entries[0]?.offset ?? newest.offset + 1) - 1;
      const from = Math.max(kept.offset, end - Math.min(count, limit + 1 - entries.length) + 1);
      const bounds = { limit: end - from + 1, bytesMax };
      const begun = await this.#begin(channel, { ...kept, offset: from }, known, bounds);
      const piece = begun.filter(({ offset }) => offset <= end);
      const [first] = piece;
      if (first === undefined) break;
      await this.#goOn(channel, piece, { newest, limit: end - first.offset + 1, bytesMax: Infinity });
      isWhole = piece.at(-1)?.offset === end;
      if (!isWhole) break;
      for (const entry of piece) bytes += lengthOf(entry);
      entries = [...piece, ...entries];
      isAll = first.offset > from || from === kept.offset;
      count = Math.min(pieceMax, count * 4);
    }
    const found = entries.length <= limit ? entries : entries.slice(-limit);
    const small = shortened(found.toReversed(), bytesMax).toReversed();
    const publications = await this.#publications(channel, small);
    // The entry before the page's first is either not kept, or was not asked for.
    const complete = isWhole && publications.length === entries.length && bytes <= bytesMax;
    return boundPage({ head, publications, complete }, query);
  }

  /** The first piece of a stretch; empty when nothing of it is left. */
  async #begin(channel: string, goal: Goal, known: Known, { limit, bytesMax }: Bounds): Promise<Entry[]> {
    const { newest } = known;
    const left = newest.offset - goal.offset + 1;
    const piece = await readFromGoal(goal, known, (seq, more) => {
      const count = Math.min(pieceMax, Math.min(limit, left) + more);
      return this.#reads.piece(channel, seq, { count, bytesMax, newest });
    });
    return piece.slice(0, limit);
  }

  /** Adds the rest of a stretch to its first piece. */
  async #goOn(
    channel: string,
    entries: Entry[],
    { newest, limit, bytesMax }: Bounds & { newest: Entry },
  ): Promise<void> {
    let bytes = 0;
    for (const entry of entries) bytes += lengthOf(entry);
    for (let last = entries.at(-1); last !== undefined && last.seq < newest.seq; last = entries.at(-1)) {
      if (entries.length >= limit || bytes > bytesMax) return;
      const count = Math.min(pieceMax, limit - entries.length);
      const piece = await this.#reads.piece(channel, last.seq + 1, { count, bytesMax: pageBytesMax, newest });
      if (piece[0]?.offset !== last.offset + 1) return;
      for (const entry of piece) bytes += lengthOf(entry);
      entries.push(...piece);
    }
  }

  /** What follows the last one whose data are gone. */
  async #publications(channel: string, entries: readonly Entry[]): Promise<Publication[]> {
    if (entries.every(isSmall)) return entries.map((entry) => this.#publicationOf(channel, entry, entry.data));
    const found = await Promise.all(entries.map((entry) => this.publication(channel, entry)));
    const publications: Publication[] = [];
    for (const publication of found) {
      if (publication === undefined) publications.length = 0;
      else publications.push(publication);
    }
    return publications;
  }

  /** The entry, if it is this channel's and the rule keeps it. */
  async #kept(channel: string, rule: ChannelRule, seq: number): Promise<Entry | undefined> {
    const [found, newest] = await Promise.all([this.#reads.next(channel, seq), this.#reads.newest(channel)]);
    if (found?.seq !== seq || newest === undefined) return undefined;
    const isYoung = this.#options.clock.now() - found.at <= rule.historySeconds * 1_000;
    return isYoung && found.offset > newest.offset - rule.historySize ? found : undefined;
  }
}

function isSmall(entry: Entry): entry is Entry & { readonly data: string } {
  return typeof entry.data === 'string';
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
