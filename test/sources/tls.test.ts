// A source whose broker has a certificate of a private authority: it is read with that authority, and never without it.

import { expect, test } from 'bun:test';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { redisHasTls, startRedis } from '../support/redis.ts';
import { makeCertificates } from '../support/redis-certificates.ts';
import { until } from '../support/tcp-client.ts';
import { SourceStage } from './source-contract.ts';

patient();

test.if(redisHasTls)(
  'without the authority, or with another one, the source says which setting names it',
  async () => {
    const certificates = makeCertificates();
    const redis = await startRedis({ tls: certificates });
    const stage = await SourceStage.open(`{ redisStream: { key: 'orders', url: '${redis.url}', channel: 'orders' } }`, {
      SYNC: 'postgres',
    });
    const own = { DATABASE_URL: stage.database.url, CONFIG_FILE: stage.rules.path, SYNC: 'postgres' };
    const noteOf = async (url: string): Promise<string | undefined> => {
      const response = await fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(20_000) });
      const { checks } = (await response.json()) as { checks: Record<string, { lastError?: { message: string } }> };
      return checks['sources']?.lastError?.message;
    };
    await redis.admin.xadd('orders', '*', 'body', '1');
    const strangers = [{}, { REDIS_URL: redis.url, REDIS_TLS_CA: makeCertificates().authority }];
    for (const environment of strangers) {
      const node = await startNode({ ...own, ...environment });
      const told = async (): Promise<boolean> => (await noteOf(node.url)) !== undefined;
      await until(told, 'the node says why it cannot read', 60_000, 50);
      expect(await noteOf(node.url)).toBe(
        '1 of 1 sources cannot be read: its certificate is not trusted: REDIS_TLS_CA names the authority that signed it',
      );
      await stopNodes([node]);
    }
    expect(await stage.logged('orders')).toBe(0);
    const node = await startNode({ ...own, REDIS_URL: redis.url, REDIS_TLS_CA: certificates.authority });
    await until(async () => (await stage.logged('orders')) === 1, 'it is read', 60_000, 50);
    await stopNodes([node]);
    await stage.close();
    await redis.close();
  },
  300_000,
);
