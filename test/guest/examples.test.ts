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
