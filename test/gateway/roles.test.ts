// One program in four services, as ROLE splits it, behind one gateway: each does its part and no other's, and a row that
// a backend writes comes out at clients whose nodes neither relay nor know the API.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { connect, type Database } from '../../src/database/connect.ts';
import { EventClient, WebSocketClient } from '../support/clients.ts';
import { startNginx, type Nginx } from '../support/nginx.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';

patient();

const roles = ['ws', 'sse', 'api', 'relay'] as const;
const nodes = new Map<string, RunningServer>();
let nginx: Nginx;
let sql: Database;

function node(role: (typeof roles)[number]): RunningServer {
  const found = nodes.get(role);
  if (found === undefined) throw new Error(`no node has the role ${role}`);
  return found;
}

beforeAll(async () => {
  const { url } = await createDatabase({ migrated: true });
  const settings = { SYNC: 'postgres', DATABASE_URL: url, API_KEY: 'the-key-of-the-backend' };
  await Promise.all(
    roles.map(async (role) => nodes.set(role, await startNode({ ...settings, NODE_ID: role, ROLE: role }))),
  );
  const ports = Object.fromEntries(roles.map((role) => [role, [node(role).port]]));
  nginx = await startNginx({ ports: [], roles: ports, upstream: 'upstream-roles.conf' });
  sql = connect(url, { applicationName: 'a backend' });
}, 60_000);

afterAll(async () => {
  await sql?.end({ timeout: 5 });
  await nginx?.close();
  await stopNodes([...nodes.values()]);
}, 60_000);

test('a row and a publication reach the clients of both transports', async () => {
  const socket = await WebSocketClient.open(nginx.url);
  const stream = await EventClient.open(nginx.url, { query: 'channels=roles:a' });
  try {
    expect((await socket.next('welcome')).node).toBe('ws');
    expect((await stream.next('welcome')).frame.node).toBe('sse');
    await socket.request({ type: 'subscribe', channel: 'roles:a' });
    const published = await fetch(`${nginx.url}/realtime/publish`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer the-key-of-the-backend' },
      body: JSON.stringify({ channel: 'roles:a', data: 'published' }),
    });
    expect(published.status).toBe(200);
    await sql`SELECT realtime.send('roles:a', '"written"')`;
    for (const [index, data] of ['published', 'written'].entries()) {
      expect(await socket.next('message')).toMatchObject({ data, offset: index + 1 });
      expect((await stream.next('message')).frame).toMatchObject({ data, offset: index + 1 });
    }
    // A client that publishes does so at its own node.
    socket.send({ type: 'publish', channel: 'roles:a', data: 'typed' });
    expect((await stream.next('message')).frame).toMatchObject({ data: 'typed', offset: 3 });
  } finally {
    await Promise.all([socket.cut(), stream.cut()]);
  }
});

// Those without the role had no such metric, so a sum over all nodes without a relay was no 0 but nothing.
test('each node says whether it relays', async () => {
  const leads = roles.map(async (role) => {
    const response = await fetch(`${node(role).url}/metrics`);
    return /^sobranie_relay_leader (\d)$/m.exec(await response.text())?.[1];
  });
  expect(await Promise.all(leads)).toEqual(['0', '0', '0', '1']);
});

const paths = {
  '/realtime/ws': ['ws'],
  '/realtime/events?channels=a': ['sse'],
  '/realtime/channels': ['api'],
  '/swagger': ['api'],
  '/health/live': ['ws', 'sse', 'api', 'relay'],
  '/metrics': ['ws', 'sse', 'api', 'relay'],
};

test.each(Object.entries(paths))('%s is there for the roles %p alone', async (path, expected) => {
  const found = await Promise.all(
    roles.map(async (role) => {
      const answer = await fetch(node(role).url + path, { signal: AbortSignal.timeout(5_000) });
      await answer.body?.cancel();
      return answer.status === 404 ? [] : [role];
    }),
  );
  expect<string[]>(found.flat()).toEqual(expected);
});
