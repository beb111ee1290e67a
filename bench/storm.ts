// A crowd that comes back at once, as after a deploy: 10,000 clients, each 50 messages behind, first as WebSockets and
// then as event streams, all on one channel and spread over 1,000. Over every engine but memory the node was started a
// moment before, so it has seen nothing of what they lack; in memory that would be the end of the history.
//
// While it lasts, somebody else publishes to a channel of their own, and readiness is asked for: both are held against
// bars as well. A storm in which a client is refused, told of a gap or left waiting is no measurement. One that is told to
// retry does so; the table says how often that was.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CursorWriter } from '../src/protocol/cursor.ts';
import { startOurs } from './contenders.ts';
import { buildLoadClient } from './load-client.ts';
import type { BenchOptions } from './options.ts';
import { startDatabase } from './postgres.ts';
import { BenchError, endWithBench, freePort, type ServerProcess } from './server-process.ts';
import { startKafka, startNats, startRabbit, type Broker } from './sync-brokers.ts';
import { startRedis } from './sync-nodes.ts';
import { apiKey, asBackend, StormWitness, type Witnessed } from './storm-witness.ts';
import { printBars, printTable, ratio } from './table.ts';

const behind = 50;
const data = { text: 'x'.repeat(100) };
const channelsPerPublish = 100;
const publishTriesMax = 20;
const publishAgainMs = 250;
const ratioMax = 2.5;
const readsPerChannelMax = 2;
const publishP99MsMax = 100;
const coldSecondsMax = 4;
const afterLeavingMs = 500;

type Layer = 'memory' | 'postgres' | 'redis' | Broker['layer'];
type Transport = 'websocket' | 'events';

interface Stormed {
  readonly done: number;
  readonly refused: number;
  readonly closed: number;
  readonly gaps: number;
  /** Those that a client may retry apart. */
  readonly errors: number;
  readonly retried: number;
  readonly repeated: number;
  readonly missed: number;
  readonly connectSeconds: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly rssKb: number;
  readonly clientCpuSeconds: number;
}

interface Outcome extends Stormed, Witnessed {
  readonly layer: Layer;
  readonly transport: Transport;
  readonly channels: number;
  readonly readsPerChannel: number;
  /** By the server's own timers, as opposed to what a client on the same processors sees of it. */
  readonly loopP99Ms: number;
  readonly loopMaxMs: number;
  /** The slowest publish while all clients leave at once. */
  readonly leavingMaxMs: number;
}

type Run = (layer: Layer, start: () => Promise<ServerProcess>) => Promise<void>;

export function storm(options: BenchOptions): Promise<void> {
  return stormOver(options, async (run) => {
    await over(run, 'postgres');
    const redis = await startRedis();
    try {
      await over(run, 'redis', { REDIS_URL: redis.url });
    } finally {
      await redis.close();
    }
  });
}

export function stormNats(options: BenchOptions): Promise<void> {
  return stormOverBroker(options, startNats);
}

export function stormRabbit(options: BenchOptions): Promise<void> {
  return stormOverBroker(options, startRabbit);
}

export function stormKafka(options: BenchOptions): Promise<void> {
  return stormOverBroker(options, startKafka);
}

function stormOverBroker(options: BenchOptions, startBroker: () => Promise<Broker>): Promise<void> {
  return stormOver(options, async (run) => {
    const broker = await startBroker();
    try {
      await over(run, broker.layer, broker.environment);
    } finally {
      await broker.close();
    }
  });
}

/** In memory first, which the others are held against. */
async function stormOver(options: BenchOptions, overOthers: (run: Run) => Promise<void>): Promise<void> {
  if (options.baselinesOnly) return;
  const clients = options.quick ? 2_000 : 10_000;
  const outcomes: Outcome[] = [];
  const run: Run = async (layer, start) => {
    for (const transport of ['websocket', 'events'] as const) {
      for (const channels of [1, options.quick ? 200 : 1_000]) {
        outcomes.push(await stormOnce({ layer, transport, channels, clients, start }));
      }
    }
  };
  await over(run, 'memory', { ROLE: 'ws,sse,api' });
  await overOthers(run);
  printTable(
    `${clients.toLocaleString('en')} clients come back at once, each ${behind} messages behind`,
    [
      ...[
        '',
        'channels',
        'last, s',
        'p50, s',
        'told to retry',
        'reads of the log',
        'publish p99, ms',
        'max',
        'node’s loop late p99, ms',
      ],
      ...['max', 'publisher’s loop late p99, ms', 'client, cpu s', 'all leave: publish max', 'node, MiB'],
    ],
    outcomes.map((outcome) => [
      `${outcome.transport === 'events' ? 'event streams' : 'WebSockets'}, ${outcome.layer}`,
      outcome.channels.toLocaleString('en'),
      ratio(outcome.seconds),
      ratio(outcome.p50Ms / 1_000),
      outcome.retried,
      ratio(outcome.readsPerChannel * outcome.channels),
      outcome.publishP99Ms.toFixed(1),
      outcome.publishMaxMs.toFixed(0),
      outcome.loopP99Ms.toFixed(1),
      outcome.loopMaxMs.toFixed(0),
      outcome.ownLoopP99Ms.toFixed(1),
      outcome.clientCpuSeconds,
      outcome.leavingMaxMs.toFixed(0),
      Math.round(outcome.rssKb / 1_024),
    ]),
  );
  printBars(outcomes.flatMap((outcome) => barsOf(outcome, outcomes)));
}

