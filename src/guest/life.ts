// The node inside an application, from nothing to gone: started by whoever needs it first, stopped once.

import type { Elysia } from 'elysia';
import type { Node } from '../app/compose.ts';

/** The node, from nothing to gone. */
export class Life {
  readonly #start: () => Promise<Node>;
  #node: Promise<Node> | undefined;
  #running: Node | undefined;
  #stopped = false;

  constructor(start: () => Promise<Node>) {
    this.#start = start;
  }

  /** A failed start may be tried again. */
  start(): Promise<Node> {
    if (this.#stopped) return Promise.reject(new Error('realtime was stopped'));
    this.#node ??= this.#start().then(
      (node) => (this.#running = node),
      (error: unknown) => {
        this.#node = undefined;
        throw error;
      },
    );
    return this.#node;
  }

  async stop(force: boolean): Promise<void> {
    this.#stopped = true;
    const node = this.#running;
    // One that is still starting has no clients, and may be waiting for a database that never comes.
    if (node === undefined) void this.#node?.then(({ shutdown }) => shutdown.force()).catch(() => undefined);
    else await (force ? node.shutdown.force() : node.shutdown.begin());
    this.#running = undefined;
  }

  /** Synchronous once the node is up: what a WebSocket's request allocates stays while it is open. */
  handle(request: Request, server: Elysia['server']): Response | Promise<Response> {
    const node = this.#running;
    if (node !== undefined) return answer(node, request, server);
    return this.start().then(
      (started) => answer(started, request, server),
      () => this.#refuse(),
    );
  }

  #refuse(): Response {
    const retryable = !this.#stopped;
    const message = retryable ? 'The server has not started.' : 'The server was stopped.';
    const headers: Record<string, string> = retryable ? { 'retry-after': '1' } : {};
    return Response.json({ error: { code: 'unavailable', message, retryable } }, { status: 503, headers });
  }
}

function answer({ app }: Node, request: Request, server: Elysia['server']): Response | Promise<Response> {
  if (server !== null) app.server = server;
  return app.fetch(request);
}
