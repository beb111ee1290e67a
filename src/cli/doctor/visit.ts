// One visit of the doctor: where to, with which rights, and what most checks do there.

import { createParser, type EventSourceParser } from 'eventsource-parser';
import { Exchange } from './exchange.ts';

export interface VisitOptions {
  readonly url: string;
  readonly apiKey: string | undefined;
  readonly adminKey: string | undefined;
  /** A user's token. */
  readonly token: string | undefined;
}

export interface StreamEvent {
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly id: string | undefined;
  /** When it came, in monotonic milliseconds. */
  readonly at: number;
}

/** The answer of `/realtime/request`. */
export interface SeenRequest {
  readonly node: string;
  readonly version: string;
  readonly at: number;
  readonly peer: { readonly address: string; readonly port: number } | null;
  readonly address: string | null;
  readonly headers: Readonly<Record<string, string>>;
}

const upgradeHeaders = {
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'c29icmFuaWUgZG9jdG9yIQ==',
};

export class Visit {
  readonly options: VisitOptions;
  /** Nobody else's. */
  readonly channel = `doctor:${crypto.randomUUID()}`;

  constructor(options: VisitOptions) {
    this.options = options;
  }

  get url(): string {
    return this.options.url;
  }

  /** A query that opens one connection to the channel: with the user's token, a ticket, or nothing. */
  async access(): Promise<string> {
    const { token, apiKey } = this.options;
    if (token !== undefined) return `&token=${encodeURIComponent(token)}`;
    if (apiKey === undefined) return '';
    const rights = { [this.channel]: ['subscribe', 'publish', 'history', 'presence'] };
    const expires = Math.floor(Date.now() / 1_000) + 3_600;
    const body = JSON.stringify({ user: 'sobranie-doctor', channels: rights, expires });
    const { ticket } = await this.post<{ ticket?: string }>('/realtime/ticket', body);
    return ticket === undefined ? '' : `&token=${ticket}`;
  }

  /** Resolves with whether the server took it. */
  async publish(data: unknown): Promise<boolean> {
    const body = JSON.stringify({ channel: this.channel, data });
    return (await this.post<{ channel?: string }>('/realtime/publish', body)).channel !== undefined;
  }

  async post<Answer>(path: string, body: string): Promise<Partial<Answer>> {
    const { apiKey, token } = this.options;
    const bearer = apiKey ?? token;
    const exchange = await Exchange.open(this.url, {
      method: 'POST',
      path,
      body,
      headers: { 'Content-Type': 'application/json', ...authorization(bearer), Connection: 'close' },
    });
    return parsed<Answer>(await exchange.text());
  }

  /** How a request looks at the node; undefined without the operator's right. */
  async seen(headers: Readonly<Record<string, string>> = {}): Promise<SeenRequest | undefined> {
    const all = { ...authorization(this.options.adminKey), ...headers };
    const exchange = await Exchange.open(this.url, { path: '/realtime/request', headers: all });
    const answer = parsed<SeenRequest>(await exchange.text());
    return answer.node === undefined ? undefined : (answer as SeenRequest);
  }

  /** The same several times, all over one connection as long as that lasts. */
  async seenInARow(count: number): Promise<SeenRequest[]> {
    const request = { path: '/realtime/request', headers: authorization(this.options.adminKey) };
    const all: SeenRequest[] = [];
    let after: Exchange | undefined;
    for (let number = 0; number < count; number++) {
      const exchange = await Exchange.open(this.url, { ...request, ...(after === undefined ? {} : { after }) });
      const answer = parsed<SeenRequest>(await exchange.keptText());
      if (answer.node !== undefined) all.push(answer as SeenRequest);
      const isKept = exchange.version === '1.1' && exchange.headers.get('connection')?.toLowerCase() !== 'close';
      if (!isKept) exchange.close();
      after = isKept ? exchange : undefined;
    }
    after?.close();
    return all;
  }

