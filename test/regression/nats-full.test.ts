// The limit of NATS for its files is reached, as when its disk is full. What the relay said of it was that it fails. Rows
// wait in the database, none is parked, and all arrive in order once there is room.

import { expect, test } from 'bun:test';
import { join } from 'node:path';
import postgres from 'postgres';
import { WebSocketClient } from '../support/clients.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { startNats } from '../support/nats.ts';
import { becomesReady, startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { until } from '../support/tcp-client.ts';

patient();

const rows = 40;
const text = 'x'.repeat(10_000);

test('NATS is full: rows wait and readiness says why; with room again they arrive, each once and in order', async () => {
  const file = join(temporaryFolder('nats-full'), 'nats.conf');
  await Bun.write(file, 'jetstream { max_file_store: 200KB }\n');
  const [nats, { url }] = await Promise.all([startNats(['-c', file]), createDatabase({ migrated: true })]);
  const node = await startNode({ SYNC: 'nats', NATS_URL: nats.url, DATABASE_URL: url }, 60_000);
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  try {
    const socket = await WebSocketClient.open(node.url);
    await socket.request({ type: 'subscribe', channel: 'full' });
    for (let count = 1; count <= rows; count++) await sql`select realtime.send('full', ${sql.json({ count, text })})`;
    const ready = async (): Promise<string> => (await fetch(`${node.url}/health/ready`)).text();
    await until(async () => (await ready()).includes('it has no room for more'), 'it says so', 120_000, 50);
    expect(await socket.request({ type: 'publish', channel: 'other', data: text })).toMatchObject({
      type: 'error',
      code: 'unavailable',
      retryable: true,
    });

    await nats.kill9();
    await Bun.write(file, 'jetstream { max_file_store: 200MB }\n');
    await nats.start();
    const counts: unknown[] = [];
    while (counts.length < rows) counts.push(((await socket.next('message', 60_000)).data as { count: number }).count);
    expect(counts).toEqual(Array.from({ length: rows }, (_, index) => index + 1));
    await becomesReady(node, 60_000);
    expect([...(await sql`select from realtime.parked`)]).toEqual([]);
    await socket.close();
  } finally {
    await sql.end();
    await stopNodes([node]);
    await nats.close();
  }
}, 240_000);
