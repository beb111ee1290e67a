// One HTTP/1.1 request over a connection of its own, seen as it passes: the version and the headers as they are sent, and
// when each byte comes. `fetch` hides all of it, and joins and decodes what gateways may have broken.

import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

export interface ExchangeRequest {
  readonly method?: string;
  /** With the query. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly timeoutMs?: number;
  /** Goes over the connection of an exchange that is over. */
  readonly after?: Exchange;
}

const headEnd = '\r\n\r\n';
const defaultTimeoutMs = 10_000;

export class Exchange {
  /** Such as `1.1`. */
  readonly version: string;
  readonly status: number;
  /** Names in lower case; several of one name are joined by commas. */
  readonly headers: ReadonlyMap<string, string>;
  /** This end of the connection. */
  readonly localAddress: string;
  /** Resolves when the connection has ended, however. */
  readonly ended: Promise<void>;
  readonly #socket: Socket;
  readonly #decoder: BodyDecoder;
  readonly #unlisten: () => void;

  private constructor(socket: Socket, head: string, rest: Buffer) {
    const [statusLine = '', ...lines] = head.split('\r\n');
    const [, version = '', status = ''] = /^HTTP\/(\S+) (\d{3})/.exec(statusLine) ?? [];
    this.version = version;
    this.status = Number(status);
    const headers = new Map<string, string>();
    for (const line of lines) {
      const colon = line.indexOf(':');
      const name = line.slice(0, colon).toLowerCase();
      const value = line.slice(colon + 1).trim();
      headers.set(name, headers.has(name) ? `${headers.get(name)}, ${value}` : value);
    }
    this.headers = headers;
    this.localAddress = socket.localAddress ?? '';
    this.#socket = socket;
    this.#decoder = new BodyDecoder(headers.get('transfer-encoding')?.includes('chunked') === true);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    const length = Number(headers.get('content-length') ?? Number.NaN);
    const take = (chunk: Buffer): void => {
      this.#decoder.push(chunk);
      if (this.#decoder.isOver || this.#decoder.bytes >= length) resolve();
    };
    const end = (): void => resolve();
    socket.on('data', take).on('close', end).on('error', end);
    this.#unlisten = () => void socket.off('data', take).off('close', end).off('error', end);
    take(rest);
  }

  /** Resolves with the head. Rejects when there is none in time, or when what comes is no HTTP. */
  static open(url: string, request: ExchangeRequest): Promise<Exchange> {
    const { timeoutMs = defaultTimeoutMs } = request;
    const { promise, resolve, reject } = Promise.withResolvers<Exchange>();
    const socket = request.after?.release() ?? openSocket(url);
    let received = Buffer.alloc(0);
    const fail = (reason: string): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(new Error(reason));
    };
    const timer = setTimeout(() => fail(`no answer within ${timeoutMs / 1_000} seconds`), timeoutMs);
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      const end = received.indexOf(headEnd);
      if (end === -1) return;
      clearTimeout(timer);
      socket.off('data', onData).off('error', onError).off('close', onClose);
      const head = received.subarray(0, end).toString('latin1');
      if (head.startsWith('HTTP/')) resolve(new Exchange(socket, head, received.subarray(end + headEnd.length)));
      else fail('the answer is no HTTP');
    };
    socket.on('data', onData);
    const onError = (error: Error): void => fail(error.message);
    const onClose = (): void => fail('the connection ended without an answer');
    socket.on('error', onError);
    socket.on('close', onClose);
    socket.write(requestText(new URL(url), request));
    return promise;
  }

  /** Called with what has come of the body, and with what comes. */
  onBody(take: (chunk: Buffer) => void): void {
    this.#decoder.onData(take);
  }

  /** The whole body, and the end of the connection; rejects when it does not end in time. */
  async text(timeoutMs = defaultTimeoutMs): Promise<string> {
    try {
      return await this.keptText(timeoutMs);
    } finally {
      this.close();
    }
  }

  /** The whole body. The connection stays, for an exchange after this one. */
  async keptText(timeoutMs = defaultTimeoutMs): Promise<string> {
    const chunks: Buffer[] = [];
    this.onBody((chunk) => chunks.push(chunk));
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error('the answer does not end')), timeoutMs);
    try {
      await Promise.race([this.ended, late.promise]);
    } finally {
      clearTimeout(timer);
    }
    return Buffer.concat(chunks).toString();
  }

  /** The connection, for another exchange: this one is over. */
  release(): Socket {
    this.#unlisten();
    return this.#socket;
  }

  close(): void {
    this.#socket.destroy();
  }
}

function openSocket(url: string): Socket {
  const { protocol, hostname, port } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, '');
  const isTls = protocol === 'https:';
  const address = { host, port: Number(port || (isTls ? 443 : 80)) };
  // Only HTTP/1.1 takes a WebSocket's upgrade from every gateway.
  return isTls ? connectTls({ ...address, servername: host, ALPNProtocols: ['http/1.1'] }) : connectTcp(address);
}

function requestText({ host }: URL, { method = 'GET', path, headers = {}, body = '' }: ExchangeRequest): string {
  const length = body === '' ? {} : { 'Content-Length': String(Buffer.byteLength(body)) };
  const lines = Object.entries({ Host: host, ...headers, ...length }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`;
}

/** Takes the framing of chunks away. */
class BodyDecoder {
  readonly #isChunked: boolean;
  #rest: Buffer = Buffer.alloc(0);
  #kept: Buffer[] | undefined = [];
  #take: ((chunk: Buffer) => void) | undefined;
  bytes = 0;
  isOver = false;

  constructor(isChunked: boolean) {
    this.#isChunked = isChunked;
  }

  onData(take: (chunk: Buffer) => void): void {
    this.#take = take;
    for (const chunk of this.#kept ?? []) take(chunk);
    this.#kept = undefined;
  }

  push(chunk: Buffer): void {
    if (!this.#isChunked) {
      this.#emit(chunk);
      return;
    }
    this.#rest = Buffer.concat([this.#rest, chunk]);
    for (;;) {
      const line = this.#rest.indexOf('\r\n');
      if (line === -1) return;
      const size = Number.parseInt(this.#rest.subarray(0, line).toString('latin1'), 16);
      const end = line + 2 + size;
      if (size === 0) this.isOver = true;
      if (!(size > 0) || this.#rest.length < end + 2) return;
      this.#emit(this.#rest.subarray(line + 2, end));
      this.#rest = this.#rest.subarray(end + 2);
    }
  }

  #emit(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.bytes += chunk.length;
    if (this.#take === undefined) this.#kept?.push(chunk);
    else this.#take(chunk);
  }
}
