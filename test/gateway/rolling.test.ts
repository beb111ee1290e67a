// A deploy nobody feels: three nodes behind a gateway are restarted one after the other, under load. Clients are our own,
// bare EventSources, and the lines of the README; each must get every publication once and in order, and be moved at most
// once by each restart. LONG=1 takes 3,000 of them through nginx and HAProxy and looks at how the moves are spread.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Sobranie, type Platform } from '../../packages/client/src/index.ts';
import { EventClient, Refused } from '../support/clients.ts';
import { readDocument } from '../support/documents.ts';
import { gatewayKinds, type Gateway } from '../support/gateways.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { becomesReady, startNode, startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

const isLong = process.env['LONG'] === '1';
const clientCount = isLong ? 3_000 : 36;
const windowSeconds = isLong ? 20 : 1;
/** Beyond the window: exact where this machine has nothing else to do. */
const leaveSeconds = isLong ? 3 : 20;
const channels = Array.from({ length: 10 }, (_, index) => `roll:${index}`);
const publishEveryMs = isLong ? 200 : 20;

interface Client {
  readonly name: string;
  readonly channel: string;
  /** The next number that it must get. */
  next: number;
  /** When it was connected, the first time included: milliseconds. */
  readonly opened: number[];
  readonly faults: string[];
  end: () => void;
}

type Kind = (url: string, client: Client) => void;

const take = (client: Client, data: unknown): void => {
  const { n } = data as { n: number };
  if (n !== client.next) client.faults.push(`${client.name} got ${n} instead of ${client.next}`);
  client.next = n + 1;
};

type Sockets = new (url: string, protocols?: string[]) => WebSocket;

function counting(client: Client): Sockets {
  return class extends WebSocket {
    constructor(url: string, protocols?: string[]) {
      super(url, protocols);
      this.addEventListener('open', () => client.opened.push(performance.now()));
    }
  };
}

const sdk: Kind = (url, client) => {
  const platform = { WebSocket: counting(client) as unknown as NonNullable<Platform['WebSocket']> };
  const connection = new Sobranie(url, { transport: 'websocket', platform });
  connection.channel(client.channel).subscribe(({ data }) => take(client, data), {
    onGap: ({ reason }) => client.faults.push(`${client.name} had a gap: ${reason}`),
  });
  client.end = () => connection.close();
};

/** As a browser does it: comes back after `retry`, with the last id, and never after an answer that is no stream. */
const eventSource: Kind = (url, client) => {
  let lastEventId: string | undefined;
  let retryMs = 3_000;
  let stream: EventClient | undefined;
  let ended = false;
  client.end = () => {
    ended = true;
    void stream?.cut();
  };
  const connect = async (): Promise<void> => {
    try {
      stream = await EventClient.open(url, {
        query: `channels=${client.channel}`,
        timeoutMs: 60_000,
        ...(lastEventId === undefined ? {} : { lastEventId }),
        onEvent: (event) => {
          lastEventId = event.lastEventId;
          if (event.type === 'message') take(client, event.frame.data);
          if (event.type === 'gap') client.faults.push(`${client.name} had a gap`);
        },
      });
      client.opened.push(performance.now());
      await stream.closed;
      retryMs = stream.retryMs ?? retryMs;
    } catch (error) {
      if (error instanceof Refused) {
        client.faults.push(`${client.name} was refused for good: ${error.message}`);
        return;
      }
    }
    if (!ended) setTimeout(() => void connect(), retryMs);
  };
  void connect();
};

type StartReadme = (socket: Sockets, log: Pick<Console, 'log' | 'error'>) => void;

/** The block of the README that speaks the wire, with another address and channel. */
async function readmeModule(url: string, channel: string): Promise<StartReadme> {
  const block = readDocument('README.md').blocks.find(({ text }) => text.includes("socket = new WebSocket('ws://"));
  if (block === undefined) throw new Error('the README has no such block');
  const edits = { 'ws://localhost:3000': url.replace('http', 'ws'), 'customer:7': channel, 'eyJ…': 'nobody' };
  let { text } = block;
  for (const [from, to] of Object.entries(edits)) {
    if (!text.includes(from)) throw new Error(`the block has no ${from}`);
    text = text.replaceAll(from, to);
  }
  const file = join(temporaryFolder('readme'), `${channel.replace(':', '-')}.mjs`);
  writeFileSync(file, `export function start(WebSocket, console) {\n${text}\n}\n`);
  return ((await import(file)) as { start: StartReadme }).start;
}

const readme =
  (starts: ReadonlyMap<string, StartReadme>): Kind =>
  (_url, client) => {
    const log = (first: unknown, data?: unknown): void => {
      if (data === undefined) client.faults.push(`${client.name}: ${String(first)}`);
      else take(client, data);
    };
    const sockets = new Set<WebSocket>();
    let ended = false;
    const Counting = counting(client);
    class Kept extends Counting {
      constructor(url: string, protocols?: string[]) {
        if (ended) throw new Error('the test has ended');
        super(url, protocols);
        sockets.add(this);
      }
    }
    starts.get(client.channel)?.(Kept, { log, error: log });
    client.end = () => {
      ended = true;
      for (const socket of sockets) {
        socket.onclose = null;
        socket.close();
      }
    };
  };

let redis: TestRedis;
let nodes: RunningServer[] = [];
let settings: Readonly<Record<string, string>> = {};
const gateways: Gateway[] = [];
const clients: Client[] = [];
const published = new Map(channels.map((channel) => [channel, 0]));

