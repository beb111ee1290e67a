// Traffic for tests of faults: publishers over WebSocket and HTTP, writers of rows, readers over WebSocket and event
// streams that resume by their positions. All of them go on through whatever breaks, reconnect to any living node, and
// keep books (account.ts), so that in the end every message is accounted for.
//
//   publishers   give each publication a key and repeat it until it is accepted: it must then arrive exactly once
//   writers      never repeat; what they wrote is read from the table afterwards. Some of it is rolled back
//   readers      subscribe before anything is published, and say `since` on each new connection
//
// Lifecycle: `start`, faults, `finish`, which stops the traffic, waits until all is delivered and checks the books;
// `end` in any case.

import { expect } from 'bun:test';
import postgres from 'postgres';
import type { Position } from '../../src/protocol/position.ts';
import { Sobranie } from '../../packages/client/src/index.ts';
import { Account, type Ledger } from './account.ts';
import { EventClient, Refused, WebSocketClient, type Frame } from './clients.ts';
import { startProxy, type Proxy } from './proxy.ts';
import { pick, randomFrom, type Random } from './random.ts';
import { until, wait } from './tcp-client.ts';

/** A node; what it is depends on who asks, as one that was killed comes back at another address. */
export interface LoadNode {
  readonly url: string;
}

export interface LoadOptions {
  readonly seed: number;
  /** Nodes that live now; asked for each connection. */
  readonly nodes: () => readonly LoadNode[];
  /** Where publishers publish; their names make them recoverable. */
  readonly channels: readonly string[];
  /** Where writers write, past every proxy; none write without it. */
  readonly databaseUrl?: string;
  /** Of each kind. Default: 2 publishers, 2 writers, 2 readers. */
  readonly publishers?: number;
  readonly writers?: number;
  readonly readers?: number;
  /** Readers with our own client, each behind a proxy that leads to one node. Default: none. */
  readonly sdkReaders?: number;
  /** Of one publisher or writer, on average. Default: 20. */
  readonly pauseMs?: number;
  /** An answer that takes longer is a fault. Default: 10,000. */
  readonly answerTimeoutMs?: number;
}

export interface FinishOptions {
  /** How long what is on its way may take. Default: 20,000. */
  readonly timeoutMs?: number;
  /** Gaps are a failure unless they are allowed. */
  readonly gaps?: 'none' | 'allowed';
}

let loads = 0;
/** Longer than the second that a node has to say `unavailable`, as the machine is shared. */
const answerTimeoutDefaultMs = 10_000;

