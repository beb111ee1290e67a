// What recoverable channels with subscribers cost Redis while nothing happens in them. A node looks every two seconds where
// their logs stand, and asked for each by itself: 125 channels made some 1,900 commands a minute, and 500 made 3,000.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import type { Redis } from 'ioredis';
import type { SyncEvents } from '../../src/core/sync-adapter.ts';
import { redisTarget } from '../../src/redis/target.ts';
import { Rules } from '../../src/rules/rules.ts';
import { RedisAdapter } from '../../src/sync/redis/adapter.ts';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from '../support/doubles.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

const rounds = 4;
let redis: TestRedis;
let monitor: Redis;
/** By prefix: what its node sent in each round. A round begins with the message that the node sends to itself. */
const sent = new Map<string, string[][]>();

beforeAll(async () => {
  redis = await startRedis();
  monitor = await redis.admin.monitor();
  monitor.on('monitor', (_time: string, [name = '', ...args]: string[], source: string) => {
    // What scripts do within the server takes no round trip.
    if (source === 'lua') return;
    const prefix = args.map((arg) => /^(heads\d+):/.exec(arg)?.[1]).find((found) => found !== undefined);
    const theirs = prefix === undefined ? undefined : sent.get(prefix);
    if (/^publish$/i.test(name)) theirs?.push([]);
    theirs?.at(-1)?.push(name.toLowerCase());
  });
}, 30_000);
afterAll(async () => {
  monitor.disconnect();
  await redis.close();
}, 30_000);

/** Of a quiet round of a node with so many channels; and the channels that it was told of meanwhile. */
async function commandsOf(channels: number): Promise<{ readonly names: readonly string[]; readonly told: number }> {
  const prefix = `heads${channels}`;
  const told = new Set<string>();
  const events: SyncEvents = {
    publication: () => undefined,
    head: (channel) => void told.add(channel),
    settled: () => undefined,
  };
  const adapter = new RedisAdapter({
    target: redisTarget({ url: redis.url }),
    prefix,
    nodeId: 'n1',
    clock: systemClock,
    observer: silentObserver,
    log: () => undefined,
  });
  await adapter.start(events);
  const rule = new Rules({ rules: [{ channels: '*' }] }).for('posts');
  expect(rule.recoverable).toBe(true);
  for (let index = 0; index < channels; index++) await adapter.subscribe(`room:${index}`, rule);
  const theirs: string[][] = [];
  sent.set(prefix, theirs);
  // The last one is not over.
  await until(() => theirs.length > rounds, 'rounds have passed', 60_000);
  await adapter.close();
  // The first time a script comes whole; and a busy machine may put what belongs to one round into the next.
  const names = theirs.slice(1, rounds).toSorted((one, other) => one.length - other.length)[1] ?? [];
  return { names, told: told.size };
}

test('idle channels cost as many commands as one, and each is looked at', async () => {
  const [none, one, many, crowd] = await Promise.all([0, 1, 125, 500].map(commandsOf));
  expect(none?.names.length).toBe((one?.names.length ?? 0) - 1);
  expect(many?.names).toEqual(one?.names ?? []);
  expect(crowd?.names).toEqual(one?.names ?? []);
  expect(one?.names.filter((name) => name.startsWith('eval')).length).toBe(2);
  // A hundred at a time.
  expect([none?.told, one?.told, many?.told]).toEqual([0, 1, 125]);
  expect(crowd?.told).toBeGreaterThan(200);
}, 120_000);
