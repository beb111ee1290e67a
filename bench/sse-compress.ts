// Event streams with and without compression: `sse --compress`. The client reads bytes and counts them; the last stream
// decompresses, to see what arrives and when.
import { connect } from 'node:net';
import { createGunzip } from 'node:zlib';
import { compareCompression, connectionsMax, rowBytes, type Crowd } from './compress.ts';
import type { BenchOptions } from './options.ts';
import type { ServerProcess } from './server-process.ts';

export function sseCompress(options: BenchOptions): Promise<void> {
  return compareCompression(options, {
    title: 'event streams',
    setting: 'SSE_COMPRESSION',
    compressed: 'gzip',
    gather,
  });
}

async function gather(server: ServerProcess): Promise<Crowd> {
  const url = new URL(`http://127.0.0.1:${server.port}`);
  let bytes = 0;
  const sockets = Array.from({ length: connectionsMax }, () => {
    const socket = connect(Number(url.port), url.hostname);
    socket.write(
      `GET /realtime/events?channels=orders HTTP/1.1\r\nHost: ${url.host}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n`,
    );
    return socket;
  });
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('data', resolve))));
  for (const socket of sockets) socket.on('data', (chunk) => (bytes += chunk.length));
  const watcher = await watch(url);
  return {
    bytes: () => bytes,
    next: (text) => watcher.next(text),
    close: () => {
      for (const socket of sockets) socket.destroy();
      watcher.close();
    },
  };
}

/** One more stream, read to its events. */
async function watch(url: URL): Promise<{ next(text: string): Promise<void>; close(): void }> {
  const socket = connect(Number(url.port), url.hostname);
  socket.write(`GET /realtime/events?channels=orders HTTP/1.0\r\nHost: ${url.host}\r\nAccept-Encoding: gzip\r\n\r\n`);
  let waiting: { readonly text: string; readonly done: () => void } | undefined;
  let tail = '';
  const read = (text: string): void => {
    tail = (tail + text).slice(-3 * rowBytes);
    if (waiting !== undefined && tail.includes(waiting.text)) {
      waiting.done();
      waiting = undefined;
    }
  };
  const gunzip = createGunzip().on('data', (chunk: Buffer) => read(chunk.toString()));
  gunzip.on('error', (error) => console.error(error));
  let head = Buffer.alloc(0);
  let body: ((chunk: Buffer) => void) | undefined;
  const opened = Promise.withResolvers<void>();
  socket.on('data', (chunk: Buffer) => {
    if (body !== undefined) return body(chunk);
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\r\n\r\n');
    if (end === -1) return;
    const isGzip = /content-encoding: gzip/i.test(head.subarray(0, end).toString());
    body = isGzip ? (each) => void gunzip.write(each) : (each) => read(each.toString());
    body(head.subarray(end + 4));
    opened.resolve();
  });
  await opened.promise;
  return {
    next: (text) => new Promise((done) => (waiting = { text, done })),
    close: () => socket.destroy(),
  };
}
