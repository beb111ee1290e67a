// A Redis stream as a source, on a real Redis that keeps what it has.

import { expect, test } from 'bun:test';
import { startProxy } from '../support/proxy.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';
import { patient } from '../support/patience.ts';
import { testSource, type SourceHarness } from './source-contract.ts';

patient();

let redis: TestRedis;

async function start(): Promise<SourceHarness> {
  redis = await startRedis({ persist: true });
  const proxy = await startProxy({ port: redis.port });
  const config = (what: string, url: string): string =>
    `redisStream: { key: '${what}', field: 'body', group: 'watchers', url: '${url}'`;
  return {
    config: (what) => config(what, redis.url),
    proxy,
    proxied: (what) => config(what, proxy.through(redis.url)),
    prepare: () => Promise.resolve(),
    send: async (what, bodies) => {
      const pipeline = redis.admin.pipeline();
      for (const body of bodies) pipeline.xadd(what, '*', 'body', Buffer.from(body));
      for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error;
    },
    bringsAgain: false,
    startsFast: true,
    kill9: () => redis.kill9(),
    start: () => redis.start(),
    close: () => redis.close(),
  };
}

const add = (id: string, body: string): Promise<string | null> => redis.admin.xadd('lost', id, 'body', body);

testSource('redisStream', start, {
  sources: (harness) => Promise.resolve(`{ ${harness.config('lost')}, channel: 'lost' } },`),
  tests: (stage) => {
    test('a Redis that has lost its newest entries: nothing is published again, and what comes is', async () => {
      await add('5-1', '1');
      await add('5-2', '2');
      await add('5-3', '3');
      await until(async () => (await stage().logged('lost')) === 3, 'they are logged', 60_000, 20);
      const count = stage().nodes.length;
      for (const node of [...stage().nodes]) await stage().kill(node);
      await redis.admin.del('lost');
      await add('5-1', '1');
      await add('5-2', '2');
      await Promise.all(Array.from({ length: count }, () => stage().startNode()));
      await stage().reader('redisStream:lost');
      await add('5-3', '4');
      await until(async () => (await stage().logged('lost')) === 4, 'the new one is logged', 60_000, 20);
      expect(await stage().log('lost')).toEqual([1, 2, 3, 4]);
    }, 120_000);
  },
});
