// Reads of heads and histories when there are more than one statement takes, or when the database does not answer: whoever
// asked is answered, one way or the other.

import { expect, test } from 'bun:test';
import type { Database } from '../../../src/database/connect.ts';
import { Rules } from '../../../src/rules/rules.ts';
import { headsAtOnceMax, PostgresHeads } from '../../../src/sync/postgres/heads.ts';
import { PostgresHistories } from '../../../src/sync/postgres/histories.ts';
import { HandClock } from '../../support/hub.ts';

const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;

/** Answers each statement by the channels that it names. */
function databaseOf(answer: (channels: readonly string[]) => Promise<unknown>): Database {
  const sql = (strings: TemplateStringsArray, ...values: readonly unknown[]): unknown => {
    const list = values.find((value): value is string => typeof value === 'string' && value.startsWith('{"'));
    if (!strings.join('').includes('unnest(') || list === undefined) return strings.join('');
    return answer([...list.matchAll(/"(.*?)"/g)].map(([, name = '']) => name));
  };
  return sql as unknown as Database;
}

test('of more channels than one statement asks about each has its head', async () => {
  const asked: number[] = [];
  const sql = databaseOf(async (channels) => {
    asked.push(channels.length);
    return channels.map((channel) => ({ channel, epoch: 'e', offset: Number(channel.slice(1)) }));
  });
  const heads = new PostgresHeads(sql, () => undefined);
  const count = headsAtOnceMax + 5;
  const found = await Promise.all(Array.from({ length: count }, (_, index) => heads.ask(`c${index}`)));
  expect(found.map(({ offset }) => offset)).toEqual(Array.from({ length: count }, (_, index) => index));
  expect(asked).toEqual([headsAtOnceMax, 5]);
});

test('a read that has waited too long for its turn is refused, and not done', async () => {
  const clock = new HandClock();
  let statements = 0;
  const sql = databaseOf(() => {
    statements++;
    return new Promise(() => undefined);
  });
  const histories = new PostgresHistories(sql, clock);
  const read = (index: number): Promise<unknown> =>
    histories
      .read({ channel: `c${index}`, rule, query: { limit: 10 }, internal: false })
      .catch((error: unknown) => error);
  const reads = [0, 1, 2, 3].map(read);
  clock.advance(4_001);
  for (const outcome of await Promise.all(reads)) expect(outcome).toMatchObject({ code: 'unavailable' });
  expect(statements).toBe(2);
});
