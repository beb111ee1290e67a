// Clients that speak the wire byte by byte, for tests: a WebSocket and an EventSource over bare TCP. They can do what
// proper clients cannot (stop reading, send broken frames, be cut at any byte) and judge what they are sent strictly:
// a masked frame, an unfinished event or a line outside the format is a failure of the server.

import type { Member } from '../../src/protocol/frames.ts';
import { TcpClient, wait } from './tcp-client.ts';

/** A frame of the server, or an event's data: which members are there depends on its type. */
export interface Frame {
  readonly type: string;
  readonly id?: number | string;
  readonly channel?: string;
  readonly epoch?: string;
  readonly offset?: number;
  readonly data?: unknown;
  readonly at?: number;
  readonly from?: { readonly user: string | null; readonly connection: string };
  readonly code?: string;
  readonly message?: string;
  readonly retryable?: boolean;
  readonly reason?: string;
  readonly recoverable?: boolean;
  readonly recovered?: boolean;
  readonly complete?: boolean;
  readonly messages?: readonly Frame[];
  readonly channels?: readonly Frame[];
  readonly connection?: string;
  readonly user?: string | null;
  readonly node?: string;
  readonly heartbeat?: number;
  readonly after?: number;
  readonly deadline?: number;
  readonly direct?: boolean;
  readonly count?: number;
  readonly version?: number;
  readonly member?: Member;
  readonly members?: readonly Member[];
  readonly left?: string;
  readonly rows?: readonly unknown[];
  readonly more?: boolean;
}

/** What was received and not yet looked at, and who waits for what has not come yet. */
export class FrameQueue<T extends { readonly type: string }> {
  readonly #unread: T[] = [];
  readonly #waiters = new Set<{ take(frame: T): boolean; fail(reason: string): void }>();
  #ended: string | undefined;

