// The start prints the URL of the embedded database for other programs. It once carried settings of this server's own
// sessions, which libpq, and with it psql and most other drivers, does not take. And a start that logs JSON printed none.
// In production, where many may read the log, it carried the password.

import { expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runProgram } from '../../src/embedded/process.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { startServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';

patient();

test.each([
  ['1', 'pretty', /^ *database +(postgres:\/\/\S+)$/m],
  ['2', 'json', /^\{.*"database":"(postgres:\/\/[^"]+)".*\}$/m],
])('psql takes the URL that a start with WORKERS=%s prints, as %s', async (WORKERS, LOG_FORMAT, printed) => {
  const quiet = { BROADCAST_INTERVAL: '0', SHUTDOWN_TIMEOUT: '0' };
  const server = await startServer({ ...quiet, WORKERS, LOG_FORMAT, DATABASE_URL: undefined }, 60_000);
  const [, url = ''] = await server.waitForOutput(printed);
  const statement = "INSERT INTO posts (title) VALUES ('Hello') RETURNING title";
  await runProgram(['psql', '-qX', '-v', 'ON_ERROR_STOP=1', url, '-c', statement], { name: 'psql' });
  // And the line that people copy.
  const [, line = ''] = LOG_FORMAT === 'pretty' ? await server.waitForOutput(/^ *(psql .*)$/m) : [];
  if (line !== '') await runProgram(['bash', '-c', line], { name: 'psql' });
  const published = async (): Promise<readonly string[]> => {
    const answer = await fetch(`${server.url}/realtime/channels/posts/history`);
    const { messages } = (await answer.json()) as { messages: { data: { data: { title: string } } }[] };
    return messages.map(({ data }) => data.data.title);
  };
  const expected = LOG_FORMAT === 'pretty' ? ['Hello', 'Hello'] : ['Hello'];
  await until(async () => (await published()).length >= expected.length, 'all are published');
  expect(await published()).toEqual(expected);
  expect(await server.stop()).toBe(0);
});

test.each([
  ['json', /"database":"(postgres:\/\/[^"]+passfile[^"]+)"/],
  ['pretty', /^ *database +(postgres:\/\/\S+)$/m],
])(
  'in production psql takes the URL that is printed as %s, and the password is nowhere',
  async (LOG_FORMAT, printed) => {
    // Characters that have a meaning in URLs.
    const DATA_DIR = join(temporaryFolder('data'), 'a & b#?');
    const production = { NODE_ENV: 'production', ALLOW_ANONYMOUS: 'true', LOG_LEVEL: 'debug', SHUTDOWN_TIMEOUT: '0' };
    const server = await startServer({ ...production, LOG_FORMAT, DATA_DIR }, 60_000);
    const [, url = ''] = await server.waitForOutput(printed);
    await runProgram(['psql', '-qX', '-v', 'ON_ERROR_STOP=1', url, '-c', 'SELECT FROM realtime.watches'], {
      name: 'psql',
    });
    expect(await server.stop()).toBe(0);
    const { password } = JSON.parse(readFileSync(join(DATA_DIR, 'postgres.json'), 'utf8')) as { password: string };
    expect(password.length).toBeGreaterThan(20);
    expect(server.stdout() + server.stderr()).not.toContain(password);
  },
);
