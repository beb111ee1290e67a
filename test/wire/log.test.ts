// The log's lines about connections: one for each at its end, one for each refusal, and few of either in a flood.

import { expect, test } from 'bun:test';
import { EventClient, Refused, WebSocketClient } from '../support/clients.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { until } from '../support/tcp-client.ts';

patient();

test('each connection leaves one line, each refusal one that names the failed check', async () => {
  const { url: database } = await createDatabase({ migrated: true });
  const node = await startNode({ SYNC: 'memory', DATABASE_URL: database, JWT_SECRET: secret, API_KEY: 'k'.repeat(32) });
  const lines = (message: string) =>
    node
      .stdout()
      .split('\n')
      .filter((line) => line.includes(message))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  const token = await tokenOf({ sub: 'ann', channels: { 'room:*': ['subscribe', 'publish'] } });

  const socket = await WebSocketClient.open(node.url, { query: `token=${token}` });
  const { connection } = await socket.next('welcome');
  for (const channel of ['room:1', 'room:2']) await socket.request({ type: 'subscribe', channel });
  await socket.request({ type: 'publish', channel: 'room:1', data: 1 });
  await socket.close();
  const stream = await EventClient.open(node.url, { query: `channels=room:1&token=${token}` });
  await stream.next('welcome');
  await stream.cut();
  const expelled = await WebSocketClient.open(node.url, { query: `token=${token}` });
  const headers = { authorization: `Bearer ${'k'.repeat(32)}` };
  expect((await fetch(`${node.url}/realtime/users/ann/disconnect`, { method: 'POST', headers })).status).toBe(200);
  await expelled.closed;

  await until(() => lines('a connection ended').length === 3, 'three lines');
  const [first, second, third] = lines('a connection ended');
  expect(first).toMatchObject({
    ...{ level: 'info', connection, transport: 'websocket', user: 'ann', commands: 3, channels: 2, code: 1000 },
    cause: 'the client closed it',
  });
  expect(first?.['seconds']).toBeWithin(0, 60);
  expect(second).toMatchObject({ transport: 'sse', user: 'ann', channels: 1, code: 1006 });
  expect(second).not.toHaveProperty('commands');
  expect(third).toMatchObject({ transport: 'websocket', code: 1008, cause: 'disconnected' });

  const refused = await WebSocketClient.open(node.url, { query: 'token=no.token.atall' });
  await refused.closed;
  const streamError = await EventClient.open(node.url, { query: `channels=other&token=${token}` }).catch(
    (error: unknown) => error,
  );
  expect(streamError).toBeInstanceOf(Refused);
  await until(() => lines('a connection was refused').length === 2, 'two lines');
  expect(lines('a connection was refused')).toMatchObject([
    { transport: 'websocket', code: 'unauthorized', reason: expect.stringMatching(/token/i) },
    { transport: 'sse', code: 'forbidden', reason: expect.any(String) },
  ]);

  // A flood of 300 leaves a hundred lines in ten seconds.
  const floods = Array.from({ length: 300 }, async () =>
    (await WebSocketClient.open(node.url, { query: `token=${token}` })).close(),
  );
  await Promise.all(floods);
  const ended = lines('a connection ended').length;
  expect(ended).toBeWithin(100, 205);
  expect(node.stdout()).not.toContain(secret);
  await stopNodes([node]);
});
