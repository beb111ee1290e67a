// What this node wants the store to hold, when the store refuses or does not answer: nobody stays who was not let in or has
// gone, and nobody is counted twice.

import { expect, test } from 'bun:test';
import { Ledger } from '../../../src/presence/ledger.ts';
import type { Applied, Change } from '../../../src/presence/store.ts';
import { HandClock, idle } from '../../support/hub.ts';

const applied: Applied = { epoch: 'e', version: 1, isFull: false };

interface Stage {
  readonly ledger: Ledger;
  readonly clock: HandClock;
  /** What the store was asked for, one batch after another. */
  readonly asked: Change[][];
  /** Answers the oldest batch. */
  answer(answers: readonly Applied[] | Error): Promise<void>;
}

function createStage(): Stage {
  const clock = new HandClock();
  const asked: Change[][] = [];
  const waiting: PromiseWithResolvers<readonly Applied[]>[] = [];
  const ledger = new Ledger({
    apply: (changes) => {
      asked.push([...changes]);
      const answer = Promise.withResolvers<readonly Applied[]>();
      waiting.push(answer);
      return answer.promise;
    },
    applyAtOnce: () => undefined,
    clock,
    log: () => undefined,
  });
  return {
    ledger,
    clock,
    asked,
    async answer(answers) {
      const next = waiting.shift();
      if (answers instanceof Error) next?.reject(answers);
      else next?.resolve(answers);
      await idle();
    },
  };
}

const away = new Error('away');

test('one for whom there is no room is no member, and is not entered later', async () => {
  const { ledger, asked, answer } = createStage();
  const entering = ledger.enter('a', 'c', 'ann', '1', 1);
  await idle();
  await answer([{ ...applied, isFull: true }]);
  expect(await entering).toMatchObject({ isFull: true });
  expect([ledger.has('a', 'c'), ledger.members, ledger.count('a')]).toEqual([false, 0, 0]);
  ledger.touchAll();
  await idle();
  expect(asked).toHaveLength(1);
});

test('data that could not be stored are taken back', async () => {
  const { ledger, clock, asked, answer } = createStage();
  const entering = ledger.enter('a', 'c', 'ann', '1', 9);
  await idle();
  await answer([applied]);
  await entering;
  const changing = Promise.resolve(ledger.enter('a', 'c', 'ann', '2', 9)).catch((error: unknown) => error);
  await idle();
  await answer(away);
  expect(await changing).toBe(away);
  expect(ledger.own('a', 'c')?.data).toBe('1');
  clock.advance(5_000);
  await idle();
  expect(asked.at(-1)).toMatchObject([{ kind: 'enter', member: { data: '1' } }]);
});

test('one that parted while its data could not be stored has parted', async () => {
  const { ledger, clock, asked, answer } = createStage();
  const entering = ledger.enter('a', 'c', 'ann', '1', 9);
  await idle();
  await answer([applied]);
  await entering;
  const changing = Promise.resolve(ledger.enter('a', 'c', 'ann', '2', 9)).catch((error: unknown) => error);
  await idle();
  const parting = ledger.part('a', 'c');
  await answer(away);
  await changing;
  expect([ledger.has('a', 'c'), ledger.isParting('a', 'c', parting ?? 0), ledger.members]).toEqual([false, true, 0]);
  clock.advance(5_000);
  await idle();
  expect(asked.at(-1)).toMatchObject([{ kind: 'part', connection: 'c' }]);
});

test('one that parts and comes back is one member, and none once it has left', async () => {
  const { ledger, answer } = createStage();
  const entering = ledger.enter('a', 'c', 'ann', '1', 9);
  await idle();
  await answer([applied]);
  await entering;
  ledger.part('a', 'c');
  expect(ledger.members).toBe(0);
  void ledger.enter('a', 'c', 'ann', '1', 9);
  expect(ledger.members).toBe(1);
  ledger.leave('a', 'c');
  expect([ledger.members, ledger.count('a')]).toEqual([0, 0]);
});
