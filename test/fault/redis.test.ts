// Faults of Redis under load, between two real servers: whatever happens, every message arrives exactly once and in
// order, or its place is covered by a gap. Faults after which Redis has everything must not end in a gap at all.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { WebSocketClient } from '../support/clients.ts';
import type { LoadNode } from '../support/load.ts';
import { RedisStage, type RedisStageOptions } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';
import { answerMsMax, patient } from '../support/patience.ts';

patient();

const long = process.env['LONG'] === '1';

function describeOn(name: string, options: RedisStageOptions, suite: (stage: () => RedisStage) => void): void {
  describe(name, () => {
    let stage: RedisStage;
    beforeAll(async () => {
      stage = await RedisStage.open(options);
    }, 60_000);
    afterEach(() => stage.endLoads(), 30_000);
    afterAll(() => stage.close(), 60_000);
    suite(() => stage);
  });
}

describeOn('Redis that loses nothing', { persist: true }, (stage) => {
  test('killed -9 and started again: nobody misses anything', async () => {
    const { redis } = stage();
    const load = await stage().load();
    await redis.kill9();
    await until(() => load.unavailable > 0, 'a publication was answered unavailable');
    await redis.start();
    await load.arrives(50);
    await load.finish();
    expect(load.slowestAnswerMs).toBeLessThan(answerMsMax);
  }, 60_000);

  test('restarted twice: nobody misses anything', async () => {
    const load = await stage().load();
    for (let round = 0; round < 2; round++) {
      await stage().redis.restart();
      await load.arrives(30);
    }
    await load.finish();
  }, 60_000);

  test('all of its clients killed, again and again: nobody misses anything', async () => {
    const { redis } = stage();
    const load = await stage().load();
    for (let round = 0; round < (long ? 20 : 4); round++) {
      await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
      await load.arrives(10);
      await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
      await load.arrives(10);
    }
    await load.finish();
  }, 60_000);

  test('paused: publications are refused in time, and nobody misses anything', async () => {
    const { redis } = stage();
    const load = await stage().load();
    redis.pause();
    await until(() => load.unavailable > 0, 'a publication was answered unavailable');
    await Bun.sleep(long ? 10_000 : 2_000);
    redis.resume();
    await load.arrives(50);
    await load.finish();
    expect(load.slowestAnswerMs).toBeLessThan(answerMsMax);
  }, 60_000);

  test('its memory full: publications are refused, and no hole is left behind', async () => {
    const { redis } = stage();
    const load = await stage().load();
    await redis.admin.config('SET', 'maxmemory-policy', 'noeviction');
    await redis.admin.config('SET', 'maxmemory', '1mb');
    await until(() => load.unavailable > 5, 'publications were answered unavailable');
    await redis.admin.config('SET', 'maxmemory', '0');
    await load.arrives(50);
    await load.finish();
  }, 60_000);

  test('while it is away: subscribing and publishing are refused in time, ephemeral ones reach this node', async () => {
    const { redis, nodes } = stage();
    const [node] = nodes;
    const socket = await WebSocketClient.open(node?.url ?? '');
    const ephemeral = 'ephemeral:here';
    await socket.request({ type: 'subscribe', channel: ephemeral });
    await redis.kill9();
    try {
      for (const type of ['subscribe', 'publish', 'history']) {
        const startedAt = performance.now();
        const answer = await socket.request({ type, channel: 'posts', data: 1 }, 10_000);
        expect(answer).toMatchObject({ type: 'error', code: 'unavailable', retryable: true });
        expect(performance.now() - startedAt).toBeLessThan(answerMsMax);
      }
      const sent = socket.request({ type: 'publish', channel: ephemeral, data: 'near' }, 10_000);
      expect(await socket.next('message')).toMatchObject({ channel: ephemeral, data: 'near' });
      expect(await sent).toMatchObject({ type: 'published', channel: ephemeral });
      const ready = await fetch(`${node?.url}/health/ready`);
      expect(ready.status).toBe(503);
    } finally {
      await redis.start();
      await socket.close();
    }
    await until(async () => (await fetch(`${node?.url}/health/ready`)).status === 200, 'ready again', 20_000);
  }, 60_000);
});

