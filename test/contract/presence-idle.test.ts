// What idle members cost Redis. A node compared its lists with Redis one by one at each sign of life: one channel made 20
// commands a minute, and twenty made 400. What is asked time and again is asked of all channels at once.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import type { Redis } from 'ioredis';
import { NodePresence } from '../../src/presence/presence.ts';
import { HandClock, RecordingFanout, RecordingOutlet } from '../support/hub.ts';
import { openRedisPresence } from '../support/redis-presence-harness.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

const beats = 3;
const beatMs = 3_000;
let redis: TestRedis;
let monitor: Redis;
/** Names of the commands that touched keys of presence, those of scripts among them. */
let commands: string[] = [];
let fences = 0;
/** Some of them were sent by the node as they are, to compare its lists. */
let haveCompared = false;

beforeAll(async () => {
  redis = await startRedis();
  monitor = await redis.admin.monitor();
  monitor.on('monitor', (_time: string, [name = '', ...args]: string[], source: string) => {
    // Not the topics of channels, nor what the sync adapter does for itself.
    if (args[0] === 'fence') fences++;
    if (!args.some((arg) => /^idle\d+:(?:p\w|presence):/.test(arg))) return;
    commands.push(name.toLowerCase());
    haveCompared ||= source !== 'lua' && /get$/i.test(name);
  });
}, 30_000);
afterAll(async () => {
  monitor.disconnect();
  await redis.close();
}, 30_000);

/** A busy machine may take longer than a node waits. */
async function patiently<Value>(ask: () => Value | Promise<Value>): Promise<Value> {
  for (const deadline = performance.now() + 40_000; ;) {
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await Bun.sleep(20);
    }
  }
}

/** Of a sign of life of a node that has a member in each of so many channels. What came late before it may add to one. */
async function commandsOf(channels: number): Promise<string[]> {
  const clock = new HandClock();
  const { store, close } = await openRedisPresence(redis.url, `idle${channels}`, 'n1', {
    changed: () => undefined,
    interrupted: () => undefined,
  });
  const presence = new NodePresence({
    store,
    incarnation: `n${channels}`,
    graceMs: 5_000,
    dataBytesMax: 4_096,
    clock,
    sent: () => undefined,
    log: () => undefined,
  });
  presence.start();
  const entrant = {
    id: 'c1',
    identity: { user: 'ann' },
    outlet: new RecordingOutlet(new RecordingFanout('websocket')),
  };
  const names = Array.from({ length: channels }, (_, index) => `room:${index}`);
  // A list that was read before its member was in has it entered once more. The second time waits for that as well.
  for (const data of ['1', '2']) {
    await Promise.all(names.map((name) => patiently(() => presence.enter(entrant, name, data, 0))));
    await Promise.all(names.map((name) => patiently(() => presence.list(name, 1))));
  }
  let count = fences;
  const beat = async (): Promise<void> => {
    commands = [];
    haveCompared = false;
    clock.advance(beatMs);
    await until(() => haveCompared, 'lists are compared');
    // The comparison comes last, in one write: what Redis takes after this is of the next beat.
    await redis.admin.set('fence', count++);
    await until(() => fences === count, 'all of the beat was seen');
  };
  // The first time scripts come whole.
  await beat();
  const all: string[][] = [];
  for (let index = 0; index < beats; index++) {
    await beat();
    all.push(commands);
  }
  await presence.close();
  await close();
  return all.toSorted((one, other) => one.length - other.length)[0]?.toSorted() ?? [];
}

test('idle members of many channels cost as many commands as one member of one', async () => {
  const [one, many] = [await commandsOf(1), await commandsOf(100)];
  expect(one.filter((name) => ['mget', 'zadd'].includes(name))).toEqual(['mget', 'zadd']);
  expect(many).toEqual(one);
}, 120_000);