/** Each layer over a database of its own: one that was led by another layer tells everybody a gap. */
async function over(run: Run, layer: Layer, more: Readonly<Record<string, string>> = {}): Promise<void> {
  const database = await startDatabase();
  try {
    const settings = { DATABASE_URL: database.url, API_KEY: apiKey, SYNC: layer, ...more };
    await run(layer, () => startOurs(settings));
  } finally {
    await database.close();
  }
}

interface StormPlan {
  readonly layer: Layer;
  readonly transport: Transport;
  readonly channels: number;
  readonly clients: number;
  readonly start: () => Promise<ServerProcess>;
}

async function stormOnce({ layer, transport, channels, clients, start }: StormPlan): Promise<Outcome> {
  const run = `${transport}-${channels}-${Date.now().toString(36)}`;
  const names = Array.from({ length: channels }, (_, index) => `storm:${run}-${index}`);
  let server = await start();
  try {
    const positions = await publishBehind(server, names);
    if (layer !== 'memory') {
      await server.stop();
      server = await start();
    }
    // What a process pays once for the first clients it sees is not what a crowd costs.
    await warmUp(server, transport, `storm:warm-${run}`);
    const lines = names.map((name, index) => lineOf(transport, name, positions[index] ?? { epoch: '', offset: 0 }));
    const witness = new StormWitness(server);
    await witness.start(`victim:${run}`);
    const before = await seenBy(server);
    const { stormed, leave } = await runStorm(server, transport, lines, clients);
    const witnessed = witness.look();
    const { logReads, loopP99Ms, loopMaxMs } = await seenBy(server);
    await leave();
    await Bun.sleep(afterLeavingMs);
    const { publishMaxMs: leavingMaxMs } = await witness.stop();
    requireWhole(layer, transport, clients, stormed);
    const readsPerChannel = (logReads - before.logReads) / channels;
    return {
      ...stormed,
      ...witnessed,
      layer,
      transport,
      channels,
      readsPerChannel,
      loopP99Ms,
      loopMaxMs,
      leavingMaxMs,
    };
  } finally {
    await server.stop();
  }
}

interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** Answers where each channel stood before the messages that the clients will lack. */
async function publishBehind(server: ServerProcess, names: readonly string[]): Promise<Position[]> {
  const first = await publishEach(server, names);
  for (let count = 0; count < behind; count++) await publishEach(server, names);
  return first;
}

async function publishEach(server: ServerProcess, names: readonly string[]): Promise<Position[]> {
  const positions: Position[] = [];
  for (let at = 0; at < names.length; at += channelsPerPublish) {
    positions.push(...(await publishPatiently(server, names.slice(at, at + channelsPerPublish))));
  }
  return positions;
}

/** A sync layer that does not answer in time, on a machine that is busy, may have taken it: the key makes a retry safe. */
async function publishPatiently({ port }: ServerProcess, channels: readonly string[]): Promise<Position[]> {
  const body = JSON.stringify({ channels, data, key: crypto.randomUUID() });
  for (let tries = 1; ; tries++) {
    const response = await fetch(`http://127.0.0.1:${port}/realtime/publish`, {
      method: 'POST',
      headers: asBackend,
      body,
    });
    if (response.ok) return (await response.json()) as Position[];
    const answer = await response.text();
    if (response.status !== 503 || tries === publishTriesMax)
      throw new BenchError(`publishing answered ${response.status}: ${answer}`);
    await Bun.sleep(publishAgainMs);
  }
}

