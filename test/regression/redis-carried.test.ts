// Each row of a watched table left a key in Redis for as long as its channel's history: 5,000 rows a second were two
// gigabytes an hour. Now a mark in the channel's head tells what was carried. Here, on a real server: that a row is
// appended once over leader changes and failures in any place of a batch, and that no row leaves a key.

import { afterAll, expect, test } from 'bun:test';
import type { Appended, Carried } from '../../src/core/sync-adapter.ts';
import { redisTarget } from '../../src/redis/target.ts';
import { Rules } from '../../src/rules/rules.ts';
import { RedisAdapter } from '../../src/sync/redis/adapter.ts';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from '../support/doubles.ts';
import { patient } from '../support/patience.ts';
import { randomFrom, seed } from '../support/random.ts';
import { startRedis } from '../support/redis.ts';

patient();

const redis = await startRedis();
const adapter = new RedisAdapter({
  target: redisTarget({ url: redis.url }),
  prefix: 'test',
  nodeId: 'node',
  clock: systemClock,
  observer: silentObserver,
  log: () => undefined,
});
await adapter.start({ publication: () => undefined, head: () => undefined, settled: () => undefined });
afterAll(async () => {
  await adapter.close();
  await redis.close();
});

const rule = new Rules({ rules: [{ channels: '*' }] }).for('a');

/** Hands over one batch; answers how many of it were appended or known before the first failure, and that failure. */
async function carry(
  channel: string,
  ids: readonly string[],
  { term = 1, batch = 1, clean = false, only = ids.map((_id, index) => index + 1), source = 'source' } = {},
): Promise<{ taken: number; error: string | undefined }> {
  const answers = await Promise.allSettled(
    only.map((place) => {
      const carried: Carried = { source, term, batch, place, id: ids[place - 1]!, ids, clean };
      return adapter.publish({ channel, rule, data: `"${carried.id}"`, at: 1, key: `\u0000${carried.id}`, carried });
    }),
  );
  const failed = answers.findIndex(({ status }) => status === 'rejected');
  const error = answers.find((answer) => answer.status === 'rejected')?.reason as Error | undefined;
  return { taken: failed === -1 ? answers.length : failed, error: error?.message };
}

async function logged(channel: string): Promise<string[]> {
  const page = await adapter.history(channel, rule, { limit: 1_000 });
  return page.publications.map(({ data }) => JSON.parse(data) as string);
}

test('a thousand rows leave no key but those of their channel', async () => {
  const before = (await redis.admin.keys('*')).length;
  for (let batch = 1; batch <= 10; batch++)
    await carry(
      'many',
      Array.from({ length: 100 }, (_, index) => `${batch}-0/${index}`),
      { batch, clean: batch > 1 },
    );
  expect(await logged('many')).toHaveLength(1_000);
  expect((await redis.admin.keys('*')).length - before).toBe(2);
  // One mark, one batch, beside epoch, offset, history and generation.
  expect(await redis.admin.hlen('test:m:{many}')).toBe(6);
  const length = (await redis.admin.hget('test:m:{many}', 'b:source'))!.length;
  expect(length).toBeLessThan(1_000);
});

test('a batch that comes again in the same term or a later one is appended once', async () => {
  await carry('again', ['1', '2', '3']);
  expect(await carry('again', ['1', '2', '3'])).toEqual({ taken: 3, error: undefined });
  expect(await carry('again', ['1', '2', '3', '4'], { term: 2 })).toEqual({ taken: 4, error: undefined });
  // In another order too, and beside rows that are older: a transaction that committed late.
  expect(await carry('again', ['0', '4', '3', '5'], { term: 3 })).toEqual({ taken: 4, error: undefined });
  expect(await carry('again', ['1', '6'], { term: 3, batch: 2 })).toEqual({ taken: 2, error: undefined });
  expect(await logged('again')).toEqual(['1', '2', '3', '4', '0', '5', '6']);
});

test('nothing is appended before what failed', async () => {
  expect(await carry('hole', ['1', '2', '3'], { only: [1, 3] })).toMatchObject({ taken: 1 });
  expect(await logged('hole')).toEqual(['1']);
  await carry('hole', ['1', '2', '3'], { term: 2 });
  expect(await logged('hole')).toEqual(['1', '2', '3']);
});

test('a carrier whose term has ended appends nothing, and learns by whom', async () => {
  await carry('ended', ['1'], { term: 7 });
  const ended = await carry('ended', ['0'], { term: 6, batch: 9 });
  expect(ended).toEqual({ taken: 0, error: 'Another relay carries this source.' });
  expect(await logged('ended')).toEqual(['1']);
});