  push(frame: T): void {
    for (const waiter of this.#waiters) if (waiter.take(frame)) return;
    this.#unread.push(frame);
  }

  /** Nothing more will come: who still waits is told why. */
  end(reason: string): void {
    this.#ended = reason;
    for (const waiter of this.#waiters) waiter.fail(reason);
  }

  /** The first unread frame that fits, now or later; the others stay unread, in order. */
  take(fits: (frame: T) => boolean, what: string, timeoutMs = 5_000): Promise<T> {
    const index = this.#unread.findIndex(fits);
    const found = this.#unread[index];
    if (found !== undefined) {
      this.#unread.splice(index, 1);
      return Promise.resolve(found);
    }
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const others = (): string => this.#unread.map(({ type }) => type).join(' ') || 'nothing';
    const fail = (reason: string): void => {
      this.#waiters.delete(waiter);
      clearTimeout(timer);
      reject(new Error(`no ${what}: ${reason}; unread: ${others()}`));
    };
    const waiter = {
      take: (frame: T): boolean => {
        if (!fits(frame)) return false;
        this.#waiters.delete(waiter);
        clearTimeout(timer);
        resolve(frame);
        return true;
      },
      fail,
    };
    const timer = setTimeout(() => fail(`not within ${timeoutMs} ms`), timeoutMs);
    this.#waiters.add(waiter);
    if (this.#ended !== undefined) fail(this.#ended);
    return promise;
  }

  /** What is unread, which is then read. */
  drain(): T[] {
    return this.#unread.splice(0);
  }
}

/** The answer of a server that did not open what was asked for. */
export class Refused extends Error {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;

  constructor(status: number, headers: ReadonlyMap<string, string>, body: string) {
    super(`refused with ${status}: ${body}`);
    this.status = status;
    this.headers = headers;
    this.body = body;
  }
}

export interface Closing {
  /** 1006 when there was no close frame, 1005 when it held no code. */
  readonly code: number;
  readonly reason: string;
}

export interface WebSocketOptions {
  /** After `/realtime/ws?`. */
  readonly query?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Called with each text instead of keeping it. */
  readonly onText?: (text: string) => void;
  /** The connection breaks after so many bytes of the server, be it in the handshake. */
  readonly cutAfterBytes?: number;
  readonly timeoutMs?: number;
}

export interface RawFrame {
  readonly opcode: number;
  readonly payload?: Uint8Array | string;
  /** False for all but the last piece of a fragmented message. */
  readonly final?: boolean;
  /** Clients must; false breaks the rule. */
  readonly masked?: boolean;
}

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** One WebSocket. Answers pings and close frames as it should, unless its reading is paused. */
export class WebSocketClient {
  readonly #tcp: TcpClient;
  readonly #queue = new FrameQueue<Frame>();
  readonly #onText: ((text: string) => void) | undefined;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true });
  #unparsed: Buffer = Buffer.alloc(0);
  #nextId = 1;
  #closing: Closing = { code: 1006, reason: '' };
  /** Payloads of pings and pongs from the server. */
  readonly pings: string[] = [];
  readonly pongs: string[] = [];
  readonly subprotocol: string | undefined;
  /** Resolves when the connection is gone. */
  readonly closed: Promise<Closing>;

  private constructor(tcp: TcpClient, rest: Buffer, subprotocol: string | undefined, onText?: (text: string) => void) {
    this.#tcp = tcp;
    this.#onText = onText;
    this.subprotocol = subprotocol;
    this.closed = tcp.closed.then(() => {
      this.#queue.end(`the connection was closed with ${this.#closing.code} ${this.#closing.reason}`);
      return this.#closing;
    });
    tcp.onData = (chunk) => this.#receive(chunk);
    this.#receive(rest);
  }

  /** Resolves when the handshake is done; rejects with `Refused` when the server answered something else. */
  static async open(url: string, options: WebSocketOptions = {}): Promise<WebSocketClient> {
    const { query = '', headers = {}, onText, cutAfterBytes, timeoutMs = 5_000 } = options;
    const tcp = await TcpClient.connect(url, { timeoutMs, cutAfterBytes });
    const key = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('base64');
    const given = {
      Upgrade: 'websocket',
      Connection: 'Upgrade',
      'Sec-WebSocket-Key': key,
      'Sec-WebSocket-Version': '13',
      ...headers,
    };
    tcp.write(requestText('GET', `/realtime/ws${query === '' ? '' : `?${query}`}`, tcp.host, given));
    const head = await tcp.readHead(timeoutMs);
    if (head.status !== 101) throw new Refused(head.status, head.headers, await tcp.readBody(head, timeoutMs));
    const expected = new Bun.CryptoHasher('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    if (head.headers.get('sec-websocket-accept') !== expected) throw new Error('the handshake was answered wrongly');
    return new WebSocketClient(tcp, tcp.takeRest(), head.headers.get('sec-websocket-protocol'), onText);
  }

  send(command: Readonly<Record<string, unknown>>): void {
    this.sendText(JSON.stringify(command));
  }

  sendText(text: string): void {
    this.sendFrame({ opcode: opcodes.text, payload: text });
  }

  sendFrame(frame: RawFrame): void {
    this.#tcp.write(encodeFrame(frame));
  }

  /** Any bytes at all. */
  sendBytes(bytes: Uint8Array): void {
    this.#tcp.write(bytes);
  }

  /** Sends a command with an id of its own; resolves with the frame that repeats it, error or not. */
  request(command: Readonly<Record<string, unknown>>, timeoutMs?: number): Promise<Frame> {
    const id = this.#nextId++;
    this.send({ ...command, id });
    return this.#queue.take((frame) => frame.id === id, `reply to ${String(command['type'])}`, timeoutMs);
  }

  next(type: string, timeoutMs?: number): Promise<Frame> {
    return this.#queue.take((frame) => frame.type === type, type, timeoutMs);
  }

  /** Whatever comes next. */
  nextAny(timeoutMs?: number): Promise<Frame> {
    return this.#queue.take(() => true, 'frame', timeoutMs);
  }

  /** All frames that have come and were not looked at, once everything that was sent before has been answered. */
  async settle(): Promise<Frame[]> {
    const id = `settle ${this.#nextId++}`;
    this.send({ type: 'ping', id });
    await this.#queue.take((frame) => frame.id === id, 'pong');
    return this.#queue.drain();
  }

  /** Says farewell; resolves when the server has closed. */
  async close(code = 1000): Promise<Closing> {
    this.sendFrame({ opcode: opcodes.close, payload: closePayload(code) });
    return wait(this.closed, 5_000, 'the end of the connection');
  }

  /** As if the cable were pulled: no farewell. */
  async cut(): Promise<void> {
    this.#tcp.cut();
    await this.closed;
  }

  pause(): void {
    this.#tcp.pause();
  }

  resume(): void {
    this.#tcp.resume();
  }

  #receive(chunk: Buffer): void {
    this.#unparsed = this.#unparsed.length === 0 ? chunk : Buffer.concat([this.#unparsed, chunk]);
    let at = 0;
    for (;;) {
      const frame = readFrame(this.#unparsed, at);
      if (frame === undefined) break;
      at = frame.end;
      this.#take(frame.opcode, frame.payload);
    }
    this.#unparsed = this.#unparsed.subarray(at);
  }

  #take(opcode: number, payload: Buffer): void {
    switch (opcode) {
      case opcodes.text: {
        const text = this.#decoder.decode(payload);
        if (this.#onText === undefined) this.#queue.push(JSON.parse(text) as Frame);
        else this.#onText(text);
        return;
      }
      case opcodes.ping:
        this.pings.push(payload.toString());
        this.sendFrame({ opcode: opcodes.pong, payload });
        return;
      case opcodes.pong:
        this.pongs.push(payload.toString());
        return;
      case opcodes.close:
        this.#closing =
          payload.length < 2
            ? { code: 1005, reason: '' }
            : { code: payload.readUInt16BE(0), reason: payload.subarray(2).toString() };
        this.sendFrame({ opcode: opcodes.close, payload });
        this.#tcp.end();
        return;
      default:
        throw new Error(`the server sent a frame of kind ${opcode}`);
    }
  }
}

export function closePayload(code: number, reason = ''): Buffer {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
  payload.writeUInt16BE(code, 0);
  payload.write(reason, 2);
  return payload;
}

function readFrame(
  bytes: Buffer,
  at: number,
): { readonly opcode: number; readonly payload: Buffer; readonly end: number } | undefined {
  if (bytes.length < at + 2) return undefined;
  const [first = 0, second = 0] = [bytes[at], bytes[at + 1]];
  if ((first & 0xf0) !== 0x80) throw new Error('the server sent a frame that is fragmented or has reserved bits');
  if ((second & 0x80) !== 0) throw new Error('the server sent a masked frame');
  let start = at + 2;
  let length = second & 0x7f;
  if (length === 126) {
    if (bytes.length < at + 4) return undefined;
    length = bytes.readUInt16BE(at + 2);
    start = at + 4;
  } else if (length === 127) {
    if (bytes.length < at + 10) return undefined;
    length = Number(bytes.readBigUInt64BE(at + 2));
    start = at + 10;
  }
  const end = start + length;
  return bytes.length < end ? undefined : { opcode: first & 0x0f, payload: bytes.subarray(start, end), end };
}

function encodeFrame({ opcode, payload = '', final = true, masked = true }: RawFrame): Buffer {
  const data = typeof payload === 'string' ? Buffer.from(payload) : Buffer.from(payload);
  const lengthBytes = data.length < 126 ? 0 : data.length < 65_536 ? 2 : 8;
  const head = Buffer.alloc(2 + lengthBytes);
  head[0] = (final ? 0x80 : 0) | opcode;
  head[1] = (masked ? 0x80 : 0) | (lengthBytes === 0 ? data.length : lengthBytes === 2 ? 126 : 127);
  if (lengthBytes === 2) head.writeUInt16BE(data.length, 2);
  if (lengthBytes === 8) head.writeBigUInt64BE(BigInt(data.length), 2);
  if (!masked) return Buffer.concat([head, data]);
  const mask = Buffer.from(crypto.getRandomValues(new Uint8Array(4)));
  for (let index = 0; index < data.length; index++) data[index]! ^= mask[index & 3]!;
  return Buffer.concat([head, mask, data]);
}

/** One event as a browser would dispatch it. */
export interface ReceivedEvent {
  readonly type: string;
  readonly frame: Frame;
  /** The text of `data:`. */
  readonly data: string;
  readonly lastEventId: string;
}

export interface EventOptions {
  /** After `/realtime/events?`. */
  readonly query?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** As a browser that reconnects says it. */
  readonly lastEventId?: string;
  /** The connection breaks after so many bytes. */
  readonly cutAfterBytes?: number;
  /** Called with each event instead of keeping it. */
  readonly onEvent?: (event: ReceivedEvent) => void;
  readonly timeoutMs?: number;
}

/** One stream of an EventSource. It does not reconnect by itself: give `lastEventId` to the next one. */
export class EventClient {
  readonly #tcp: TcpClient;
  readonly #queue = new FrameQueue<ReceivedEvent>();
  readonly #parser: EventParser;
  readonly #onEvent: ((event: ReceivedEvent) => void) | undefined;
  readonly headers: ReadonlyMap<string, string>;
  /** Resolves when the connection is gone; true when the stream was ended in order. */
  readonly closed: Promise<boolean>;

  private constructor(tcp: TcpClient, headers: ReadonlyMap<string, string>, options: EventOptions) {
    this.#tcp = tcp;
    this.headers = headers;
    this.#onEvent = options.onEvent;
    this.#parser = new EventParser(options.lastEventId ?? '', (event) => {
      if (this.#onEvent === undefined) this.#queue.push(event);
      else this.#onEvent(event);
    });
    this.closed = tcp.closed.then(() => {
      this.#queue.end('the stream has ended');
      return tcp.bodyEnded;
    });
    tcp.onBody = (chunk) => this.#parser.push(chunk);
    tcp.startBody();
  }

  /** Resolves when the stream is open; rejects with `Refused` when the server answered something else. */
  static async open(url: string, options: EventOptions = {}): Promise<EventClient> {
    const { query = '', lastEventId, headers = {}, cutAfterBytes, timeoutMs = 5_000 } = options;
    const tcp = await TcpClient.connect(url, { timeoutMs, cutAfterBytes });
    const resume = lastEventId === undefined ? {} : { 'Last-Event-ID': lastEventId };
    const given = { Accept: 'text/event-stream', 'Cache-Control': 'no-cache', ...resume, ...headers };
    tcp.write(requestText('GET', `/realtime/events${query === '' ? '' : `?${query}`}`, tcp.host, given));
    const head = await tcp.readHead(timeoutMs);
    const type = head.headers.get('content-type') ?? '';
    if (head.status !== 200 || !type.startsWith('text/event-stream')) {
      throw new Refused(head.status, head.headers, await tcp.readBody(head, timeoutMs));
    }
    return new EventClient(tcp, head.headers, options);
  }

  /** As an EventSource would send it when it reconnects. */
  get lastEventId(): string {
    return this.#parser.lastEventId;
  }

  /** Milliseconds that the server asked to wait before a reconnect. */
  get retryMs(): number | undefined {
    return this.#parser.retryMs;
  }

  get comments(): readonly string[] {
    return this.#parser.comments;
  }

  next(type: string, timeoutMs?: number): Promise<ReceivedEvent> {
    return this.#queue.take((event) => event.type === type, type, timeoutMs);
  }

  nextAny(timeoutMs?: number): Promise<ReceivedEvent> {
    return this.#queue.take(() => true, 'event', timeoutMs);
  }

  drain(): ReceivedEvent[] {
    return this.#queue.drain();
  }

  async cut(): Promise<void> {
    this.#tcp.cut();
    await this.closed;
  }

  pause(): void {
    this.#tcp.pause();
  }

  resume(): void {
    this.#tcp.resume();
  }
}

/** Reads an event stream as the HTML standard says, but takes only JSON as data and known fields. */
export class EventParser {
  readonly #emit: (event: ReceivedEvent) => void;
  // Drops a byte order mark, and keeps characters whole that two chunks share.
  readonly #decoder = new TextDecoder('utf-8', { fatal: true });
  #line = '';
  #afterCarriageReturn = false;
  #data: string[] = [];
  #type = '';
  #idBuffer: string;
  lastEventId: string;
  retryMs: number | undefined;
  readonly comments: string[] = [];

  constructor(lastEventId: string, emit: (event: ReceivedEvent) => void) {
    this.#idBuffer = lastEventId;
    this.lastEventId = lastEventId;
    this.#emit = emit;
  }

  push(chunk: Uint8Array): void {
    const text = this.#decoder.decode(chunk, { stream: true });
    if (text === '') return;
    // The line feed of a pair that two chunks share ends no line of its own.
    const start = this.#afterCarriageReturn && text.startsWith('\n') ? 1 : 0;
    this.#afterCarriageReturn = text.endsWith('\r');
    const lines = (this.#line + text.slice(start)).split(/\r\n|\n|\r/);
    this.#line = lines.pop() ?? '';
    for (const line of lines) this.#takeLine(line);
  }

  #takeLine(line: string): void {
    if (line === '') {
      this.#dispatch();
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) {
      this.comments.push(line.slice(1).trim());
      return;
    }
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '');
    switch (field) {
      case 'event':
        this.#type = value;
        return;
      case 'data':
        this.#data.push(value);
        return;
      case 'id':
        if (!value.includes('\u0000')) this.#idBuffer = value;
        return;
      case 'retry':
        if (/^\d+$/.test(value)) this.retryMs = Number(value);
        return;
      default:
        throw new Error(`the stream has a line that is no field: ${line}`);
    }
  }

  #dispatch(): void {
    this.lastEventId = this.#idBuffer;
    const [data, type] = [this.#data.join('\n'), this.#type || 'message'];
    const lines = this.#data.length;
    this.#data = [];
    this.#type = '';
    if (lines === 0) return;
    if (lines > 1) throw new Error('the data of an event has several lines');
    this.#emit({ type, data, frame: JSON.parse(data) as Frame, lastEventId: this.lastEventId });
  }
}

function requestText(method: string, path: string, host: string, headers: Readonly<Record<string, string>>): string {
  const lines = Object.entries({ Host: host, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
}
