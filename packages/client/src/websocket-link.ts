// A link over a WebSocket: each frame is one text message.

import type { Link, LinkOptions } from './link.ts';
import { quietly, type WebSocketLike } from './platform.ts';
import type { Command, ServerFrame } from './protocol.ts';

export class WebSocketLink implements Link {
  readonly transport = 'websocket';
  readonly #socket: WebSocketLike;
  readonly #options: LinkOptions;
  #heardAt: number;

  constructor(WebSocket: new (url: string, protocols?: string[]) => WebSocketLike, options: LinkOptions) {
    const { url, token, clock, parse } = options;
    this.#options = options;
    this.#heardAt = clock.now();
    const address = `${url.replace(/^http/, 'ws')}/realtime/ws`;
    // Where it can, the token stays out of the URL, which proxies write into their logs.
    const fits = /^[\w.~+-]+$/.test(token ?? '-');
    const protocols = ['sobranie', ...(fits && token ? [`bearer.${token}`] : [])];
    const query = fits ? '' : `?token=${encodeURIComponent(token ?? '')}`;
    const socket = (this.#socket = new WebSocket(address + query, protocols));
    socket.onopen = () => options.onReady();
    socket.onmessage = ({ data }) => {
      this.#heardAt = clock.now();
      const frame = quietly(() => parse(String(data))) as ServerFrame | undefined;
      if (frame) options.onFrame(frame);
    };
    // In Deno the code is 0 of one that never opened.
    socket.onclose = ({ code, reason }) => options.onEnd({ code: code || 1006, reason });
    socket.onerror = () => undefined;
  }

  send(command: Command): void {
    this.#socket.send(this.#options.print(command));
  }

  silence(): number {
    return this.#options.clock.now() - this.#heardAt;
  }

  close(): void {
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }
}