test('what earlier terms handed over is forgotten once it cannot come again', async () => {
  await carry('clean', ['1', '2'], { term: 1 });
  await carry('clean', ['2', '3'], { term: 2 });
  await carry('clean', ['3', '5'], { term: 3 });
  expect(await redis.admin.hget('test:m:{clean}', 'p:source')).toBe('1 2 3');
  const marks = async () =>
    (await redis.admin.hkeys('test:m:{clean}')).filter((name) => /^[ip]:/.test(name)).toSorted();
  expect(await marks()).toEqual(['i:source 1', 'i:source 2', 'i:source 3', 'p:source']);
  await carry('clean', ['4'], { term: 3, batch: 2, clean: true });
  expect(await marks()).toEqual([]);
  expect(await logged('clean')).toEqual(['1', '2', '3', '5', '4']);
});

// Each of these names was read with each append: after five terms with a backlog an append took ten times as long.
test('an append takes no longer for all that earlier terms handed over', async () => {
  const ids = (term: number): string[] =>
    Array.from({ length: 500 }, (_, index) => String(1_000_000 + term * 1_000 + index));
  for (let term = 1; term <= 8; term++) await carry('many terms', ids(term), { term });
  // By what Redis itself says, in turn with a channel that has no past.
  const cost = async (channel: string, term: number, clean: boolean): Promise<number> => {
    await redis.admin.config('RESETSTAT');
    await carry(channel, ids(term), { term, batch: term, clean });
    const [, calls, usec] = /cmdstat_evalsha:calls=(\d+),usec=(\d+)/.exec(await redis.admin.info('commandstats')) ?? [];
    return Number(usec) / Number(calls);
  };
  const ratios: number[] = [];
  for (const term of [9, 10, 11, 12, 13]) {
    ratios.push((await cost('many terms', term, false)) / (await cost('no past', term, true)));
  }
  expect((await redis.admin.hget('test:m:{many terms}', 'p:source'))?.length).toBeGreaterThan(40_000);
  expect(Math.min(...ratios)).toBeLessThan(3);
});

test('two sources have marks of their own, and a key that somebody chose counts as before', async () => {
  const publish = (key: string): Promise<Appended | undefined> =>
    adapter.publish({ channel: 'two', rule, data: `"${key}"`, at: 1, key });
  await carry('two', ['1'], { source: 'one', term: 9 });
  await carry('two', ['1'], { source: 'other', term: 2 });
  const first = await publish('k');
  expect(await publish('k')).toEqual({ epoch: '', offset: 0, ...first, isRepeat: true });
  expect(await logged('two')).toEqual(['1', '1', 'k']);
});

test(`leaders that fail anywhere, and stale ones that go on, append each row once and none twice (SEED=${seed})`, async () => {
  const random = randomFrom(seed);
  const pick = (below: number): number => Math.floor(random() * below);
  // The outbox: rows wait in it until a leader that has published them deletes them. Some commit late, before others.
  let waiting: string[] = [];
  let made = 0;
  let clean = false;
  let term = 100;
  let batch = 0;
  let stale: { ids: string[]; term: number; batch: number; clean: boolean } | undefined;
  const beginTerm = (): void => {
    term++;
    batch = 0;
    clean = false;
  };
  const total = 400;
  while (made < total || waiting.length > 0) {
    for (let count = pick(5); count > 0 && made < total; count--)
      waiting.splice(pick(4) === 0 ? pick(waiting.length + 1) : waiting.length, 0, `row-${made++}`);
    const ids = waiting.slice(0, 1 + pick(6));
    if (ids.length === 0) continue;
    const isAll = ids.length === waiting.length;
    batch++;
    const given = { ids, term, batch, clean };
    if (stale !== undefined && pick(2) === 0) await carry('torn', stale.ids, stale);
    const upto = pick(3) === 0 ? pick(ids.length + 1) : ids.length;
    const only = ids.map((_id, index) => index + 1).filter((place) => place <= upto);
    const { taken, error } = await carry('torn', ids, { ...given, only });
    // It dies before it has published all, or after that and before it has deleted them; or it deletes them.
    if (error !== undefined || taken < ids.length || pick(5) === 0) {
      stale = given;
      beginTerm();
      continue;
    }
    waiting = waiting.filter((id) => !ids.includes(id));
    if (isAll) clean = true;
  }
  const all = await logged('torn');
  expect(all.toSorted()).toEqual(Array.from({ length: total }, (_, index) => `row-${index}`).toSorted());
});
