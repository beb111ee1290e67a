// Event streams with and without compression, side by side on two servers: bytes on the wire, processor time of the
// server and time until delivered, for rows of 2 kB to streams with the same channel. The client reads bytes and counts
// them; the last stream decompresses, to see what arrives and when.
import { connect, type Socket } from 'node:net';
import { createGunzip } from 'node:zlib';
import { cpuMicrosOf } from './connect.ts';
import { startOurs } from './contenders.ts';
import type { BenchOptions } from './options.ts';
import { BenchError, type ServerProcess } from './server-process.ts';
import { median, percentile, printTable, ratio } from './table.ts';

const streamsMax = 500;
const rowBytes = 2_000;
const apiKey = 'the-key-of-this-bench';

interface Round {
  readonly bytesPerDelivery: number;
  readonly microsPerDelivery: number;
  readonly p50: number;
}

export async function sseCompress(options: BenchOptions): Promise<void> {
  const rounds = options.quick ? 2 : 7;
  const rows = options.quick ? 50 : 200;
  const servers = {
    plain: await startOurs({ SYNC: 'memory', API_KEY: apiKey }),
    gzip: await startOurs({ SYNC: 'memory', API_KEY: apiKey, SSE_COMPRESSION: 'true' }),
  };
  const found: Record<'plain' | 'gzip', Round[]> = { plain: [], gzip: [] };
  try {
    for (let round = 0; round < rounds; round++) {
      // Each first in turn, so that neither always meets a warmer machine.
      const order = round % 2 === 0 ? (['plain', 'gzip'] as const) : (['gzip', 'plain'] as const);
      for (const name of order) found[name].push(await run(servers[name], rows));
    }
  } finally {
    await Promise.all([servers.plain.stop(), servers.gzip.stop()]);
  }
  const figures = (name: 'plain' | 'gzip') => ({
    bytes: median(found[name].map(({ bytesPerDelivery }) => bytesPerDelivery)),
    micros: median(found[name].map(({ microsPerDelivery }) => microsPerDelivery)),
    p50: median(found[name].map(({ p50 }) => p50)),
  });
  const [plain, gzip] = [figures('plain'), figures('gzip')];
  printTable(
    `${streamsMax} event streams of one channel, rows of ${rowBytes} bytes`,
    ['', 'bytes per delivery', 'µs of processor per delivery', 'p50 ms'],
    [
      ['plain', Math.round(plain.bytes), plain.micros.toFixed(2), plain.p50.toFixed(1)],
      ['gzip', Math.round(gzip.bytes), gzip.micros.toFixed(2), gzip.p50.toFixed(1)],
      ['ratio', ratio(gzip.bytes / plain.bytes), ratio(gzip.micros / plain.micros), ratio(gzip.p50 / plain.p50)],
    ],
  );
}

async function run(server: ServerProcess, rows: number): Promise<Round> {
  const url = new URL(`http://127.0.0.1:${server.port}`);
  let bytes = 0;
  const sockets: Socket[] = [];
  for (let index = 0; index < streamsMax; index++) {
    const socket = connect(Number(url.port), url.hostname);
    socket.write(
      `GET /realtime/events?channels=orders HTTP/1.1\r\nHost: ${url.host}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n`,
    );
    sockets.push(socket);
  }
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('data', resolve))));
  const watcher = await watch(url);
  await Bun.sleep(200);
  for (const socket of sockets) socket.on('data', (chunk) => (bytes += chunk.length));
  const cpuBefore = await cpuMicrosOf(server.pid);
  const times: number[] = [];
  for (let id = 0; id < rows; id++) {
    const begun = performance.now();
    const arrived = watcher.next(`"id":${id},`);
    const answer = await fetch(`${url.origin}/realtime/publish`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${apiKey}` },
      body: JSON.stringify({ channel: 'orders', data: row(id) }),
    });
    if (!answer.ok) throw new BenchError(`a publication was answered ${answer.status}`);
    await arrived;
    times.push(performance.now() - begun);
  }
  await Bun.sleep(200);
  const micros = (await cpuMicrosOf(server.pid)) - cpuBefore;
  for (const socket of sockets) socket.destroy();
  watcher.close();
  const deliveries = rows * streamsMax;
  return { bytesPerDelivery: bytes / deliveries, microsPerDelivery: micros / deliveries, p50: percentile(times, 0.5) };
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

/** As an order is: names and prices that differ, a sentence, lines. */
function row(id: number): object {
  const lines = Array.from({ length: 40 }, (_, line) => ({
    sku: `SKU-${(id * 7919 + line * 104_729) % 9_973}`,
    quantity: (id + line) % 9,
    price: ((id * 31 + line * 17) % 10_000) / 100,
  }));
  return { id, customer: `Customer ${(id * 6151) % 99_991}`, note: 'Delivered to the neighbour, second floor.', lines };
}
