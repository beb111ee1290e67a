// What waits for the database is bounded, and what it has taken waits no more.

import { expect, test } from 'bun:test';
import type { Outgoing } from '../../../src/core/sync-adapter.ts';
import type { Database } from '../../../src/database/connect.ts';
import { Rules } from '../../../src/rules/rules.ts';
import { PostgresAppender } from '../../../src/sync/postgres/appender.ts';

const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;
const mebibyte: Outgoing = { channel: 'a', rule, data: JSON.stringify('x'.repeat((1 << 20) - 2)), at: 0 };

/** A database that answers as `realtime.append` does. */
function appenderTo(answer: () => Promise<unknown>, failures: unknown[] = []): PostgresAppender {
  const sql = { unsafe: () => ({ simple: answer }) } as unknown as Database;
  return new PostgresAppender(
    sql,
    () => undefined,
    (error) => failures.push(error),
  );
}

test('there is room again for what was appended, however much it was', async () => {
  const appender = appenderTo(() => Promise.resolve([{ fresh: true, epoch: 'e', offset: 1 }]));
  for (let count = 0; count < 100; count++) {
    expect(await appender.append(mebibyte)).toEqual({ epoch: 'e', offset: 1 });
  }
});

test('past its bound a publisher is refused at once while the database does not answer', async () => {
  const appender = appenderTo(() => new Promise(() => undefined));
  const taken: Promise<unknown>[] = [];
  const append = (): void => void taken.push(appender.append(mebibyte).catch((error: unknown) => error));
  for (let count = 0; count < 64; count++) append();
  expect(append).toThrow('cannot keep up');
  for (const outcome of await Promise.all(taken)) expect(outcome).toMatchObject({ code: 'unavailable' });
});

test('data that cannot be stored are told to their publisher alone, any other failure to the operator too', async () => {
  for (const [code, reported] of [
    ['22P05', 0],
    ['53100', 1],
  ] as const) {
    const failures: unknown[] = [];
    const failure = Object.assign(new Error('refused'), { code });
    const appender = appenderTo(() => Promise.reject(failure), failures);
    await expect(appender.append(mebibyte)).rejects.toThrow();
    expect([code, failures.length]).toEqual([code, reported]);
  }
});
