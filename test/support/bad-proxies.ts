// Small real proxies that do to event streams what some on the internet do. WebSockets pass them, bytes as they are.

import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { createGzip } from 'node:zlib';

export interface BadProxy {
  readonly url: string;
  close(): Promise<void>;
}

type Deform = (request: IncomingMessage, upstream: IncomingMessage, response: ServerResponse) => void;

/** Compresses event streams, and lets the compressor keep what it has until its block is full. */
export function gzippingProxy(nodePort: number): Promise<BadProxy> {
  return startProxy(nodePort, (request, upstream, response) => {
    const isStream = upstream.headers['content-type']?.startsWith('text/event-stream') === true;
    if (!isStream || !/gzip/.test(request.headers['accept-encoding'] ?? '')) {
      passOn(request, upstream, response);
      return;
    }
    response.writeHead(upstream.statusCode ?? 502, { ...upstream.headers, 'content-encoding': 'gzip' });
    response.flushHeaders();
    upstream.pipe(createGzip()).pipe(response);
  });
}

/** Joins requests for the same address to the first one's answer, as content delivery networks do. */
export function cachingProxy(nodePort: number): Promise<BadProxy> {
  const kept = new Map<string, { chunks: Buffer[]; readers: Set<ServerResponse>; head: IncomingMessage }>();
  return startProxy(
    nodePort,
    (request, upstream, response) => {
      const key = request.url ?? '';
      if (upstream.headers['content-type']?.startsWith('text/event-stream') !== true) {
        passOn(request, upstream, response);
        return;
      }
      const entry = { chunks: [] as Buffer[], readers: new Set([response]), head: upstream };
      kept.set(key, entry);
      response.writeHead(upstream.statusCode ?? 502, upstream.headers);
      upstream.on('data', (chunk: Buffer) => {
        entry.chunks.push(chunk);
        for (const reader of entry.readers) reader.write(chunk);
      });
    },
    (request, response) => {
      const entry = kept.get(request.url ?? '');
      if (entry === undefined) return false;
      response.writeHead(entry.head.statusCode ?? 502, entry.head.headers);
      for (const chunk of entry.chunks) response.write(chunk);
      entry.readers.add(response);
      return true;
    },
  );
}

/** Answers in HTTP/1.0, as old ones do: no chunks, and the end of the connection is the end of the answer. */
export async function oldProxy(nodePort: number): Promise<BadProxy> {
  return listen((client) => {
    const node = connect(nodePort, '127.0.0.1');
    client.on('data', (chunk) => node.write(chunk));
    let isHead = true;
    node.on('data', (chunk) => {
      client.write(isHead ? chunk.toString('latin1').replace(/^HTTP\/1\.1/, 'HTTP/1.0') : chunk, 'latin1');
      isHead = false;
    });
    endTogether(client, node);
  });
}

function passOn(_request: IncomingMessage, upstream: IncomingMessage, response: ServerResponse): void {
  response.writeHead(upstream.statusCode ?? 502, upstream.headers);
  upstream.pipe(response);
}

async function startProxy(
  nodePort: number,
  deform: Deform,
  answer: (request: IncomingMessage, response: ServerResponse) => boolean = () => false,
): Promise<BadProxy> {
  const inner = createServer((request, response) => {
    if (answer(request, response)) return;
    const { method, url: path, headers } = request;
    const onward = httpRequest({ host: '127.0.0.1', port: nodePort, method, path, headers }, (upstream) => {
      deform(request, upstream, response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  const innerPort = await listening(inner);
  // Node's server takes upgrades for itself: they go past it.
  const outer = await listen((client) => {
    client.once('data', (first: Buffer) => {
      const isUpgrade = /^upgrade: websocket/im.test(first.toString('latin1'));
      const onward = connect(isUpgrade ? nodePort : innerPort, '127.0.0.1');
      onward.write(first);
      client.pipe(onward).pipe(client);
      endTogether(client, onward);
    });
  });
  return {
    url: outer.url,
    async close() {
      await outer.close();
      inner.closeAllConnections();
      inner.close();
    },
  };
}

function endTogether(one: Socket, other: Socket): void {
  for (const [here, there] of [
    [one, other],
    [other, one],
  ] as const) {
    here.on('error', () => there.destroy());
    here.on('close', () => there.destroy());
  }
}

async function listen(serve: (client: Socket) => void): Promise<BadProxy> {
  const { createServer: createTcpServer } = await import('node:net');
  const clients = new Set<Socket>();
  const server = createTcpServer((client) => {
    clients.add(client);
    client.on('close', () => clients.delete(client));
    serve(client);
  });
  const port = await listening(server);
  return {
    url: `http://127.0.0.1:${port}`,
    close: async () => {
      for (const client of clients) client.destroy();
      const { promise, resolve } = Promise.withResolvers<void>();
      server.close(() => resolve());
      await promise;
    },
  };
}

async function listening(server: {
  listen(port: number, host: string, done: () => void): unknown;
  address(): unknown;
}): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', () => resolve());
  await promise;
  return (server.address() as { port: number }).port;
}
