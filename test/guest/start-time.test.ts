// How long an application's tests wait for their server.

import { expect, test } from 'bun:test';
import { startTestServer } from '@sobranie/server/testing';

test('a test server is there in 50 ms, and nothing of it is left', async () => {
  await (await startTestServer()).close();
  const times: number[] = [];
  for (let count = 0; count < 5; count++) {
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
});
