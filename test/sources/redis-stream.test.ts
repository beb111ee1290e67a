// A Redis stream as a source, on a real Redis that keeps what it has.

import { startRedis } from '../support/redis.ts';
import { patient } from '../support/patience.ts';
import { testSource } from './source-contract.ts';

patient();

testSource('redisStream', async () => {
  const redis = await startRedis({ persist: true });
  return {
    config: (what) => `redisStream: { key: '${what}', field: 'body', group: 'watchers', url: '${redis.url}'`,
    prepare: () => Promise.resolve(),
    send: async (what, bodies) => {
      const pipeline = redis.admin.pipeline();
      for (const body of bodies) pipeline.xadd(what, '*', 'body', Buffer.from(body));
      for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error;
    },
    startsFast: true,
    kill9: () => redis.kill9(),
    start: () => redis.start(),
    close: () => redis.close(),
  };
});
