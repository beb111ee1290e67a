// How long an application's tests wait for their server.

import { expect, test } from 'bun:test';
import { startTestServer } from '@sobranie/server/testing';

const startsMin = 5;
/** A neighbour takes a start's share of the caches with it, so on a busy machine only some starts show what they cost. */
const triesMs = 20_000;

test('a test server is there in 50 ms, and nothing of it is left', async () => {
  await (await startTestServer()).close();
  const times: number[] = [];
  const startedAt = performance.now();
  while (times.length < startsMin || (Math.min(...times) >= 50 && performance.now() - startedAt < triesMs)) {
    const before = process.cpuUsage();
    const server = await startTestServer();
    const { user, system } = process.cpuUsage(before);
    times.push((user + system) / 1_000);
    expect((await server.publish('news', 1)).offset).toBe(1);
    await server.close();
    await expect(fetch(server.url)).rejects.toThrow();
  }
  // The processor's time, since it waits for nothing and the clock would measure the load of the machine.
  expect(Math.min(...times)).toBeLessThan(50);
}, 60_000);