  /** The answer to a WebSocket's handshake. Close it. */
  async handshake(headers: Readonly<Record<string, string>> = {}): Promise<Exchange> {
    const path = `/realtime/ws?x=1${await this.access()}`;
    return Exchange.open(this.url, { path, headers: { ...upgradeHeaders, ...headers } });
  }

  async socket(): Promise<SocketWatch> {
    const url = this.url.replace(/^http/, 'ws');
    return new SocketWatch(`${url}/realtime/ws?channels=${this.channel}${await this.access()}`);
  }

  async stream(headers: Readonly<Record<string, string>> = {}, timeoutMs?: number): Promise<StreamWatch> {
    const path = `/realtime/events?channels=${this.channel}${await this.access()}`;
    const all = { Accept: 'text/event-stream', 'Accept-Encoding': 'identity', ...headers };
    const exchange = await Exchange.open(this.url, {
      path,
      headers: all,
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
    return new StreamWatch(exchange);
  }
}

function authorization(bearer: string | undefined): Record<string, string> {
  return bearer === undefined ? {} : { Authorization: `Bearer ${bearer}` };
}

function parsed<Answer>(text: string): Partial<Answer> {
  try {
    return JSON.parse(text) as Partial<Answer>;
  } catch {
    // A gateway's own page.
    return {};
  }
}

/** What came and who waits for it. */
class Arrivals {
  readonly #all: StreamEvent[] = [];
  #changed = Promise.withResolvers<void>();
  #isOver = false;

  push(event: StreamEvent): void {
    this.#all.push(event);
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  /** Nothing more will come. */
  end(): void {
    this.#isOver = true;
    this.#changed.resolve();
  }

  /** The first that fits, now or within this time. */
  async find(fits: (event: StreamEvent) => boolean, timeoutMs: number): Promise<StreamEvent | undefined> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const found = this.#all.find(fits);
      const left = deadline - performance.now();
      if (found !== undefined || left <= 0 || this.#isOver) return found;
      await Promise.race([this.#changed.promise, Bun.sleep(left)]);
    }
  }

  get all(): readonly StreamEvent[] {
    return this.#all;
  }
}

/** An event stream, and when what came on it. */
export class StreamWatch {
  readonly exchange: Exchange;
  readonly events = new Arrivals();
  readonly openedAt = performance.now();
  endedAt: number | undefined;
  readonly #parser: EventSourceParser;
  readonly #decoder = new TextDecoder();

  constructor(exchange: Exchange) {
    this.exchange = exchange;
    this.#parser = createParser({
      onEvent: ({ event = 'message', data, id }) => {
        this.events.push({ type: event, data: parsed<Record<string, unknown>>(data), id, at: performance.now() });
      },
    });
    if (!exchange.headers.has('content-encoding')) exchange.onBody((chunk) => this.feed(chunk));
    void exchange.ended.then(() => {
      this.endedAt ??= performance.now();
      this.events.end();
    });
  }

  /** For a body that was compressed on the way. */
  feed(chunk: Uint8Array): void {
    this.#parser.feed(this.#decoder.decode(chunk, { stream: true }));
  }

  get lastEventId(): string | undefined {
    return this.events.all.findLast(({ id }) => id !== undefined)?.id;
  }

  close(): void {
    this.endedAt ??= performance.now();
    this.exchange.close();
  }
}

/** A WebSocket, and when what came on it. */
export class SocketWatch {
  readonly events = new Arrivals();
  readonly openedAt = performance.now();
  endedAt: number | undefined;
  closing: { readonly code: number; readonly reason: string } | undefined;
  readonly #socket: WebSocket;

  constructor(url: string) {
    this.#socket = new WebSocket(url);
    this.#socket.addEventListener('message', ({ data }) => {
      const frame = parsed<Record<string, unknown>>(String(data));
      this.events.push({ type: String(frame['type']), data: frame, id: undefined, at: performance.now() });
    });
    this.#socket.addEventListener('close', ({ code, reason }) => {
      this.closing = { code, reason };
      this.endedAt ??= performance.now();
      this.events.end();
    });
  }

  close(): void {
    this.endedAt ??= performance.now();
    this.#socket.close();
  }
}
