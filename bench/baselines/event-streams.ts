// Bare event streams on Bun, in two manners given as the argument:
//   joined  what one tick published becomes one shared chunk, and every stream takes one enqueue of it;
//   each    one enqueue per message and stream, which is what a first attempt looks like.
// Published through a WebSocket at any path that asks for an upgrade; no ids, no resume, no limits.
import { commandOf, listeningLine, messageText } from './wire.ts';

interface Stream {
  enqueue(chunk: Uint8Array<ArrayBuffer>): void;
}

const joined = process.argv[2] === 'joined';
const streams = new Set<Stream>();
const encoder = new TextEncoder();
const welcome = encoder.encode('retry: 2000\n\nevent: welcome\ndata: {}\n\n');
const headers = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
};
const strategy = { highWaterMark: 65_536, size: (chunk?: Uint8Array<ArrayBuffer>) => chunk?.byteLength ?? 0 };
let waiting = '';

function writeToAll(text: string): void {
  const chunk = encoder.encode(text);
  for (const stream of streams) stream.enqueue(chunk);
}

function flush(): void {
  const text = waiting;
  waiting = '';
  writeToAll(text);
}

function publish(text: string): void {
  if (!joined) {
    writeToAll(text);
    return;
  }
  if (waiting === '') setImmediate(flush);
  waiting += text;
}

function openStream(): Response {
  let own: Stream | undefined;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      start(stream) {
        own = stream;
        streams.add(stream);
        stream.enqueue(welcome);
      },
      cancel() {
        if (own) streams.delete(own);
      },
    },
    strategy,
  );
  return new Response(body, { headers });
}

const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  idleTimeout: 0,
  fetch(request, bunServer) {
    if (request.headers.get('upgrade') === 'websocket' && bunServer.upgrade(request)) return undefined;
    return openStream();
  },
  websocket: {
    message(_socket, text) {
      publish(`event: message\ndata: ${messageText(commandOf(text))}\n\n`);
    },
  },
});

console.log(listeningLine(server.port));
