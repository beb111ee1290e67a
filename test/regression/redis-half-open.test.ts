// A connection to Redis that is open and dead, as a firewall leaves it behind that has forgotten it. Of the connections of a
// node only that for publishing was watched: histories could not be read, so subscribers waited in front of a hole, and
// the node was not ready, until the system gave the others up a quarter of an hour later.

import { afterEach, expect, test } from 'bun:test';
import { openRedis } from '../../src/redis/client.ts';
import { redisTarget } from '../../src/redis/target.ts';
import { systemClock } from '../../src/time/clock.ts';
import { patient } from '../support/patience.ts';
import { startProxy } from '../support/proxy.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

const closers: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

test('a connection that is open and dead is replaced, one that is refused everything is kept', async () => {
  const redis = await startRedis();
  closers.push(() => redis.close());
  // Not even what the sign of life is asked by.
  await redis.admin.call('ACL', 'SETUSER', 'guest', 'on', 'nopass', '~*', '&*', '+info', '+client|id');
  const proxy = await startProxy({ port: redis.port });
  closers.push(() => proxy.close());
  const open = async (url: string) => {
    const { client } = await openRedis({ target: redisTarget({ url }), clock: systemClock });
    closers.push(() => client.disconnect());
    return client;
  };
  const [guest, client] = await Promise.all([
    open(redis.url.replace('//', '//guest:any@')),
    open(proxy.through(redis.url)),
  ]);
  // Another one for each connection.
  const id = await guest.client('ID');
  expect(proxy.swallow()).toBe(1);
  const answers = (): Promise<boolean> =>
    client.get('any').then(
      () => true,
      () => false,
    );
  expect(await answers()).toBe(false);
  await until(answers, 'it answers again', 60_000);
  expect(await guest.client('ID')).toBe(id);
}, 120_000);
