// Rows that are larger, alone or together, than what may wait for a client: a row of 5 MiB, and a statement of 12 MB. An
// event stream was cut while such a statement passed, as one batch of changes was written to it in one step; resuming
// past 4 MiB was answered with 500. Now the batch waits for the sockets, and a recovery too.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import postgres, { type Sql } from 'postgres';
import { EventClient, WebSocketClient, type Frame } from '../support/clients.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { patient } from '../support/patience.ts';

patient();

const largeBytes = 5 << 20;
const manyBytes = 60 << 10;
const many = 200;
const ids = Array.from({ length: many + 2 }, (_, index) => index + 1);

describe.each(['postgres', 'memory'])('Rows larger than what may wait for a client, SYNC=%s', (sync) => {
  let database: TestDatabase;
  let server: RunningServer;
  let sql: Sql;

  beforeAll(async () => {
    database = await createDatabase({ migrated: true });
    server = await startServer({ SYNC: sync, DATABASE_URL: database.url });
    sql = postgres(database.url, { max: 1, onnotice: () => undefined });
    await sql`CREATE TABLE large (id int PRIMARY KEY, body text)`;
    await sql`SELECT realtime.watch('large')`;
  });

  afterAll(async () => {
    await server.stop();
    await sql.end({ timeout: 1 });
    await database.drop();
  });

  const idOf = (frame: Frame): number => Number((frame['data'] as { data: { id: number } }).data.id);

  /** Those that come until all came, or the first gap. A connection that is cut rejects. */
  async function readAll(next: () => Promise<Frame>): Promise<number[]> {
    const read: number[] = [];
    while (read.length < ids.length) {
      const frame = await next();
      if (frame.type === 'gap') break;
      if (frame.type === 'message') read.push(idOf(frame));
    }
    return read;
  }

  test('reach a socket and a stream while they are written, and later those that resume', async () => {
    const socket = await WebSocketClient.open(server.url);
    socket.send({ type: 'subscribe', channel: 'large' });
    const { epoch, offset } = await socket.next('subscribed');
    const stream = await EventClient.open(server.url, { query: 'channels=large' });
    const { lastEventId } = await stream.next('welcome');
    const socketIds = readAll(() => socket.nextAny(30_000));
    const streamIds = readAll(async () => (await stream.nextAny(30_000)).frame);
    for (const id of [1, 2]) await sql`INSERT INTO large VALUES (${id}, repeat('x', ${largeBytes}::int))`;
    await sql`INSERT INTO large SELECT id, repeat('x', ${manyBytes}::int) FROM generate_series(3, ${many + 2}::int) AS id`;
    expect(await socketIds).toEqual(ids);
    expect(await streamIds).toEqual(ids);

    const [back, again] = await Promise.all([
      WebSocketClient.open(server.url),
      EventClient.open(server.url, { query: `channels=large&since=${lastEventId}` }),
    ]);
    back.send({ type: 'subscribe', channel: 'large', since: { epoch, offset } });
    expect(await readAll(async () => (await again.nextAny(30_000)).frame)).toEqual(ids);
    expect(await readAll(() => back.nextAny(30_000))).toEqual(ids);
    for (const client of [socket, stream, back, again]) await client.cut();
  });
});
