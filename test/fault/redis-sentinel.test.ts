// Redis with Sentinels, its master killed or stopped under load: the nodes follow to the new one, say meanwhile that
// they are not ready, and every message is accounted for. What had not reached the replica is covered by a gap.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { WebSocketClient } from '../support/clients.ts';
import type { Load } from '../support/load.ts';
import { makeCertificates } from '../support/redis-certificates.ts';
import { startSentinels, type TestSentinels } from '../support/redis-sentinel.ts';
import { redisHasTls } from '../support/redis.ts';
import { RedisStage } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';
import { answerMsMax, patient } from '../support/patience.ts';

patient();

const long = process.env['LONG'] === '1';

describe('a master that Sentinels watch', () => {
  let stage: RedisStage<TestSentinels>;
  beforeAll(async () => {
    const tls = redisHasTls ? makeCertificates() : undefined;
    const passwords = { password: 'open-1', sentinelPassword: 'open-2' };
    const sentinels = await startSentinels({ ...passwords, ...(tls && { tls }) });
    stage = await RedisStage.on(sentinels, { environment: { REDIS_TLS_CA: tls?.authority } });
  }, 60_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  const ready = async (): Promise<boolean> => {
    const answers = await Promise.all(stage.nodes.map(({ url }) => fetch(`${url}/health/ready`)));
    return answers.every(({ status }) => status === 200);
  };

  const failsOver = async (from: number, load: Load): Promise<void> => {
    await until(async () => !(await ready()), 'not ready', 20_000);
    await until(async () => (await stage.redis.master()) !== from, 'another master', 30_000);
    await until(ready, 'ready again', 30_000);
    await load.arrives(50, 30_000);
  };

  test('killed -9: the nodes follow to the new one, again and again', async () => {
    const { redis } = stage;
    const load = await stage.load();
    for (let round = 0; round < (long ? 4 : 1); round++) {
      const master = await redis.master();
      await redis.kill9(master);
      await failsOver(master, load);
      redis.start(master);
      // The one that came back has to be a replica before it can take over again.
      if (long) await until(() => redis.hasReplica(), 'a replica again', 30_000);
    }
    await load.finish({ gaps: 'allowed', timeoutMs: 30_000 });
    expect(load.slowestAnswerMs).toBeLessThan(answerMsMax);
    // A new master has no more than had reached it, and nobody can tell whether that was all.
    expect(load.account.gaps.length).toBeGreaterThan(0);
  }, 240_000);

  // Each read that found its connection on the way to the new master began that anew. Sixteen subscriptions that asked
  // again did so for ever: the node was ready, and its WebSockets heard nothing more.
  test('readers that never rest do not keep a node from reading again', async () => {
    const { redis } = stage;
    await until(() => redis.hasReplica(), 'a replica', 30_000);
    const readers = await Promise.all(stage.nodes.map(({ url }) => WebSocketClient.open(url)));
    let isOver = false;
    const read = async (socket: WebSocketClient): Promise<void> => {
      while (!isOver) {
        await socket.request({ type: 'history', channel: 'read', limit: 1 }, 20_000);
        await Bun.sleep(1);
      }
    };
    const reading = readers.map((socket) => Promise.all([read(socket), read(socket), read(socket)]));
    const master = await redis.master();
    await redis.kill9(master);
    await until(async () => !(await ready()), 'not ready', 20_000);
    await until(async () => (await redis.master()) !== master, 'another master', 30_000);
    redis.start(master);
    await until(ready, 'ready again', 30_000);
    isOver = true;
    await Promise.all(reading);
    for (const socket of readers) {
      expect(await socket.request({ type: 'history', channel: 'read', limit: 1 })).toMatchObject({ type: 'history' });
      await socket.close();
    }
  }, 120_000);

  if (long) {
    test('stopped, and woken when another has taken over: nobody stays with the old one', async () => {
      const { redis } = stage;
      await until(() => redis.hasReplica(), 'a replica again', 30_000);
      const load = await stage.load();
      const master = await redis.master();
      redis.pause(master);
      await failsOver(master, load);
      redis.resume();
      await load.arrives(50, 30_000);
      await until(ready, 'still ready', 20_000);
      await load.finish({ gaps: 'allowed', timeoutMs: 30_000 });
      expect(load.slowestAnswerMs).toBeLessThan(answerMsMax);
    }, 120_000);
  }
});
