// One statement of very many rows: a reader that keeps up a fair pace gets all of them, over both transports, in
// order, once, and without a gap, although a channel keeps far fewer; and a transaction that stays open delays nobody.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import postgres, { type Sql } from 'postgres';
import { EventClient, WebSocketClient, type Frame } from '../support/clients.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { patient } from '../support/patience.ts';

patient();

const rows = 100_000;

describe('One statement of 100,000 rows', () => {
  let database: TestDatabase;
  let server: RunningServer;
  let sql: Sql;

  beforeAll(async () => {
    database = await createDatabase({ migrated: true });
    server = await startServer({ SYNC: 'postgres', DATABASE_URL: database.url });
    sql = postgres(database.url, { max: 3, onnotice: () => undefined });
    await sql`CREATE TABLE flood (id bigint PRIMARY KEY, body text)`;
    await sql`SELECT realtime.watch('flood')`;
  }, 60_000);

  afterAll(async () => {
    await server.stop();
    await sql.end({ timeout: 1 });
    await database.drop();
  }, 30_000);

  const idOf = (frame: Frame): number => Number((frame['data'] as { data: { id: number } }).data.id);

  async function readAll(next: () => Promise<Frame>): Promise<number[]> {
    const ids: number[] = [];
    while (ids.length < rows) {
      const frame = await next();
      if (frame.type === 'gap') throw new Error(`a gap after ${ids.length} rows: ${JSON.stringify(frame)}`);
      if (frame.type === 'message') ids.push(idOf(frame));
    }
    return ids;
  }

  test('reaches a WebSocket and an event stream whole, past an open transaction', async () => {
    const holder = await sql.reserve();
    await holder`BEGIN`;
    await holder`INSERT INTO flood VALUES (0, 'late')`;
    const socket = await WebSocketClient.open(server.url);
    socket.send({ type: 'subscribe', channel: 'flood' });
    await socket.next('subscribed');
    const stream = await EventClient.open(server.url, { query: 'channels=flood' });
    await stream.next('welcome');
    const socketIds = readAll(() => socket.nextAny(30_000));
    const streamIds = readAll(async () => (await stream.nextAny(30_000)).frame);
    await sql`INSERT INTO flood SELECT id, repeat('x', 50) FROM generate_series(1, ${rows}::int) AS id`;
    const expected = Array.from({ length: rows }, (_, index) => index + 1);
    expect(await socketIds).toEqual(expected);
    expect(await streamIds).toEqual(expected);
    await holder`COMMIT`;
    holder.release();
    expect(idOf(await socket.next('message', 30_000))).toBe(0);
    expect(idOf((await stream.next('message', 30_000)).frame)).toBe(0);
    await socket.cut();
    await stream.cut();
  }, 120_000);
});
