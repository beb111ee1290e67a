// The node's LISTEN connection: hears of new publications in the log and of ephemeral ones from other nodes.
//
//   1. the names to listen to are secret, since every role that may connect may listen: `start` gets them
//   2. one direct connection of its own listens; after each loss the driver reconnects and listens again
//   3. each connect and reconnect is reported, since notifications in between are lost
//   4. every few seconds a canary is sent through the pool and must come back on this very session
//   5. none for too long: the socket is half open or the session deaf, and another takes its place

import type { Clock } from '../../time/clock.ts';
import { isPassingFailure, patiently } from '../../time/patiently.ts';
import { within } from '../../time/within.ts';
import { textArray, type Database } from '../../database/connect.ts';
import type { BusEvents, LogBus, LogName } from '../log-bus.ts';

export interface ListenerOptions {
  /** A new client of a single direct connection. */
  readonly connect: () => Database;
  /** Sends; may lead through a pooler. */
  readonly sql: Database;
  readonly nodeId: string;
  readonly clock: Clock;
  /** Default: 3,000. */
  readonly canaryEveryMs?: number | undefined;
  /** Silence after which the session is replaced. A deaf one is replaced within 12 s. Default: 8,000. */
  readonly deafAfterMs?: number | undefined;
}

interface Unsent {
  readonly payloads: readonly string[];
  readonly characters: number;
  /** Monotonic milliseconds after which it is rejected instead of sent. */
  readonly lateAt: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

const unsentMax = 10_000;
const unsentCharactersMax = 32 << 20;
const sentAtOnceMax = 200;
const lateAfterMs = 1_000;

const canaryMark = 'canary';

export class PostgresListener implements LogBus {
  readonly #options: ListenerOptions;
  readonly #events: BusEvents;
  #client: Database | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #topic = '';
  #heardAt: number;
  #canaries = 0;
  readonly #expected = new Map<number, () => void>();
  readonly #unsent: Unsent[] = [];
  #unsentCharacters = 0;
  #sending = false;
  /** The one under way, or the next one. */
  #logNotice: string | undefined;
  #up = false;
  #closed = false;

  constructor(options: ListenerOptions, events: BusEvents) {
    this.#options = options;
    this.#events = events;
    this.#heardAt = options.clock.monotonic();
  }

  get up(): boolean {
    return this.#up;
  }

