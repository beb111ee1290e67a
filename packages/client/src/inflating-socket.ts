// A WebSocket that asks the server to compress large messages, and whose messages are texts all the same. Each compressed
// one is a raw deflate stream of its own. Inflating takes a moment, so what comes after it waits for it. Loaded by those
// alone who ask for compression.

import type { WebSocketLike } from './platform.ts';

type SocketClass = new (url: string, protocols?: string[]) => WebSocketLike;

/** The class itself where the runtime cannot inflate. */
export function inflating(WebSocket: SocketClass): SocketClass {
  // No helper is imported for this: a bundler would put what two files share into a third one.
  try {
    void new DecompressionStream('deflate-raw');
  } catch {
    return WebSocket;
  }
  return class extends InflatingSocket {
    constructor(url: string, protocols?: string[]) {
      super(new WebSocket(`${url}${url.includes('?') ? '&' : '?'}deflate=1`, protocols));
    }
  };
}

interface Waiting {
  readonly run: (text: string) => void;
  /** Undefined while it is inflated. */
  text: string | undefined;
}

class InflatingSocket implements WebSocketLike {
  onopen: WebSocketLike['onopen'] = null;
  onmessage: WebSocketLike['onmessage'] = null;
  onclose: WebSocketLike['onclose'] = null;
  onerror: WebSocketLike['onerror'] = null;
  readonly #socket: WebSocketLike;
  readonly #waiting: Waiting[] = [];

  constructor(socket: WebSocketLike) {
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onopen = (event) => this.onopen?.(event);
    socket.onerror = (event) => this.onerror?.(event);
    socket.onmessage = ({ data }) => {
      const waiting: Waiting = {
        run: (text) => this.onmessage?.({ data: text }),
        text: typeof data === 'string' ? data : undefined,
      };
      this.#waiting.push(waiting);
      if (waiting.text === undefined) void this.#inflate(data as ArrayBuffer, waiting);
      this.#flush();
    };
    socket.onclose = ({ code, reason }) => {
      this.#waiting.push({ run: () => this.onclose?.({ code, reason }), text: '' });
      this.#flush();
    };
  }

  send(text: string): void {
    this.#socket.send(text);
  }

  close(code?: number, reason?: string): void {
    this.#socket.close(code, reason);
  }

  async #inflate(bytes: ArrayBuffer, waiting: Waiting): Promise<void> {
    try {
      const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
      waiting.text = await new Response(inflated).text();
    } catch {
      // Without this message there would be a hole: the next connection begins before it.
      this.#waiting.length = 0;
      this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
      this.onclose?.({ code: 1006, reason: 'unreadable' });
      return;
    }
    this.#flush();
  }

  #flush(): void {
    for (let first = this.#waiting[0]; first?.text !== undefined; first = this.#waiting[0]) {
      this.#waiting.shift();
      first.run(first.text);
    }
  }
}
