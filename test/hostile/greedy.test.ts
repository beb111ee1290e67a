// A few bytes that ask for a great deal: histories that nobody reads, channels by the hundred thousand, control frames
// alone. LONG=1 asks for twenty times as much.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { attack } from '../support/hostile/attacker.ts';
import { long, Stage } from '../support/hostile/stage.ts';
import { seed } from '../support/random.ts';
import { post, sample } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

const times = long ? 20 : 1;
const mebibyte = 1 << 20;

let stage: Stage;

beforeAll(async () => {
  stage = await Stage.open('greedy', { HISTORY_BYTES_MAX: String(32 * mebibyte) });
}, 60_000);

afterAll(() => stage?.close(), 60_000);

// 60 bytes asked for 4 MiB, as often as somebody liked: 400 a second over 64 connections held the server up for twelve
// seconds, though none of the answers was read.
test('who asks for histories and reads none is answered no faster than it reads', async () => {
  const { server } = stage;
  for (let count = 0; count < 200; count++) {
    const answer = await post(server, '/realtime/publish', { channel: 'big:1', data: 'x'.repeat(30_000) });
    expect(answer.status).toBe(200);
  }
  const before = await stage.memory();
  await stage.unharmed(async () => {
    const outcome = await attack(server, 'greedy', {
      count: 150 * times,
      perSecond: 100,
      sockets: 4,
      query: 'big:1',
    });
    stage.tell({ outcome });
  });
  const { residentMiB } = await stage.memory();
  expect(residentMiB - before.residentMiB).toBeLessThan(64);
}, 120_000);

test(`${20_000 * times} channels that are published to once leave no more than the history may hold`, async () => {
  const { server } = stage;
  const publish = (count: number, number: number) =>
    attack(server, 'names', { count, perSecond: 8_000, seed: seed + number }, 200_000);
  await publish(5_000, 1);
  await stage.unharmed(async () => {
    const count = 20_000 * times;
    expect(await publish(count, 2)).toMatchObject({ published: count, answers: count });
  });
  const { heapMiB } = await stage.heldMemory();
  expect(heapMiB).toBeLessThan(120);
  expect(await sample(server, 'sobranie_channels_active')).toBe(1);
}, 240_000);

test(`${30_000 * times} pings, pongs and pieces of messages that never end cost nobody anything`, async () => {
  const { server } = stage;
  const before = await stage.heldMemory();
  const flood = (count: number) => attack(server, 'controls', { count, perSecond: 15_000 }, 200_000);
  await stage.unharmed(async () => {
    const outcome = await flood(30_000 * times);
    // A message of pieces that outgrows the largest frame ends its connection.
    expect(Number(outcome['closed'])).toBeGreaterThan(0);
  });
  await stage.settlesTo(before, () => flood(1_000));
}, 240_000);
