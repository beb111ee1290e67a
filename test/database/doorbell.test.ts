// The doorbell never misses: with the safety read an hour away, every row must still arrive at once, whenever the relay
// fell asleep and however long writers keep their transactions open.

import { afterAll, expect, test } from 'bun:test';
import { database, startRelay, until } from './support.ts';
import { patient } from '../support/patience.ts';

patient();

const { sql, url } = await database();
await sql`create table item (id int primary key, committed_at float8)`;
await sql`select realtime.watch('item')`;

const hour = 3_600_000;
const arrivedAt = new Map<number, number>();
const { relay, errors, reads } = await startRelay(url, {
  safetyMs: hour,
  hand: (rows) => {
    const now = performance.now();
    for (const row of rows) arrivedAt.set((JSON.parse(row.data) as { data: { id: number } }).data.id, now);
  },
});
afterAll(() => relay.close());

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

test('writers that come and go at random, alone and together, quick and slow', async () => {
  const committedAt = new Map<number, number>();
  const until6s = performance.now() + 6_000;
  await Promise.all(
    Array.from({ length: 6 }, async (_, writer) => {
      for (let turn = 0; performance.now() < until6s; turn++) {
        const id = writer * 100_000 + turn;
        if (turn % 5 === 4) {
          await sql.begin(async (tx) => {
            await tx`insert into item (id) values (${id})`;
            await pause(Math.random() * 20);
          });
        } else if (turn % 7 === 6) {
          await sql
            .begin(async (tx) => {
              await tx`insert into item (id) values (${id + 50_000})`;
              throw new Error('roll back');
            })
            .catch(() => undefined);
          continue;
        } else {
          await sql`insert into item (id) values (${id})`;
        }
        committedAt.set(id, performance.now());
        // Sometimes in a rush, sometimes so slowly that the relay sleeps deep.
        await pause(Math.random() < 0.3 ? 0 : Math.random() ** 3 * 60);
      }
    }),
  );
  await until(() => arrivedAt.size === committedAt.size, 2_000);
  const delays = [...committedAt].map(([id, at]) => (arrivedAt.get(id) ?? Infinity) - at).sort((a, b) => a - b);
  expect(delays.length).toBeGreaterThan(300);
  // A busy machine stalls for longer than that now and then; a ring that is missed would stall the relay for an hour.
  expect(delays[Math.floor(delays.length / 2)]!).toBeLessThan(100);
  expect(delays[Math.floor(delays.length * 0.99)]!).toBeLessThan(1_000);
  expect(errors).toEqual([]);
}, 30_000);

test('a lone row after a long silence', async () => {
  for (const id of [900_000, 900_001, 900_002]) {
    await pause(300);
    const at = performance.now();
    await sql`insert into item (id) values (${id})`;
    await until(() => arrivedAt.has(id), 2_000);
    expect(arrivedAt.get(id)! - at).toBeLessThan(500);
  }
});

// Each row once cost a second read, which found nothing: half of what the relay did at a low rate.
test('a lone row costs one read', async () => {
  const lone = 20;
  let before: number;
  do {
    before = reads();
    await pause(50);
  } while (reads() !== before);
  for (let id = 910_000; id < 910_000 + lone; id++) {
    await sql`insert into item (id) values (${id})`;
    await until(() => arrivedAt.has(id), 2_000);
    await pause(20);
  }
  expect(reads() - before).toBeGreaterThanOrEqual(lone);
  expect(reads() - before).toBeLessThan(1.5 * lone);
});
