// One TCP connection with a little HTTP on top, for tests that must send and see bytes as they are.

export interface ResponseHead {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
}

/** Rejects when the promise takes too long: nothing in a test waits for ever. */
export async function wait<T>(promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Polls until the condition holds; its last value explains a failure. On a machine with a dozen processes for each core 5 s
 * were too short for what takes one.
 */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string | (() => string),
  timeoutMs = 20_000,
  pauseMs = 5,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) {
      throw new Error(`${typeof what === 'string' ? what : what()}: not within ${timeoutMs} ms`);
    }
    await Bun.sleep(pauseMs);
  }
}

export interface TcpOptions {
  readonly timeoutMs?: number | undefined;
  /** The connection breaks after so many bytes were received. */
  readonly cutAfterBytes?: number | undefined;
}

export class TcpClient {
  readonly host: string;
  #socket: Bun.Socket<TcpClient> | undefined;
  #unsent: Uint8Array[] = [];
  #received: Buffer = Buffer.alloc(0);
  #bytesLeft: number;
  #chunkLeft = 0;
  #ended = false;
  #changed = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  /** Set: takes each chunk instead of keeping it. */
  onData: ((chunk: Buffer) => void) | undefined;
  /** Takes what chunked encoding carries, after `startBody`. */
  onBody: ((chunk: Buffer) => void) | undefined;
  /** The last chunk of a chunked body has come. */
  bodyEnded = false;
  readonly closed = this.#closed.promise;

  private constructor(host: string, bytesLeft: number) {
    this.host = host;
    this.#bytesLeft = bytesLeft;
  }

  static async connect(url: string, options: TcpOptions = {}): Promise<TcpClient> {
    const { timeoutMs = 5_000, cutAfterBytes = Infinity } = options;
    const { host, hostname, port } = new URL(url);
    const client = new TcpClient(host, cutAfterBytes);
    const connecting = Bun.connect<TcpClient>({
      hostname,
      port: Number(port),
      data: client,
      socket: {
        open(socket) {
          socket.data.#socket = socket;
        },
        data(socket, chunk) {
          socket.data.#take(chunk);
        },
        drain(socket) {
          socket.data.#flush();
        },
        close(socket) {
          socket.data.#close();
        },
        error(socket, error) {
          socket.data.#fail(error);
        },
      },
    });
    client.#socket = await wait(connecting, timeoutMs, `a connection to ${url}`);
    return client;
  }

  /** Everything received that nobody took. */
  get received(): Buffer {
    return this.#received;
  }

  write(data: Uint8Array | string): void {
    if (this.#ended) return;
    this.#unsent.push(typeof data === 'string' ? Buffer.from(data) : data);
    if (this.#unsent.length === 1) this.#flush();
  }

  /** Ends in order. */
  end(): void {
    this.#socket?.end();
  }

  /** No farewell of any kind. */
  cut(): void {
    this.#socket?.terminate();
    this.#close();
  }

  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  async readHead(timeoutMs = 5_000): Promise<ResponseHead> {
    await this.waitFor(() => this.#received.includes('\r\n\r\n'), 'the head of a response', timeoutMs);
    const end = this.#received.indexOf('\r\n\r\n');
    const [statusLine = '', ...lines] = this.#received.subarray(0, end).toString('latin1').split('\r\n');
    this.#received = this.#received.subarray(end + 4);
    const status = /^HTTP\/1\.1 (\d{3})/.exec(statusLine)?.[1];
    if (status === undefined) throw new Error(`not a response: ${statusLine}`);
    const headers = lines.map((line): [string, string] => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    });
    return { status: Number(status), headers: new Map(headers) };
  }

  async readBody({ headers }: ResponseHead, timeoutMs = 5_000): Promise<string> {
    const length = Number(headers.get('content-length') ?? 0);
    await this.waitFor(() => this.#received.length >= length, 'the body of a response', timeoutMs);
    const body = this.#received.subarray(0, length).toString();
    this.#received = this.#received.subarray(length);
    return body;
  }

  /** Takes what was received beyond what was read. */
  takeRest(): Buffer {
    const rest = this.#received;
    this.#received = Buffer.alloc(0);
    return rest;
  }

  /** From here on what comes is a chunked body. Parts of a chunk are handed on as they come, as browsers do. */
  startBody(): void {
    let unparsed = this.takeRest();
    this.onData = (bytes) => {
      unparsed = this.#takeBody(unparsed.length === 0 ? bytes : Buffer.concat([unparsed, bytes]));
    };
    unparsed = this.#takeBody(unparsed);
  }

  /** Answers what cannot be read before more comes. */
  #takeBody(bytes: Buffer): Buffer {
    let at = 0;
    while (at < bytes.length && !this.bodyEnded) {
      if (this.#chunkLeft > 0) {
        const part = bytes.subarray(at, at + this.#chunkLeft);
        this.#chunkLeft -= part.length;
        at += part.length;
        this.onBody?.(part);
        continue;
      }
      // The end of the chunk before belongs to the line that says how long the next one is.
      const line = /^(?:\r\n)?([0-9a-fA-F]+)\r\n/.exec(bytes.toString('latin1', at, at + 24));
      if (line === null) {
        if (bytes.length - at >= 24) throw new Error('the body is not in chunks');
        break;
      }
      at += line[0].length;
      this.#chunkLeft = Number.parseInt(line[1]!, 16);
      this.bodyEnded = this.#chunkLeft === 0;
    }
    if (this.bodyEnded) this.end();
    return bytes.subarray(at);
  }

  /** Resolves when the condition holds, looked at as bytes come; rejects when the connection ends before. */
  async waitFor(condition: () => boolean, what: string, timeoutMs = 5_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    const saying = (why: string): string => `${what}: ${why}; got: ${this.#received}`;
    while (!condition()) {
      if (this.#ended) throw new Error(saying('the connection was closed'));
      const change = Promise.race([this.#changed.promise, this.closed]);
      await wait(change, Math.max(1, deadline - performance.now()), saying('waited'));
    }
  }

  #take(chunk: Buffer): void {
    if (this.#ended) return;
    // The runtime may use its buffer again.
    const own = Buffer.from(chunk.subarray(0, Math.min(chunk.length, this.#bytesLeft)));
    this.#bytesLeft -= own.length;
    if (this.onData === undefined) this.#received = Buffer.concat([this.#received, own]);
    else this.onData(own);
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
    if (this.#bytesLeft === 0) this.cut();
  }

  #flush(): void {
    for (let next = this.#unsent[0]; next !== undefined; next = this.#unsent[0]) {
      const written = this.#socket?.write(next) ?? 0;
      if (written < next.length) {
        this.#unsent[0] = next.subarray(Math.max(0, written));
        return;
      }
      this.#unsent.shift();
    }
  }

  /** A reset of the connection is one way to end; anything else is a fault that the client's reader found. */
  #fail(error: Error): void {
    if (!('syscall' in error) && !('errno' in error)) this.#closed.reject(error);
    this.cut();
  }

  #close(): void {
    this.#ended = true;
    this.#unsent = [];
    this.#closed.resolve();
  }
}