export class Load {
  readonly account = new Account();
  /** Of the publications that were answered, the longest time that it took. */
  slowestAnswerMs = 0;
  /** Publications that were answered with `unavailable`. */
  unavailable = 0;
  /** Of the transactions that were committed. */
  slowestWriteMs = 0;
  /** Reading ended and went on elsewhere so often. */
  moves = 0;
  readonly #options: LoadOptions;
  /** Ids of several loads on one database differ. */
  readonly #name = `${++loads}`;
  readonly #rooms = [`${this.#name}a`, `${this.#name}b`] as const;
  readonly #random: Random;
  readonly #readers: Reader[] = [];
  readonly #lives: Promise<void>[] = [];
  readonly #publishing: Promise<void>[] = [];
  readonly #clients = new Set<{ cut(): unknown }>();
  #table: postgres.Sql | undefined;
  readonly #closers: (() => unknown)[] = [];
  readonly #answerTimeoutMs: number;
  readonly #on = { writing: true, reading: true };

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#answerTimeoutMs = options.answerTimeoutMs ?? answerTimeoutDefaultMs;
    this.#random = randomFrom(options.seed);
  }

  async start(): Promise<void> {
    const { publishers = 2, writers = 2, readers = 2, sdkReaders = 0, databaseUrl, channels } = this.#options;
    if (databaseUrl !== undefined) await this.#createTable(databaseUrl);
    const read = databaseUrl === undefined ? channels : [...channels, ...this.#rooms.map((room) => `rows:${room}`)];
    for (let index = 0; index < readers; index++) {
      this.#readers.push(this.#socketReader(`socket ${index}`, read), this.#eventReader(`stream ${index}`, read));
    }
    for (let index = 0; index < sdkReaders; index++) this.#readers.push(this.#sdkReader(`client ${index}`, read));
    for (const reader of this.#readers) this.#lives.push(this.#keepReading(reader));
    await until(
      () => this.account.ledgers.every(({ positions }) => positions.size === read.length),
      () => `all readers subscribed; faults: ${this.account.wrong().join('; ')}`,
      20_000,
    );
    for (let index = 0; index < publishers; index++) {
      this.#publishing.push(
        this.#publishBySocket(`${this.#name}s${index}`),
        this.#publishByHttp(`${this.#name}h${index}`),
      );
    }
    for (let index = 0; databaseUrl !== undefined && index < writers; index++) {
      this.#publishing.push(this.#writeRows(`${this.#name}w${index}`, databaseUrl));
    }
  }

  /** Resolves when so many more publications were accepted: the load goes on. */
  async flows(count: number, timeoutMs = 20_000): Promise<void> {
    const target = this.account.accepted + count;
    await until(
      () => this.account.accepted >= target,
      () => `${count} publications accepted; only ${count - target + this.account.accepted}`,
      timeoutMs,
    );
  }

  /** Resolves when every reader got so many more. */
  async arrives(count: number, timeoutMs = 20_000): Promise<void> {
    const targets = this.account.ledgers.map((ledger) => ({ ledger, target: ledger.count + count }));
    const late = (): string[] =>
      targets.filter(({ ledger, target }) => ledger.count < target).map(({ ledger }) => ledger.name);
    await until(
      () => late().length === 0,
      () => `${count} messages at ${late().join(', ')}`,
      timeoutMs,
    );
  }

  /** Resolves when every reader got so many more of each channel: publications and rows. */
  async arrivesInAll(count: number, timeoutMs = 20_000): Promise<void> {
    const targets = this.account.ledgers.flatMap((ledger) =>
      [...ledger.positions.keys()].map((channel) => ({ ledger, channel, target: ledger.countOf(channel) + count })),
    );
    const late = (): string[] =>
      targets
        .filter(({ ledger, channel, target }) => ledger.countOf(channel) < target)
        .map(({ ledger, channel }) => `${ledger.name} of ${channel}`);
    await until(
      () => late().length === 0,
      () => `${count} messages at ${late().join(', ')}`,
      timeoutMs,
    );
  }

  /** Cuts a reader's connection; it goes on from its position, at another node if there is one. */
  moveSome(): void {
    pick(this.#readers, this.#random).cut();
  }

  /** Stops the traffic, waits for what is on its way, and fails unless every message is accounted for. */
  async finish({ timeoutMs = 20_000, gaps = 'none' }: FinishOptions = {}): Promise<void> {
    this.#on.writing = false;
    const stopped = wait(Promise.all(this.#publishing), timeoutMs, 'the last publications');
    await stopped.catch((error: unknown) => {
      throw new Error(`${String(error)}; ${this.account.wrong().slice(0, 10).join('\n')}`);
    });
    await this.#countRows();
    await until(
      () => this.account.missing().length === 0,
      () => `everything delivered; ${[...this.account.missing(), ...this.account.wrong()].slice(0, 10).join('\n')}`,
      timeoutMs,
    );
    // What would come twice has come by now: it travels before these.
    await this.#publishLast(timeoutMs);
    expect(this.account.wrong().slice(0, 10)).toEqual([]);
    if (gaps === 'none') expect(this.account.gaps).toEqual([]);
  }

  /** Ends whatever still runs. Idempotent. */
  async end(): Promise<void> {
    this.#on.writing = false;
    this.#on.reading = false;
    for (const client of this.#clients) client.cut();
    await wait(Promise.allSettled([...this.#publishing, ...this.#lives]), 15_000, 'the end of the load');
    for (const close of this.#closers.splice(0)) await close();
    await this.#table?.end({ timeout: 1 });
    this.#table = undefined;
  }

  // Readers

  #socketReader(name: string, channels: readonly string[]): Reader {
    const ledger = this.account.ledger(name);
    const live = async (node: LoadNode): Promise<void> => {
      const subscribe = (channel: string): void =>
        socket.send({ type: 'subscribe', channel, since: ledger.positions.get(channel), id: channel });
      const onText = (text: string): void => {
        const frame = JSON.parse(text) as Frame;
        if (frame.type === 'error' && frame.retryable === true && this.#on.reading) {
          setTimeout(() => subscribe(String(frame.id)), 50 + this.#random() * 100);
        } else takeFrame(ledger, frame);
      };
      const socket = await WebSocketClient.open(node.url, { onText });
      this.#keep(reader, socket);
      for (const channel of channels) subscribe(channel);
      await socket.closed;
      this.#clients.delete(socket);
    };
    const reader: Reader = { live, cut: () => undefined };
    return reader;
  }

  /** Knows nothing but the URL and the last event's id, as browsers do. */
  #eventReader(name: string, channels: readonly string[]): Reader {
    const ledger = this.account.ledger(name);
    let lastEventId: string | undefined;
    const live = async (node: LoadNode): Promise<void> => {
      const stream = await EventClient.open(node.url, {
        query: `channels=${channels.join(',')}`,
        onEvent: (event) => {
          lastEventId = event.lastEventId;
          takeFrame(ledger, event.frame);
        },
        ...(lastEventId === undefined ? {} : { lastEventId }),
      });
      this.#keep(reader, stream);
      await stream.closed;
      this.#clients.delete(stream);
    };
    const reader: Reader = { live, cut: () => undefined };
    return reader;
  }

  /** Our own client: it reconnects by itself, wherever its proxy leads. */
  #sdkReader(name: string, channels: readonly string[]): Reader {
    const ledger = this.account.ledger(name);
    let proxy: Proxy | undefined;
    const live = async (node: LoadNode): Promise<void> => {
      const port = Number(new URL(node.url).port);
      if (proxy === undefined) {
        proxy = await startProxy({ port });
        this.#openSdk(`http://127.0.0.1:${proxy.port}`, ledger, channels);
        this.#closers.push(() => proxy?.close());
      } else {
        proxy.retarget({ port });
        proxy.cut();
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      const turn = { cut: resolve };
      this.#keep(reader, turn);
      await promise;
      this.#clients.delete(turn);
    };
    const reader: Reader = { live, cut: () => undefined };
    return reader;
  }

  #openSdk(url: string, ledger: Ledger, channels: readonly string[]): void {
    const client = new Sobranie(url, { transport: 'websocket', backoffMs: [200, 500, 1_000] });
    this.#closers.push(() => client.close());
    for (const name of channels) {
      const channel = client.channel(name);
      channel.on('subscribed', (state) => ledger.begin(name, { ...state, type: 'subscribed' }));
      channel.on('failed', (error) => ledger.faults.push(`${ledger.name} ${name}: ${error.message}`));
      channel.subscribe((message) => ledger.message(message), { onGap: (gap) => ledger.gap(gap) });
    }
  }

  #keep(reader: Reader, client: { cut(): unknown }): void {
    this.#clients.add(client);
    reader.cut = () => void client.cut();
    if (!this.#on.reading) client.cut();
  }

  async #keepReading(reader: Reader): Promise<void> {
    let before: LoadNode | undefined;
    while (this.#on.reading) {
      const nodes = this.#options.nodes();
      const others = nodes.filter((node) => node !== before);
      before = pick(others.length === 0 ? nodes : others, this.#random);
      try {
        await reader.live(before);
      } catch (error) {
        if (error instanceof Refused && error.status !== 503) this.account.faults.push(error.message);
      }
      this.moves++;
      if (this.#on.reading) await Bun.sleep(this.#random() * 100);
    }
  }

  // Publishers

  async #publishBySocket(name: string): Promise<void> {
    let socket: WebSocketClient | undefined;
    await this.#publishAll(name, async (channel, id) => {
      if (socket === undefined) {
        socket = await WebSocketClient.open(this.#anyNode().url);
        this.#clients.add(socket);
      }
      try {
        return await socket.request({ type: 'publish', channel, data: { id }, key: id }, this.#answerTimeoutMs);
      } catch (error) {
        this.#clients.delete(socket);
        await socket.cut();
        socket = undefined;
        throw error;
      }
    });
    await socket?.cut();
  }

  #publishByHttp(name: string): Promise<void> {
    return this.#publishAll(name, async (channel, id) => {
      const response = await fetch(`${this.#anyNode().url}/realtime/publish`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ channel, data: { id }, key: id }),
        signal: AbortSignal.timeout(this.#answerTimeoutMs),
      });
      const body = (await response.json()) as Frame & { error?: Frame };
      return body.error === undefined ? { ...body, type: 'published' } : { ...body.error, type: 'error' };
    });
  }

  async #publishAll(name: string, publish: (channel: string, id: string) => Promise<Frame>): Promise<void> {
    for (let number = 0; this.#on.writing; number++) {
      const id = `${name}-${number}`;
      const channel = pick(this.#options.channels, this.#random);
      this.account.attempt(id);
      await this.#repeat(channel, id, publish);
      await this.#pause();
    }
  }

  async #repeat(channel: string, id: string, publish: (channel: string, id: string) => Promise<Frame>): Promise<void> {
    while (this.#on.reading) {
      const startedAt = performance.now();
      try {
        const answer = await publish(channel, id);
        this.slowestAnswerMs = Math.max(this.slowestAnswerMs, performance.now() - startedAt);
        if (answer.type === 'published') {
          this.account.accept(id, channel, positionOf(answer));
          return;
        }
        if (answer.code === 'unavailable') this.unavailable++;
        if (answer.retryable !== true) this.account.faults.push(`${id} was answered ${JSON.stringify(answer)}`);
      } catch (error) {
        // A node that dies takes its connections along; one that only says nothing hangs.
        const tookMs = performance.now() - startedAt;
        if (tookMs >= this.#answerTimeoutMs && this.#on.reading) this.account.faults.push(`${id}: ${String(error)}`);
      }
      await Bun.sleep(50 + this.#random() * 100);
    }
  }

  #anyNode(): LoadNode {
    return pick(this.#options.nodes(), this.#random);
  }

  #pause(): Promise<void> {
    return Bun.sleep(this.#random() * 2 * (this.#options.pauseMs ?? 20));
  }

  // Writers

  async #createTable(url: string): Promise<void> {
    const sql = openTable(url);
    this.#table = sql;
    await sql`CREATE TABLE IF NOT EXISTS load_rows (id text PRIMARY KEY, room text NOT NULL, filling text)`;
    await sql`SELECT realtime.watch('load_rows', ARRAY['rows:{room}'])`;
  }

  async #writeRows(name: string, url: string): Promise<void> {
    const sql = openTable(url);
    for (let number = 0; this.#on.writing; number++) {
      const count = this.#random() < 0.2 ? 1 + Math.floor(this.#random() * 10) : 1;
      const filling = 'é'.repeat(this.#random() < 0.05 ? 6_000 : 5);
      const rollsBack = this.#random() < 0.1;
      const rows = Array.from({ length: count }, (_, index) => {
        const id = `${name}-${number}.${index}`;
        return { id, room: pick(this.#rooms, this.#random), filling };
      });
      if (!rollsBack) for (const { id } of rows) this.account.attempt(id);
      const startedAt = performance.now();
      try {
        await sql.begin(async (transaction) => {
          await transaction`INSERT INTO load_rows ${transaction(rows)}`;
          if (rollsBack) throw new RolledBack();
        });
        this.slowestWriteMs = Math.max(this.slowestWriteMs, performance.now() - startedAt);
        for (const { id, room } of rows) this.account.accept(id, `rows:${room}`);
      } catch (error) {
        // The database is away: what became of the commit is read from the table in the end.
        if (!(error instanceof RolledBack)) await Bun.sleep(50);
      }
      await this.#pause();
    }
    await sql.end({ timeout: 1 });
  }

  /** The table says what was committed, also where the answer to the commit was lost. */
  async #countRows(): Promise<void> {
    if (this.#table === undefined) return;
    const rows = await this.#table<{ id: string; room: string }[]>`
      SELECT id, room FROM load_rows WHERE room = ANY (${this.#table.array([...this.#rooms])})`;
    for (const { id, room } of rows) this.account.accept(id, `rows:${room}`);
  }

  async #publishLast(timeoutMs: number): Promise<void> {
    const last = new Map(this.#options.channels.map((channel) => [channel, `last ${this.#name} ${channel}`]));
    for (const [channel, id] of last) {
      this.account.attempt(id);
      await this.#repeat(channel, id, async () => {
        const socket = await WebSocketClient.open(this.#anyNode().url);
        const answer = await socket.request(
          { type: 'publish', channel, data: { id }, key: `last ${this.#name}` },
          this.#answerTimeoutMs,
        );
        await socket.cut();
        return answer;
      });
    }
    const arrived = (): boolean =>
      this.account.ledgers.every((ledger) => [...last].every(([channel, id]) => ledger.has(channel, id)));
    await until(arrived, 'the last message of each channel', timeoutMs);
  }
}

interface Reader {
  /** Reads through one connection to its end. */
  readonly live: (node: LoadNode) => Promise<void>;
  cut: () => void;
}

class RolledBack extends Error {}

function openTable(url: string): postgres.Sql {
  return postgres(url, { max: 1, connect_timeout: 2, backoff: () => 0.05, onnotice: () => undefined });
}

function positionOf({ epoch = '', offset = 0 }: Frame): Position {
  return { epoch, offset };
}

function takeFrame(ledger: Ledger, frame: Frame): void {
  switch (frame.type) {
    case 'welcome':
      for (const channel of frame.channels ?? []) ledger.begin(channel.channel ?? '', channel);
      return;
    case 'subscribed':
      ledger.begin(frame.channel ?? '', frame);
      return;
    case 'gap':
      ledger.gap(frame);
      return;
    case 'message':
      ledger.message(frame);
      return;
    case 'drain':
      return;
    default:
      ledger.faults.push(`${ledger.name}: ${JSON.stringify(frame)}`);
  }
}
