// Compression on and off, side by side on two servers: bytes on the wire, processor time of the server and time until
// delivered, for rows of 2 kB to many connections of one channel. How they connect and count is each transport's part.
import { cpuMicrosOf } from './connect.ts';
import { startOurs } from './contenders.ts';
import type { BenchOptions } from './options.ts';
import { BenchError, type ServerProcess } from './server-process.ts';
import { median, percentile, printTable, ratio } from './table.ts';

/** Beside the one that reads what it gets. */
export const connectionsMax = 500;
export const rowBytes = 2_000;
const apiKey = 'the-key-of-this-bench';

/** Connections that are all there. */
export interface Crowd {
  /** Bytes that came so far, but for those of the one that reads. */
  bytes(): number;
  /** Resolves when the one that reads has had this text. */
  next(text: string): Promise<void>;
  close(): void;
}

export interface Comparison {
  readonly title: string;
  /** What turns compression on. */
  readonly setting: string;
  readonly compressed: string;
  gather(server: ServerProcess, compresses: boolean): Promise<Crowd>;
}

interface Round {
  readonly bytesPerDelivery: number;
  readonly microsPerDelivery: number;
  readonly p50: number;
}

export async function compareCompression(options: BenchOptions, comparison: Comparison): Promise<void> {
  const rounds = options.quick ? 2 : 7;
  const rows = options.quick ? 50 : 200;
  const servers = {
    plain: await startOurs({ SYNC: 'memory', API_KEY: apiKey }),
    compressed: await startOurs({ SYNC: 'memory', API_KEY: apiKey, [comparison.setting]: 'true' }),
  };
  const found: Record<keyof typeof servers, Round[]> = { plain: [], compressed: [] };
  try {
    for (let round = 0; round < rounds; round++) {
      // Each first in turn, so that neither always meets a warmer machine.
      const order = round % 2 === 0 ? (['plain', 'compressed'] as const) : (['compressed', 'plain'] as const);
      for (const name of order) {
        const crowd = await comparison.gather(servers[name], name === 'compressed');
        found[name].push(await run(servers[name], crowd, rows));
      }
    }
  } finally {
    await Promise.all([servers.plain.stop(), servers.compressed.stop()]);
  }
  const figures = (name: keyof typeof servers) => ({
    bytes: median(found[name].map(({ bytesPerDelivery }) => bytesPerDelivery)),
    micros: median(found[name].map(({ microsPerDelivery }) => microsPerDelivery)),
    p50: median(found[name].map(({ p50 }) => p50)),
  });
  const [plain, less] = [figures('plain'), figures('compressed')];
  printTable(
    `${connectionsMax} ${comparison.title} of one channel, rows of ${rowBytes} bytes`,
    ['', 'bytes per delivery', 'µs of processor per delivery', 'p50 ms'],
    [
      ['plain', Math.round(plain.bytes), plain.micros.toFixed(2), plain.p50.toFixed(1)],
      [comparison.compressed, Math.round(less.bytes), less.micros.toFixed(2), less.p50.toFixed(1)],
      ['ratio', ratio(less.bytes / plain.bytes), ratio(less.micros / plain.micros), ratio(less.p50 / plain.p50)],
    ],
  );
}

async function run(server: ServerProcess, crowd: Crowd, rows: number): Promise<Round> {
  await Bun.sleep(200);
  const bytesBefore = crowd.bytes();
  const cpuBefore = await cpuMicrosOf(server.pid);
  const times: number[] = [];
  for (let id = 0; id < rows; id++) {
    const begun = performance.now();
    const arrived = crowd.next(`"id":${id},`);
    const answer = await fetch(`http://127.0.0.1:${server.port}/realtime/publish`, {
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
  const bytes = crowd.bytes() - bytesBefore;
  crowd.close();
  const deliveries = rows * connectionsMax;
  return { bytesPerDelivery: bytes / deliveries, microsPerDelivery: micros / deliveries, p50: percentile(times, 0.5) };
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
