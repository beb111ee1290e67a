// A connection of an attacker: bare TCP that opens what it is told to, and reads without looking, or not at all.
// Thousands of them are one process, so each holds little.

export interface PeerOptions {
  /** The bytes that are sent as it opens. */
  readonly first?: Uint8Array | string;
  /** Sees what comes. Without it nothing is kept. */
  readonly onData?: (chunk: Buffer, peer: Peer) => void;
  readonly onClose?: (peer: Peer) => void;
}

/** What may wait in a peer before it stops sending. */
const unsentBytesMax = 1 << 20;

export class Peer {
  readonly openedAt = performance.now();
  readonly #options: PeerOptions;
  #socket: Bun.Socket<Peer> | undefined;
  #unsent: Uint8Array[] = [];
  #unsentBytes = 0;
  closed = false;

  private constructor(options: PeerOptions) {
    this.#options = options;
  }

  static async open(url: URL, options: PeerOptions = {}): Promise<Peer> {
    const peer = new Peer(options);
    peer.#socket = await Bun.connect<Peer>({
      hostname: url.hostname,
      port: Number(url.port),
      data: peer,
      socket: handlers,
    });
    if (options.first !== undefined) peer.send(options.first);
    return peer;
  }

  /** False when too much waits already: then nothing was sent. */
  send(data: Uint8Array | string): boolean {
    if (this.closed) return true;
    if (this.#unsentBytes > unsentBytesMax) return false;
    const bytes = typeof data === 'string' ? Buffer.from(data, 'latin1') : data;
    this.#unsent.push(bytes);
    this.#unsentBytes += bytes.length;
    if (this.#unsent.length === 1) this.flush();
    return true;
  }

  flush(): void {
    for (let next = this.#unsent[0]; next !== undefined; next = this.#unsent[0]) {
      const written = Math.max(0, this.#socket?.write(next) ?? 0);
      this.#unsentBytes -= written;
      if (written < next.length) {
        this.#unsent[0] = next.subarray(written);
        return;
      }
      this.#unsent.shift();
    }
  }

  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  stopReading(): void {
    this.#socket?.pause();
  }

  goOnReading(): void {
    if (!this.closed) this.#socket?.resume();
  }

  cut(): void {
    this.#socket?.terminate();
    this.ended();
  }

  take(chunk: Buffer): void {
    this.#options.onData?.(chunk, this);
  }

  ended(): void {
    if (this.closed) return;
    this.closed = true;
    this.#unsent = [];
    this.#options.onClose?.(this);
  }
}

const handlers: Bun.SocketHandler<Peer> = {
  open() {},
  data(socket, chunk) {
    socket.data.take(chunk);
  },
  drain(socket) {
    socket.data.flush();
  },
  close(socket) {
    socket.data.ended();
  },
  error(socket) {
    socket.data.ended();
  },
};

export const handshake =
  'Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n';

export function upgradeTo(query = ''): string {
  return `GET /realtime/ws?${query} HTTP/1.1\r\n${handshake}`;
}

export function streamOf(query: string): string {
  return `GET /realtime/events?${query} HTTP/1.1\r\nHost: a\r\n\r\n`;
}

/** A text frame with a mask of zeros, which a server cannot tell from any other. */
export function textFrame(text: string): Buffer {
  const payload = Buffer.from(text);
  const { length } = payload;
  const head = length < 126 ? [0x81, 0x80 | length, 0, 0, 0, 0] : [0x81, 0xfe, length >> 8, length & 255, 0, 0, 0, 0];
  return Buffer.concat([Buffer.from(head), payload]);
}