  /** Rejects when the database cannot be reached, after a while if that may pass. */
  async start({ topic }: LogName): Promise<void> {
    this.#topic = topic;
    const open = (): Promise<void> =>
      this.#open().catch(async (error: unknown) => {
        await this.#client?.end({ timeout: 1 });
        throw error;
      });
    const { clock } = this.#options;
    await patiently(open, { mayPass: isPassingFailure, waiting: (error) => this.#events.lost(error), clock });
    const every = this.#options.canaryEveryMs ?? 3_000;
    this.#timer = setInterval(() => this.#beat(), every);
  }

  /** Another database behind the same address has another topic. Without effect if it is the same. */
  follow({ topic }: LogName): void {
    if (this.#topic === topic || this.#closed) return;
    this.#topic = topic;
    this.#rebuild();
  }

  get #nodesTopic(): string {
    return `${this.#topic}_nodes`;
  }

  /**
   * Sends an envelope to all other nodes, after those before it, in as many parts as its size needs, all of them or
   * none. Envelopes that gather while others are under way go together. One that waited for a second is rejected.
   */
  send(envelope: string): Promise<void> {
    const { nodeId, clock } = this.#options;
    if (this.#unsent.length >= unsentMax || this.#unsentCharacters + envelope.length > unsentCharactersMax) {
      throw new Error('too much waits to be sent to the other nodes');
    }
    const parts = split(envelope);
    const id = `${nodeId}.${++this.#canaries}`;
    const payloads = parts.map((part, index) => `${id} ${index} ${parts.length} ${part}`);
    this.#unsentCharacters += envelope.length;
    return new Promise((resolve, reject) => {
      const lateAt = clock.monotonic() + lateAfterMs;
      this.#unsent.push({ payloads, characters: envelope.length, lateAt, resolve, reject });
      if (!this.#sending) void this.#sendAll();
    });
  }

  async #sendAll(): Promise<void> {
    const { sql, clock } = this.#options;
    this.#sending = true;
    // What the same tick sends goes into the first batch.
    await Promise.resolve();
    while (this.#unsent.length > 0) {
      const taken = this.#unsent.splice(0, sentAtOnceMax);
      for (const { characters } of taken) this.#unsentCharacters -= characters;
      const now = clock.monotonic();
      const late = taken.filter(({ lateAt }) => now > lateAt);
      for (const { reject } of late) reject(new Error('it could not be sent in time'));
      const batch = taken.filter(({ lateAt }) => now <= lateAt);
      if (batch.length === 0) continue;
      const payloads = textArray(batch.flatMap((unsent) => unsent.payloads));
      try {
        await sql`SELECT pg_notify(${this.#nodesTopic}, payload) FROM unnest(${payloads}::text[]) AS payload`;
        for (const { resolve } of batch) resolve();
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#sending = false;
  }

  /**
   * Tells all nodes how far the log reaches, as the database itself does at a commit that is not quiet. Of several calls
   * in a row the last one counts. What fails is not repeated: every node looks at the log by itself.
   */
  notifyLog(notice: string): void {
    const isUnderWay = this.#logNotice !== undefined;
    this.#logNotice = notice;
    if (!isUnderWay) void this.#notifyLog();
  }

  async #notifyLog(): Promise<void> {
    const { sql } = this.#options;
    for (let told: string | undefined; told !== this.#logNotice;) {
      told = this.#logNotice;
      try {
        await sql`SELECT pg_notify(${`${this.#topic}_log`}, ${told ?? ''})`;
      } catch {
        // The database is away. The listener's own session says so.
      }
    }
    this.#logNotice = undefined;
  }

  /** Resolves when a message sent now came back on the listening session; rejects after `timeoutMs`. */
  async probe(timeoutMs: number): Promise<void> {
    const { sql, nodeId } = this.#options;
    const id = ++this.#canaries;
    const heard = new Promise<void>((resolve) => this.#expected.set(id, resolve));
    try {
      const sent = sql`SELECT pg_notify(${this.#nodesTopic}, ${`${nodeId} ${canaryMark} ${id}`})`.execute();
      await within(Promise.all([heard, sent]), timeoutMs, 'the message');
    } finally {
      this.#expected.delete(id);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#up = false;
    clearInterval(this.#timer);
    await this.#client?.end({ timeout: 1 });
    this.#client = undefined;
  }

  async #open(): Promise<void> {
    const client = this.#options.connect();
    this.#client = client;
    const mine = () => this.#client === client && !this.#closed;
    await client.listen(`${this.#topic}_log`, (payload) => mine() && this.#events.appended(payload));
    await client.listen(
      this.#nodesTopic,
      (payload) => mine() && this.#heard(payload),
      () => mine() && this.#connected(),
    );
  }

  #connected(): void {
    this.#up = true;
    this.#heardAt = this.#options.clock.monotonic();
    this.#events.connected();
  }

  #beat(): void {
    const { clock, canaryEveryMs = 3_000, deafAfterMs = 8_000 } = this.#options;
    this.probe(canaryEveryMs).catch((error: unknown) => {
      if (this.#closed) return;
      const silentMs = clock.monotonic() - this.#heardAt;
      if (silentMs > canaryEveryMs && this.#up) this.#lose(error);
      if (silentMs > deafAfterMs) this.#rebuild();
    });
  }

  #lose(error: unknown): void {
    this.#up = false;
    this.#events.lost(error);
  }

  #rebuild(): void {
    this.#heardAt = this.#options.clock.monotonic();
    const old = this.#client;
    // Not awaited: a half-open socket may take long to end.
    old?.end({ timeout: 1 }).catch((error: unknown) => this.#events.lost(error));
    this.#open().catch((error: unknown) => this.#events.lost(error));
  }

  readonly #parts = new Map<string, string[]>();

  #heard(payload: string): void {
    const [sender = '', ...rest] = payload.split(' ', 3);
    if (rest[0] === canaryMark) {
      if (sender !== this.#options.nodeId) {
        this.#events.peer(sender);
        return;
      }
      this.#heardAt = this.#options.clock.monotonic();
      if (!this.#up) this.#connected();
      this.#expected.get(Number(rest[1]))?.();
      return;
    }
    if (sender.startsWith(`${this.#options.nodeId}.`)) return;
    const [index = 0, count = 1] = rest.map(Number);
    const text = payload.slice(sender.length + rest.join(' ').length + 2);
    const whole = count === 1 ? text : this.#join(sender, index, count, text);
    if (whole !== undefined) this.#events.envelope(whole);
  }

  /**
   * Parts of one envelope are sent by one transaction, so they come in order and without others of that sender between.
   */
  #join(id: string, index: number, count: number, text: string): string | undefined {
    const parts = index === 0 ? [] : this.#parts.get(id);
    if (parts === undefined || parts.length !== index) return undefined;
    parts.push(text);
    if (parts.length < count) {
      this.#parts.set(id, parts);
      // A sender that died halfway leaves parts behind; the oldest go.
      const oldest = this.#parts.keys().next().value;
      if (this.#parts.size > partialEnvelopesMax && oldest !== undefined) this.#parts.delete(oldest);
      return undefined;
    }
    this.#parts.delete(id);
    return parts.join('');
  }
}

const partialEnvelopesMax = 64;
/** A notification carries less than 8,000 bytes; a character may take three of them. */
const partCharactersMax = 2_500;

function split(text: string): string[] {
  const parts: string[] = [];
  for (let at = 0; at < text.length;) {
    let end = Math.min(text.length, at + partCharactersMax);
    // A pair of surrogates is one character of four bytes, and half of it is not a character.
    if (end < text.length && (text.charCodeAt(end - 1) & 0xfc00) === 0xd800) end--;
    parts.push(text.slice(at, end));
    at = end;
  }
  return parts;
}