beforeAll(async () => {
  const [started, { url }] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
  redis = started;
  settings = {
    SYNC: 'redis',
    REDIS_URL: redis.url,
    DATABASE_URL: url,
    TRUSTED_PROXIES: '127.0.0.1',
    DRAIN_WINDOW: String(windowSeconds),
    SHUTDOWN_TIMEOUT: '120',
    ...(isLong ? {} : { SSE_RETRY: '300' }),
  };
  nodes = await startNodes(3, () => settings);
  const ports = nodes.map(({ port }) => port);
  for (const kind of gatewayKinds) {
    if (['nginx', 'haproxy'].includes(kind.name)) gateways.push(await kind.start({ ports }));
  }
}, 120_000);

afterAll(async () => {
  for (const client of clients) client.end();
  for (const gateway of gateways) await gateway.close();
  await stopNodes(nodes);
  await redis?.close();
}, 120_000);

test(
  `${clientCount} clients of three kinds through a rolling restart: nothing lost or doubled, each moved once`,
  async () => {
    for (const gateway of gateways) {
      const starts = new Map<string, StartReadme>();
      for (const channel of channels) starts.set(channel, await readmeModule(gateway.url, channel));
      const kinds = { sdk, eventSource, readme: readme(starts) };
      for (const [name, kind] of Object.entries(kinds)) {
        for (let index = 0; index < clientCount / 6; index++) {
          const channel = channels[index % channels.length]!;
          const full = `${name} ${index} of gateway ${gateways.indexOf(gateway)}`;
          const client: Client = { name: full, channel, next: 1, opened: [], faults: [], end: () => undefined };
          clients.push(client);
          kind(gateway.url, client);
          if (index % 25 === 24) await Bun.sleep(50);
        }
      }
    }
    const isSubscribed = async (): Promise<boolean> => {
      const counts = await Promise.all(nodes.map(subscriptionsOf));
      return counts.reduce((sum, count) => sum + count, 0) === clientCount;
    };
    await until(isSubscribed, 'all are subscribed', 120_000, 250);
    let running = true;
    const publishing = publish(() => running);
    const report: string[] = [];
    for (const [index, node] of nodes.entries()) {
      const startedAt = performance.now();
      process.kill(node.pid, 'SIGTERM');
      expect(await node.waitForExit((windowSeconds + leaveSeconds) * 1_000)).toBe(0);
      const seconds = (performance.now() - startedAt) / 1_000;
      nodes[index] = await startNode({ ...settings, NODE_ID: `node-${index + 1}`, PORT: String(node.port) }, 60_000);
      await becomesReady(nodes[index], 60_000);
      await until(isSubscribed, 'all are subscribed again', 60_000, 250);
      const moves = clients.map(({ opened }) => opened.filter((at) => at > startedAt));
      const twice = clients.filter((_, each) => moves[each]!.length > 1);
      expect(twice.map(({ name }) => name).slice(0, 10)).toEqual([]);
      const perSecond = spread(moves.flat().map((at) => at - startedAt));
      const most = Math.max(...perSecond);
      const average = moves.flat().length / windowSeconds;
      report.push(
        `node ${index + 1}: gone after ${seconds.toFixed(1)} s; ${moves.flat().length} moved, ${average.toFixed(1)} a ` +
          `second on average and ${most} at most`,
      );
      if (isLong) expect([report.at(-1), most <= 3 * average]).toEqual([report.at(-1), true]);
    }
    running = false;
    await publishing;
    const behind = (): readonly Client[] => clients.filter(({ channel, next }) => next !== published.get(channel)! + 1);
    await until(
      () => behind().length === 0,
      () =>
        `all have got everything; behind: ${behind()
          .slice(0, 10)
          .map(({ name, next }) => `${name} at ${next}`)
          .join(', ')}`,
      60_000,
      100,
    );
    expect(clients.flatMap(({ faults }) => faults).slice(0, 10)).toEqual([]);
    if (isLong) report.push(`${[...published.values()].reduce((sum, count) => sum + count, 0)} publications`);
    if (isLong) await Bun.write(Bun.stdout, `${report.join('\n')}\n`);
  },
  isLong ? 600_000 : 180_000,
);

async function subscriptionsOf(node: RunningServer): Promise<number> {
  const text = await (await fetch(`${node.url}/metrics`)).text();
  return Number(/^sobranie_subscriptions_active (\d+)$/m.exec(text)?.[1]);
}

/** Through the gateways in turns; each publication has a key and is repeated until it was accepted. */
async function publish(goesOn: () => boolean): Promise<void> {
  for (let turn = 0; goesOn(); turn++) {
    const channel = channels[turn % channels.length]!;
    const n = published.get(channel)! + 1;
    for (let tries = 0; ; tries++) {
      const { url } = gateways[(turn + tries) % gateways.length]!;
      const answer = await fetch(`${url}/realtime/publish`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'idempotency-key': `${channel} ${n}` },
        body: JSON.stringify({ channel, data: { n } }),
        signal: AbortSignal.timeout(20_000),
      }).catch(() => undefined);
      if (answer?.ok === true) break;
      if (tries > 20) throw new Error(`${channel} ${n} is not accepted`);
      await Bun.sleep(100);
    }
    published.set(channel, n);
    await Bun.sleep(publishEveryMs);
  }
}

function spread(moments: readonly number[]): number[] {
  const counts: number[] = [];
  for (const at of moments) counts[Math.floor(at / 1_000)] = (counts[Math.floor(at / 1_000)] ?? 0) + 1;
  return Array.from(counts, (count) => count ?? 0);
}
