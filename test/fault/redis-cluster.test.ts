// Redis Cluster under load: a master dies and its replica takes over, slots move from master to master. The nodes go
// along, and every message is accounted for; channels that are not concerned hear of no gap.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { WebSocketClient } from '../support/clients.ts';
import { makeCertificates } from '../support/redis-certificates.ts';
import { startRedisCluster, type TestRedisCluster } from '../support/redis-cluster.ts';
import { redisHasTls } from '../support/redis.ts';
import { RedisStage } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';
import { answerMsMax, patient } from '../support/patience.ts';

patient();

const long = process.env['LONG'] === '1';

describe('Redis Cluster', () => {
  let stage: RedisStage<TestRedisCluster>;
  beforeAll(async () => {
    const tls = redisHasTls ? makeCertificates() : undefined;
    const cluster = await startRedisCluster({ replicas: 1, ...(tls && { tls }) });
    const hosts = cluster.ports.map((port) => `127.0.0.1:${port}`).join(',');
    // By one of its nodes, and by all of them.
    stage = await RedisStage.on(cluster, { nodes: 1, environment: { REDIS_TLS_CA: tls?.authority } });
    await stage.startNode({ REDIS_URL: `${tls === undefined ? 'redis' : 'rediss'}+cluster://${hosts}` });
  }, 60_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  const ready = async (): Promise<boolean> => {
    const answers = await Promise.all(stage.nodes.map(({ url }) => fetch(`${url}/health/ready`)));
    return answers.every(({ status }) => status === 200);
  };
  const keyOf = (channel: string): string => `sobranie:m:{${channel}}`;

  // A log that comes from another server may have been cut back there, so where a slot has moved readers are told a gap.
  test('slots that move under load, there and back: every message is accounted for', async () => {
    const { redis } = stage;
    const channels = stage.channels(8);
    const [moved = ''] = channels;
    const load = await stage.load({ channels });
    for (let round = 0; round < (long ? 6 : 2); round++) {
      const from = redis.masterOf(keyOf(moved));
      await redis.moveSlot(keyOf(moved));
      expect(redis.masterOf(keyOf(moved))).not.toBe(from);
      await load.arrives(30, 30_000);
    }
    await until(ready, 'ready', 20_000);
    expect(load.account.gaps.filter((gap) => !gap.includes(` ${moved}: `))).toEqual([]);
    // Many at once, as one does when a master is added.
    await redis.reshard(long ? 2_000 : 300);
    await load.arrives(30, 30_000);
    await until(ready, 'ready', 20_000);
    await load.finish({ gaps: 'allowed', timeoutMs: 30_000 });
    expect(load.slowestAnswerMs).toBeLessThan(answerMsMax);
  }, 240_000);

  // Half-way the old master sends on to the new one for each command alone (ASK), and for good only then (MOVED).
  test('a publication while its slot is half-way arrives, or its place is covered by a gap', async () => {
    const [channel = ''] = stage.channels(1);
    const [near, far] = stage.nodes;
    const publisher = await WebSocketClient.open(near?.url ?? '');
    const reader = await WebSocketClient.open(far?.url ?? '');
    await reader.request({ type: 'subscribe', channel });
    await publisher.request({ type: 'publish', channel, data: 1 });
    expect(await reader.next('message', 10_000)).toMatchObject({ data: 1, offset: 1 });
    await stage.redis.moveSlot(keyOf(channel), async () => {
      const answer = await publisher.request({ type: 'publish', channel, data: 2 }, 10_000);
      expect(answer).toMatchObject({ type: 'published', offset: 2 });
    });
    await until(async () => {
      const answer = await publisher.request({ type: 'publish', channel, data: 3 }, 10_000);
      return answer.type === 'published';
    }, 'published');
    // Nothing is passed over in silence: each is a message, or before the end of a gap.
    for (let at = 1; at < 3;) {
      const { type, data, offset = 0 } = await reader.nextAny(20_000);
      if (type === 'message') expect([data, offset]).toEqual([at + 1, at + 1]);
      if (type === 'message' || type === 'gap') at = offset;
    }
    await Promise.all([publisher.close(), reader.close()]);
  }, 60_000);

  test('a master killed -9: its replica takes over, and the nodes follow', async () => {
    const { redis } = stage;
    const channels = stage.channels(8);
    const load = await stage.load({ channels });
    const masters = new Map(channels.map((channel) => [channel, redis.masterOf(keyOf(channel))]));
    const [first = ''] = channels;
    const dying = masters.get(first) ?? 0;
    await redis.kill9(dying);
    await until(async () => !(await ready()), 'not ready', 20_000);
    await until(() => ![dying, undefined].includes(redis.masterOf(keyOf(first))), 'another master', 30_000);
    await until(ready, 'ready again', 30_000);
    await load.arrives(50, 30_000);
    await load.finish({ gaps: 'allowed', timeoutMs: 30_000 });
    expect(load.slowestAnswerMs).toBeLessThan(answerMsMax);
    // The other masters lost nothing, and nobody is told that they did.
    const spared = channels.filter((channel) => masters.get(channel) !== dying);
    for (const channel of spared) expect(load.account.gaps.filter((gap) => gap.includes(` ${channel}: `))).toEqual([]);
    expect(load.account.gaps.length).toBeGreaterThan(0);
  }, 120_000);
});