/** A line of the client's plan: the path, the first frame of a WebSocket, the first offset that is missing. */
function lineOf(transport: Transport, channel: string, since: Position): string {
  if (transport === 'websocket') {
    const hello = JSON.stringify({ type: 'subscribe', channel, since: { epoch: since.epoch, offset: since.offset } });
    return `/realtime/ws\t${hello}\t${since.offset + 1}`;
  }
  const cursor = new CursorWriter([channel]);
  cursor.set(channel, since);
  return `/realtime/events?channels=${channel}&since=${cursor.text()}\t\t${since.offset + 1}`;
}

async function warmUp(server: ServerProcess, transport: Transport, channel: string): Promise<void> {
  const [first] = await publishBehind(server, [channel]);
  if (first === undefined) return;
  const { leave } = await runStorm(server, transport, [lineOf(transport, channel, first)], 300);
  await leave();
}

async function runStorm(
  server: ServerProcess,
  transport: Transport,
  lines: readonly string[],
  clients: number,
): Promise<{ readonly stormed: Stormed; readonly leave: () => Promise<void> }> {
  const program = await buildLoadClient('storm');
  const plan = join(program, `../plan-${await freePort()}`);
  await Bun.write(plan, lines.map((line) => `${line}\n`).join(''));
  try {
    const args = ['--port', server.port, '--pid', server.pid, '--connections', clients, '--expect', behind];
    const child = Bun.spawn(
      [
        ...[program, ...args.map(String), '--plan', plan, '--deadline', '60'],
        ...(transport === 'events' ? ['--events'] : []),
      ],
      { stdin: 'pipe', stdout: 'pipe', stderr: 'pipe' },
    );
    endWithBench(child);
    const complaint = child.stderr.text();
    const report = await firstLine(child.stdout);
    if (report === undefined) throw new BenchError(`the storm's client ended: ${(await complaint).trim()}`);
    const leave = async (): Promise<void> => {
      await child.stdin.end();
      await child.exited;
      if ((await complaint) !== '') console.error((await complaint).trim());
    };
    return { stormed: JSON.parse(report) as Stormed, leave };
  } finally {
    await rm(plan, { force: true });
  }
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string | undefined> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes('\n')) return text;
  }
  return undefined;
}

function requireWhole(layer: Layer, transport: Transport, clients: number, stormed: Stormed): void {
  const { done, refused, closed, gaps, errors, repeated, missed } = stormed;
  if (done === clients && refused + closed + gaps + errors + repeated + missed === 0) return;
  throw new BenchError(
    `${transport} over ${layer}: ${done} of ${clients} were sent everything; refused ${refused}, closed ${closed}, ` +
      `gaps ${gaps}, errors ${errors}, repeated ${repeated}, missed ${missed}`,
  );
}

/** The node's own figures; how late its loop was counts since the last look. */
async function seenBy({ port }: ServerProcess): Promise<{ logReads: number; loopP99Ms: number; loopMaxMs: number }> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const value = (name: string, label: string): number => {
    const sample = new RegExp(`^${name}\\{[^}]*${label}[^}]*\\} (\\S+)$`, 'm').exec(text);
    return Number(sample?.[1] ?? Number.NaN);
  };
  const late = (statistic: string): number => {
    return value('sobranie_event_loop_lag_seconds', `statistic="${statistic}"`) * 1_000;
  };
  return {
    logReads: value('sobranie_history_reads_total', 'source="log"'),
    loopP99Ms: late('p99'),
    loopMaxMs: late('max'),
  };
}

function barsOf(outcome: Outcome, all: readonly Outcome[]) {
  const { layer, transport, channels, seconds } = outcome;
  const name = `${transport}, ${channels}, ${layer}`;
  const reference = all.find((other) => {
    return other.layer === 'memory' && other.transport === transport && other.channels === channels;
  });
  const bars = [
    { name: `${name}: publish p99, ms`, measured: outcome.publishP99Ms, atMost: publishP99MsMax },
    { name: `${name}: looks that were not ready`, measured: outcome.unready, atMost: 0 },
  ];
  if (layer === 'memory') return bars;
  bars.push(
    {
      name: `${name}: last one, beside memory`,
      measured: seconds / (reference?.seconds ?? Number.NaN),
      atMost: ratioMax,
    },
    { name: `${name}: reads of the log per channel`, measured: outcome.readsPerChannel, atMost: readsPerChannelMax },
  );
  if (channels > 1) bars.push({ name: `${name}: last one, s`, measured: seconds, atMost: coldSecondsMax });
  return bars;
}