describeOn('Redis that forgets', {}, (stage) => {
  test('killed -9: every loss is covered by a gap', async () => {
    const { redis } = stage();
    const load = await stage().load();
    await redis.kill9();
    await redis.start();
    await load.arrives(50);
    await load.finish({ gaps: 'allowed' });
    expect(load.account.gaps.length).toBeGreaterThan(0);
  }, 60_000);

  // A log that was cut back gives its offsets out again: without another epoch, who has seen the first ones would take
  // the second ones for known.
  test('killed -9, with its last minute not on disk: every loss is covered by a gap', async () => {
    const { redis } = stage();
    const load = await stage().load();
    await redis.admin.save();
    await load.arrives(50);
    await redis.kill9();
    await redis.start();
    await load.arrives(100);
    await load.finish({ gaps: 'allowed' });
    expect(load.account.gaps.length).toBeGreaterThan(0);
  }, 60_000);

  test('flushed: every loss is covered by a gap', async () => {
    const load = await stage().load();
    for (let round = 0; round < 3; round++) {
      await stage().redis.admin.flushall();
      await load.arrives(20);
    }
    await load.finish({ gaps: 'allowed' });
    expect(load.account.gaps.length).toBeGreaterThan(0);
  }, 60_000);

  test('flushed: subscribers of channels where nothing happens are told too', async () => {
    const { nodes, redis } = stage();
    const socket = await WebSocketClient.open(nodes[0]?.url ?? '');
    await socket.request({ type: 'publish', channel: 'idle:1', data: 1 });
    const { epoch } = await socket.request({ type: 'subscribe', channel: 'idle:1' });
    await redis.admin.flushall();
    const gap = await socket.next('gap', 15_000);
    expect(gap).toMatchObject({ channel: 'idle:1', reason: 'epoch_changed', offset: 0 });
    expect(gap.epoch).not.toBe(epoch);
    await socket.close();
  }, 30_000);
});

describeOn('The network to Redis', { proxied: true }, (stage) => {
  test('cut, again and again: nobody misses anything', async () => {
    const load = await stage().load();
    for (let round = 0; round < (long ? 20 : 5); round++) {
      stage().proxy?.cut();
      await load.arrives(10);
    }
    await load.finish();
  }, 60_000);

  // What listens is deaf, while commands are answered as ever: nothing shows it but what is not heard.
  test('swallowing what listens alone: not ready within 10 s, told by a metric, rebuilt, and nobody misses anything', async () => {
    const { nodes, redis, proxy } = stage();
    const load = await stage().load();
    const before = await Promise.all(nodes.map(reconnects));
    const listening = (await redis.admin.call('CLIENT', 'LIST', 'TYPE', 'PUBSUB')) as string;
    const ports = [...listening.matchAll(/ addr=[^ ]+:(\d+) /g)].map(([, port]) => Number(port));
    const startedAt = performance.now();
    expect(proxy?.swallow(ports)).toBe(nodes.length);
    await Promise.all(
      nodes.map(async ({ url }) => {
        await until(async () => (await fetch(`${url}/health/ready`)).status === 503, 'not ready', 20_000);
        expect(performance.now() - startedAt).toBeLessThan(long ? 10_000 : 15_000);
      }),
    );
    const isDown = async ({ url }: LoadNode): Promise<boolean> => (await metric(url, 'sync_up')) === 0;
    await until(async () => (await Promise.all(nodes.map(isDown))).includes(true), 'told by a metric', 20_000);
    for (const [index, node] of nodes.entries()) {
      await until(async () => (await reconnects(node)) > (before[index] ?? 0), 'another connection', 20_000);
      await until(async () => (await fetch(`${node.url}/health/ready`)).status === 200, 'ready again', 20_000);
    }
    await load.arrives(30, 40_000);
    expect(load.unavailable).toBe(0);
    await load.finish();
  }, 90_000);

  if (long) {
    // Half-open: both ends believe that the connection stands, and what either sends is swallowed.
    test('swallowing all connections: it is found, and nobody misses anything', async () => {
      const load = await stage().load();
      const startedAt = performance.now();
      expect(stage().proxy?.swallow()).toBeGreaterThan(0);
      await load.arrives(10, 40_000);
      expect(performance.now() - startedAt).toBeLessThan(25_000);
      await load.finish();
      expect(load.slowestAnswerMs).toBeLessThan(answerMsMax);
    }, 90_000);
  }
});

async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(new RegExp(`^sobranie_${name}\\{[^}]*\\} (\\S+)$`, 'm').exec(text)?.[1]);
}

function reconnects({ url }: LoadNode): Promise<number> {
  return metric(url, 'sync_reconnects_total');
}
