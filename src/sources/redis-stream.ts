// A Redis stream as a source. It is read with XREAD from the mark on, so Redis keeps nothing of this reader: one node
// reads it at a time, in the stream's order, and the mark says how far.
//
// A mark is `<id> <read>`: the last entry, and how many had ever been added to the stream by then, as far as is known.

import { openRedis, type OpenRedis } from '../redis/client.ts';
import type { RedisTarget } from '../redis/target.ts';
import type { RedisStreamSource } from '../rules/source-config.ts';
import { systemClock } from '../time/clock.ts';
import {
  batchMax,
  begun,
  onePartition,
  type Batch,
  type BrokerParts,
  type RawMessage,
  type SourceBroker,
  type SourceReader,
} from './source.ts';

type Client = OpenRedis['client'];
type Entry = readonly [id: Buffer, fields: readonly Buffer[] | null];

/** Below the driver's own limit for an answer. */
const blockMs = 500;
const nothing = '0-0';

/** What XINFO STREAM tells; Redis 6 leaves some of it out. */
interface Facts {
  readonly length: number;
  readonly last: string;
  readonly added: number | undefined;
  /** The newest entry that was trimmed or deleted. */
  readonly deleted: string | undefined;
}

export function redisStreamBroker(options: RedisStreamSource, target: RedisTarget, parts: BrokerParts): SourceBroker {
  return {
    ...onePartition,
    async open(_partition, mark) {
      const { client } = await openRedis({ target, clock: systemClock });
      return begun(new RedisStreamReader(client, options, parts), (reader) => reader.begin(mark));
    },
  };
}

class RedisStreamReader implements SourceReader {
  readonly #client: Client;
  readonly #options: RedisStreamSource;
  readonly #parts: BrokerParts;
  #id = nothing;
  /** Entries that had been added up to there. */
  #read = 0;
  #isRefused = false;
  #closed = false;
  begins: string | undefined;

  constructor(client: Client, options: RedisStreamSource, parts: BrokerParts) {
    this.#client = client;
    this.#options = options;
    this.#parts = parts;
  }

  async begin(mark: string | undefined): Promise<void> {
    const { key, from, group } = this.#options;
    const facts = await this.#facts();
    if (mark === undefined) {
      const { last = nothing, length = 0, added = length } = facts ?? {};
      this.#id = from === 'end' ? last : nothing;
      this.#read = from === 'end' ? added : added - length;
      this.begins = this.#mark;
    } else {
      const [id = nothing, read = '0'] = mark.split(' ');
      this.#id = id;
      this.#read = Number(read);
      if (facts !== undefined && compare(facts.last, id) < 0) {
        // A replica that lacked the newest ones, say. What is there was read before, and what comes gets ids behind it.
        this.#parts.warn('the Redis stream ends before what was read of it: it is read on from its present end');
        this.#id = facts.last;
        this.#read = facts.added ?? facts.length;
        this.begins = this.#mark;
      } else this.#noticeLoss(facts);
    }
    if (group !== undefined) {
      await this.#client.xgroup('CREATE', key, group, this.#id, 'MKSTREAM').catch((error: unknown) => {
        if (!(error instanceof Error && error.message.startsWith('BUSYGROUP'))) throw error;
      });
    }
  }

  async next(): Promise<Batch> {
    const { key } = this.#options;
    while (!this.#closed) {
      const answer = (await this.#client.xreadBuffer('COUNT', batchMax, 'BLOCK', blockMs, 'STREAMS', key, this.#id)) as
        readonly (readonly [key: Buffer, entries: readonly Entry[]])[] | null;
      const entries = answer?.[0]?.[1] ?? [];
      const last = entries.at(-1);
      if (last === undefined) continue;
      this.#id = last[0].toString();
      this.#read += entries.length;
      return { messages: entries.map((entry) => messageOf(this.#options, entry)), repeated: 0, mark: this.#mark };
    }
    throw new Error('the reader of the Redis stream is closed');
  }

  async commit(): Promise<void> {
    const { key, group } = this.#options;
    if (group === undefined) return;
    try {
      await this.#client.xgroup('SETID', key, group, this.#id);
    } catch (error) {
      // Nothing rests on it: somebody has deleted the group, say. A Redis that is lost is noticed where it is read.
      if (!this.#isRefused) this.#parts.warn(`the position of the group cannot be told: ${String(error)}`);
      this.#isRefused = true;
    }
  }

  async lag(): Promise<number | undefined> {
    const id = this.#id;
    const facts = await this.#facts();
    if (facts === undefined) return 0;
    if (facts.last !== id) return Math.max(0, Math.min(facts.length, (facts.added ?? Infinity) - this.#read));
    // At the end: entries that were trimmed are in no count of ours.
    if (this.#id === id) this.#read = facts.added ?? this.#read;
    return 0;
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#client.disconnect();
    return Promise.resolve();
  }

  get #mark(): string {
    return `${this.#id} ${this.#read}`;
  }

  #noticeLoss(facts: Facts | undefined): void {
    if (facts?.deleted === undefined || compare(facts.deleted, this.#id) <= 0) return;
    this.#parts.warn('entries of the Redis stream were trimmed or deleted before they were read: they are lost');
  }

  /** Undefined where there is no such stream. */
  async #facts(): Promise<Facts | undefined> {
    let answer: unknown;
    try {
      answer = await this.#client.xinfo('STREAM', this.#options.key);
    } catch (error) {
      if (error instanceof Error && error.message.includes('no such key')) return undefined;
      throw error;
    }
    const fields = fieldsOf(answer);
    const number = (name: string): number | undefined => {
      const value = fields.get(name);
      return value === undefined ? undefined : Number(value);
    };
    const text = (name: string): string | undefined => {
      const value = fields.get(name);
      return typeof value === 'string' ? value : undefined;
    };
    return {
      length: number('length') ?? 0,
      last: text('last-generated-id') ?? nothing,
      added: number('entries-added'),
      deleted: text('max-deleted-entry-id'),
    };
  }
}

/** Of a list of names and values, or of an object of them. */
function fieldsOf(answer: unknown): ReadonlyMap<string, unknown> {
  if (!Array.isArray(answer)) return new Map(Object.entries(answer ?? {}));
  const list: readonly unknown[] = answer;
  return new Map(list.flatMap((name, place) => (place % 2 === 0 ? [[String(name), list[place + 1]] as const] : [])));
}

function messageOf({ key, field }: RedisStreamSource, [id, fields]: Entry): RawMessage {
  const all = fields ?? [];
  const headers: Record<string, string> = {};
  let body: Buffer | undefined;
  for (let place = 0; place + 1 < all.length; place += 2) {
    const name = all[place]?.toString() ?? '';
    headers[name] = all[place + 1]?.toString() ?? '';
    if (name === field) body = all[place + 1];
  }
  const position = id.toString();
  const at = Number(position.split('-')[0]);
  // Without its field the body is empty, which is no JSON.
  return {
    topic: key,
    key: null,
    headers,
    body: field === undefined ? JSON.stringify(headers) : (body ?? ''),
    at,
    position,
  };
}

/** Ids are two numbers of up to 64 bits. */
function compare(one: string, other: string): number {
  const [a, b] = [one, other].map((id) => id.split('-').map(BigInt));
  for (const place of [0, 1]) {
    const [left, right] = [a?.[place] ?? 0n, b?.[place] ?? 0n];
    if (left !== right) return left < right ? -1 : 1;
  }
  return 0;
}
