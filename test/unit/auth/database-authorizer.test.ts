// Whether the database has a function that decides is known by looking, and a look may answer what was true earlier.

import { expect, test } from 'bun:test';
import { DatabaseAuthorizer } from '../../../src/auth/database-authorizer.ts';
import type { Decisions } from '../../../src/auth/decisions.ts';
import type { Database } from '../../../src/database/connect.ts';

/** Looks that are answered by hand: real ones cannot be held between the database's answer and its arrival. */
function harness() {
  const looks: PromiseWithResolvers<{ exists: boolean }[]>[] = [];
  const lookSql = (): Promise<{ exists: boolean }[]> => {
    const look = Promise.withResolvers<{ exists: boolean }[]>();
    looks.push(look);
    return look.promise;
  };
  const lines: string[] = [];
  const authorizer = new DatabaseAuthorizer({
    sql: undefined as unknown as Database,
    lookSql: lookSql as unknown as Database,
    decisions: { ask: () => 'asked' } as unknown as Decisions,
    log: (message) => lines.push(message),
  });
  const ask = (): unknown =>
    authorizer.ask({ identity: { user: 'ann' }, account: 'ann', action: 'subscribe', channel: 'posts' });
  const answer = (index: number, exists: boolean): void => looks[index]?.resolve([{ exists }]);
  return { authorizer, looks, lines, ask, answer };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a look that began before the function was created does not answer for the one after', async () => {
  const { authorizer, looks, ask, answer } = harness();
  const early = authorizer.look();
  await settled();
  // Created now, and looked for again, while the answer "no" is on its way.
  const late = authorizer.look();
  await settled();
  answer(0, false);
  await early;
  await settled();
  expect(looks).toHaveLength(2);
  answer(1, true);
  await late;
  expect(ask()).toBe('asked');
});

test('until the first answer nobody may do anything; what was found last counts while the database is away', async () => {
  const { authorizer, looks, lines, ask, answer } = harness();
  expect(ask).toThrow(expect.objectContaining({ code: 'unavailable' }));
  const failed = authorizer.look();
  await settled();
  looks[0]?.reject(new Error('the database is away'));
  await failed;
  expect(ask).toThrow(expect.objectContaining({ code: 'unavailable' }));
  const found = authorizer.look();
  await settled();
  answer(1, false);
  await found;
  expect(ask()).toBeNull();
  const away = authorizer.look();
  await settled();
  looks[2]?.reject(new Error('the database is away'));
  await away;
  expect(ask()).toBeNull();
  expect(lines).toEqual([expect.stringContaining('nobody may do anything until')]);
});
