// NATS numbers the messages of all channels in one row, so where a channel's publications lie there has to be found. It was
// found by halving, a question to the server at each step: seventeen of them, one after the other, in a stream of 100,000
// messages. A crowd on a thousand channels waited for its turn to read until it was refused.

import { expect, test } from 'bun:test';
import type { Entry } from '../../../src/sync/nats/message.ts';
import { isWanted, readFromGoal, type Goal } from '../../../src/sync/nats/stretch.ts';
import { randomFrom, seed, type Random } from '../../support/random.ts';

/** How many messages of other channels lie before each of the channel's own. */
type Others = (index: number, random: Random) => number;

const evenly: Others = (_index, random) => Math.floor(-Math.log(1 - random()) * 1_000);
const inBursts: Others = (index, random) => (index % 150 === 0 ? 100_000 : Math.floor(random() * 3));
const growing: Others = (index) => Math.ceil(1.01 ** index);
const alone: Others = () => 0;

function log(count: number, others: Others, random: Random): Entry[] {
  const entries: Entry[] = [];
  let seq = 0;
  let at = 1_000_000;
  for (let index = 0; index < count; index++) {
    const between = others(index, random);
    seq += 1 + between;
    at += between * 2 + Math.floor(random() * 2);
    // The first ones are gone.
    entries.push({ seq, offset: index + 501, at, sender: {}, data: '1' });
  }
  return entries;
}

async function find(entries: readonly Entry[], goal: Goal): Promise<{ piece: readonly Entry[]; reads: number }> {
  let reads = 0;
  const known = { oldest: entries[0]!, newest: entries.at(-1)! };
  const piece = await readFromGoal(goal, known, (seq, more) => {
    reads++;
    const from = entries.findIndex((entry) => entry.seq >= seq);
    return Promise.resolve(from === -1 ? [] : entries.slice(from, from + 20 + more));
  });
  return { piece, reads };
}

const logs = { evenly, inBursts, growing, alone };

for (const [name, others] of Object.entries(logs)) {
  test(`the beginning of any stretch is found in a log that lies ${name} in the stream (SEED=${seed})`, async () => {
    const random = randomFrom(seed);
    const entries = log(1_000, others, random);
    let most = 0;
    let all = 0;
    const goals: Goal[] = [];
    for (let round = 0; round < 300; round++) {
      const offset = 480 + Math.floor(random() * 1_030);
      const age = entries[Math.floor(random() * 1_000)]!.at;
      goals.push({ offset, after: 0 }, { offset: 1, after: age }, { offset, after: age });
    }
    for (const goal of goals) {
      const { piece, reads } = await find(entries, goal);
      const expected = entries.find((entry) => isWanted(entry, goal));
      expect(piece[0]).toEqual(expected);
      most = Math.max(most, reads);
      all += reads;
    }
    // Halving takes twice as many as the estimates that it takes turns with, in the worst case.
    expect(most).toBeLessThanOrEqual(45);
    if (others === evenly || others === alone) expect(all / goals.length).toBeLessThan(2);
  });
}

test('a replica that has nothing from there on ends the search', async () => {
  const [oldest, newest] = log(2, evenly, randomFrom(seed));
  const found = await readFromGoal({ offset: 502, after: 0 }, { oldest: oldest!, newest: newest! }, () =>
    Promise.resolve([]),
  );
  expect(found).toEqual([]);
});
