// The example suites of an application's own tests pass, run as their readers run them.

import { expect, test } from 'bun:test';
import { join } from 'node:path';
import { patient } from '../support/patience.ts';
import { startTestServer } from '@sobranie/server/testing';

patient();

test('the suites of examples/testing pass', async () => {
  const child = Bun.spawn([process.execPath, 'test', './examples/testing'], {
    cwd: join(import.meta.dir, '../..'),
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const [report, code] = await Promise.all([child.stderr.text(), child.exited]);
  expect(code, report).toBe(0);
  expect(report).toContain('3 pass');
});

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

test('what the environment says does not count, and faulty options are named', async () => {
  await using server = await startTestServer({
    rules: [{ channels: 'only:*', recoverable: false }, { channels: '*' }],
  });
  expect(await server.publish('only:this', 1)).toEqual({ channel: 'only:this' });
  await expect(startTestServer({ settings: { MAX_MESSAGE_BYTES: 'x' } })).rejects.toThrow('MAX_MESSAGE_BYTES');
  await expect(startTestServer({ settings: { SYNC: 'postgres' } })).rejects.toThrow('databaseUrl');
  expect(() => server.advanceTime(-1)).toThrow(RangeError);
  const token = await server.token('ann', { channels: { news: ['subscribe'] }, seconds: 60 });
  const open = () => fetch(`${server.url}/realtime/events?channels=news&token=${token}`).then(({ status }) => status);
  expect(await open()).toBe(200);
  server.advanceTime(120_000);
  expect(await open()).toBe(401);
});
