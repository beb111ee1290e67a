// The start prints the URL of the embedded database for other programs. It once carried settings of this server's own
// sessions, which libpq, and with it psql and most other drivers, does not take.

import { expect, test } from 'bun:test';
import { runProgram } from '../../src/embedded/process.ts';
import { patient } from '../support/patience.ts';
import { startServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';

patient();

test.each(['1', '2'])('psql takes the URL that a start with WORKERS=%s prints', async (WORKERS) => {
  const server = await startServer({ WORKERS, BROADCAST_INTERVAL: '0', SHUTDOWN_TIMEOUT: '0' }, 60_000);
  const [, url = ''] = await server.waitForOutput(/^ *database +(postgres:\/\/\S+)$/m);
  const statement = "INSERT INTO posts (title) VALUES ('Hello') RETURNING title";
  await runProgram(['psql', '-qX', '-v', 'ON_ERROR_STOP=1', url, '-c', statement], { name: 'psql' });
  // And the line that people copy.
  const [, line = ''] = await server.waitForOutput(/^ *(psql .*)$/m);
  await runProgram(['bash', '-c', line], { name: 'psql' });
  const published = async (): Promise<readonly string[]> => {
    const answer = await fetch(`${server.url}/realtime/channels/posts/history`);
    const { messages } = (await answer.json()) as { messages: { data: { data: { title: string } } }[] };
    return messages.map(({ data }) => data.data.title);
  };
  await until(async () => (await published()).length >= 2, 'both are published');
  expect(await published()).toEqual(['Hello', 'Hello']);
  expect(await server.stop()).toBe(0);
});
