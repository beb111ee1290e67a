// WebSockets with and without compression: `fanout --compress`. The client reads bytes and counts them; the last one
// decompresses, to see what arrives and when.
import { connect } from 'node:net';
import { compareCompression, connectionsMax, type Crowd } from './compress.ts';
import type { BenchOptions } from './options.ts';
import { BenchError, type ServerProcess } from './server-process.ts';

export function wsCompress(options: BenchOptions): Promise<void> {
  return compareCompression(options, {
    title: 'WebSockets',
    setting: 'WS_COMPRESSION',
    compressed: 'deflate',
    gather,
  });
}

async function gather(server: ServerProcess, compresses: boolean): Promise<Crowd> {
  const path = `/realtime/ws?channels=orders${compresses ? '&deflate=1' : ''}`;
  let bytes = 0;
  const sockets = Array.from({ length: connectionsMax }, () => {
    const socket = connect(server.port, '127.0.0.1');
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    return socket;
  });
  await Promise.all(
    sockets.map(
      (socket) =>
        new Promise<void>((resolve) => {
          let text = '';
          socket.on('data', (chunk: Buffer) => {
            bytes += chunk.length;
            if (text.includes('"subscribed"')) return;
            text += chunk.toString('latin1');
            if (text.includes('"subscribed"')) resolve();
          });
        }),
    ),
  );
  const watcher = await watch(`ws://127.0.0.1:${server.port}${path}`);
  return {
    bytes: () => bytes,
    next: (text) => watcher.next(text),
    close: () => {
      for (const socket of sockets) socket.destroy();
      watcher.close();
    },
  };
}

/** One more WebSocket, which reads its frames. */
async function watch(url: string): Promise<Pick<Crowd, 'next' | 'close'>> {
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  let waiting: { readonly text: string; readonly done: () => void } | undefined;
  const opened = Promise.withResolvers<void>();
  socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
    const frame = typeof data === 'string' ? data : new TextDecoder().decode(Bun.inflateSync(new Uint8Array(data)));
    if (frame.includes('"subscribed"')) opened.resolve();
    if (waiting === undefined || !frame.includes(waiting.text)) return;
    waiting.done();
    waiting = undefined;
  };
  socket.onclose = ({ code }) => opened.reject(new BenchError(`the reader was closed: ${code}`));
  await opened.promise;
  return {
    next: (text) => new Promise((done) => (waiting = { text, done })),
    close: () => socket.close(),
  };
}
