// A page was answered as an array of arrays, some ten pieces to each publication, which Redis built and the driver put
// together one by one: whoever published while a crowd came back waited for 32 pages of them in one turn of the node's
// loop. A page is one text.

import { expect, test } from 'bun:test';
import { Redis } from 'ioredis';
import { redisTarget } from '../../src/redis/target.ts';
import { Rules } from '../../src/rules/rules.ts';
import { RedisAdapter } from '../../src/sync/redis/adapter.ts';
import { readScript } from '../../src/sync/redis/scripts.ts';
import { systemClock } from '../../src/time/clock.ts';
import { answered } from '../support/answered.ts';
import { silentObserver } from '../support/doubles.ts';
import { patient } from '../support/patience.ts';
import { startRedis } from '../support/redis.ts';

patient();

const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;
const senders = [
  {},
  { from: { user: 'ü \n 😀', connection: 'c 1' }, except: 'c 1' },
  { from: { user: null, connection: '-' } },
  { xid: '7' },
];
const texts = ['"x"', '', '{"a": "\\n", "b": " 1-0 5 "}', '"世界 👩‍👩‍👧"', '0'];

test('the script answers four pieces, however many publications are in the page, and each is as it was', async () => {
  const redis = await startRedis();
  const target = redisTarget({ url: redis.url });
  const adapter = new RedisAdapter({
    target,
    prefix: 'pages',
    nodeId: 'node',
    clock: systemClock,
    observer: silentObserver,
    log: () => undefined,
  });
  const client = new Redis(redis.url);
  try {
    await adapter.start({ publication: () => undefined, head: () => undefined, settled: () => undefined });
    const sent = Array.from({ length: 200 }, (_, index) => ({
      ...senders[index % senders.length],
      data: texts[index % texts.length]!,
    }));
    for (const [index, each] of sent.entries()) {
      await answered(() => adapter.publish({ channel: 'a', rule, at: 0, key: `${index}`, ...each }));
    }
    const reply = await client.eval(readScript, 2, 'pages:m:{a}', 'pages:s:{a}', 0, 1_000, 1 << 20, 0, 0, '');
    expect((reply as unknown[]).map((piece) => typeof piece)).toEqual(['string', 'string', 'string', 'number']);

    const { epoch } = (await answered(() => adapter.history('a', rule, { limit: 1 }))).head;
    const forward = await answered(() => adapter.history('a', rule, { since: { epoch, offset: 0 }, limit: 1_000 }));
    const newest = await answered(() => adapter.history('a', rule, { limit: 1_000 }));
    for (const { publications, complete } of [forward, newest]) {
      expect(complete).toBe(true);
      expect(publications.map(({ offset }) => offset)).toEqual(sent.map((_, index) => index + 1));
      expect(publications.map(({ data, from, except, xid }) => ({ data, from, except, xid }))).toEqual(
        sent.map((each) => ({ from: undefined, except: undefined, xid: undefined, ...each })),
      );
    }
  } finally {
    client.disconnect();
    await adapter.close();
    await redis.close();
  }
});
