// A Redis that was held up just as a node came to it, and did not answer in time what it is. It then counted as a server that
// keeps nothing: each channel got another epoch and each subscriber a gap, although nothing was lost. And a node of a cluster
// counted as a server alone.

import { afterEach, expect, test } from 'bun:test';
import { connect, createServer, type AddressInfo } from 'node:net';
import type { Position } from '../../src/protocol/position.ts';
import { redisTarget } from '../../src/redis/target.ts';
import { openRedis } from '../../src/redis/client.ts';
import { Rules } from '../../src/rules/rules.ts';
import { RedisAdapter } from '../../src/sync/redis/adapter.ts';
import { systemClock } from '../../src/time/clock.ts';
import { isPassingFailure } from '../../src/time/patiently.ts';
import { silentObserver } from '../support/doubles.ts';
import { patient } from '../support/patience.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

interface Holding {
  url: string;
  /** Of connections that begin from now on. */
  holds: boolean;
  /** How often it was asked. */
  held: number;
}

/** Longer than the second that any command may take. */
const heldMs = 1_300;

/** Leads to the server. What a connection sends is held for a while from where it asks this for the `time`-th time. */
async function startHolding(port: number, question: string, time = 1): Promise<Holding> {
  const holding: Holding = { url: '', holds: false, held: 0 };
  const server = createServer((client) => {
    const upstream = connect({ host: '127.0.0.1', port });
    let passing = Promise.resolve();
    let left = holding.holds ? time : Infinity;
    client.on('data', (chunk: Buffer) => {
      if (chunk.includes(question) && --left === 0) {
        holding.held++;
        passing = passing.then(() => Bun.sleep(heldMs));
      }
      passing = passing.then(() => void (upstream.destroyed || upstream.write(chunk)));
    });
    upstream.on('data', (chunk: Buffer) => client.write(chunk));
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => server.close());
  holding.url = `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return holding;
}

const rule = new Rules({ rules: [{ channels: '*' }] }).for('kept');

interface Node {
  readonly adapter: RedisAdapter;
  /** Those of all logs that it was told. */
  readonly heads: Position[];
}

async function startAdapter(url: string): Promise<Node> {
  const heads: Position[] = [];
  const adapter = new RedisAdapter({
    target: redisTarget({ url }),
    prefix: 'facts',
    nodeId: 'node',
    compressFrom: 0,
    clock: systemClock,
    observer: silentObserver,
    log: () => undefined,
  });
  closers.push(() => adapter.close());
  await adapter.start({
    publication: () => undefined,
    head: (_channel, head) => void heads.push(head),
    settled: () => undefined,
  });
  return { adapter, heads };
}

/** The epoch of the next publication after Redis was restarted, and those that the node was told meanwhile. */
async function epochsAfter(
  { adapter, heads }: Node,
  restart: () => Promise<void>,
): Promise<{ before: string; told: Set<string> }> {
  const before = await adapter.subscribe('kept', rule);
  await restart();
  const told = heads.length;
  await until(() => heads.length > told && adapter.health().up, 'it is there again, and a head is told', 60_000);
  const appended = await adapter.publish({ channel: 'kept', rule, data: '1', at: Date.now() });
  return { before: before!.epoch, told: new Set([...heads.slice(told), appended!].map(({ epoch }) => epoch)) };
}

test('what is not answered in time is asked again: a server that keeps everything keeps its epochs', async () => {
  const redis = await startRedis({ persist: true });
  closers.push(() => redis.close());
  const holding = await startHolding(redis.port, 'append*');
  const node = await startAdapter(holding.url);
  const { before, told } = await epochsAfter(node, async () => {
    holding.holds = true;
    await redis.restart();
    await until(() => holding.held > 0, 'it came back, and asks', 60_000);
  });
  expect(told).toEqual(new Set([before]));
}, 120_000);

// It wrote its file before it answered, except while it wrote that anew: a power cut in that time took what subscribers had,
// and its numbers were given a second time.
test('a server that leaves its file unwritten for a while keeps no epoch', async () => {
  const redis = await startRedis({ persist: true, args: ['--no-appendfsync-on-rewrite', 'yes'] });
  closers.push(() => redis.close());
  const { before, told } = await epochsAfter(await startAdapter(redis.url), () => redis.restart());
  expect(told.has(before)).toBe(false);
}, 120_000);

test('a server that does not answer what it is has not been reached', async () => {
  const redis = await startRedis();
  closers.push(() => redis.close());
  // The driver asks first, whether it is ready.
  const holding = await startHolding(redis.port, '\r\ninfo\r\n', 2);
  holding.holds = true;
  const error: unknown = await openRedis({ target: redisTarget({ url: holding.url }), clock: systemClock }).then(
    ({ client }) => void closers.push(() => client.disconnect()),
    (reason: unknown) => reason,
  );
  expect(String(error)).toContain('Redis could not be reached');
  // So a start waits for it.
  expect(isPassingFailure(error)).toBe(true);
}, 120_000);
