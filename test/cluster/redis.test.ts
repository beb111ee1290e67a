// Three real servers over Redis are one server: the same sequence everywhere, whoever publishes, dies or comes back
// elsewhere; and the relay carries each table change into Redis once, whatever is killed on the way.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { WebSocketClient } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { RedisStage } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';
import { patient } from '../support/patience.ts';

patient();

const long = process.env['LONG'] === '1';

describe('three nodes over Redis', () => {
  let stage: RedisStage;
  beforeAll(async () => {
    stage = await RedisStage.open({ nodes: 3 });
  }, 60_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  test('everyone sees the same sequence, also who moves from node to node', async () => {
    const load = await stage.load({ publishers: 3, readers: 3 });
    for (let round = 0; round < (long ? 200 : 15); round++) {
      load.moveSome();
      await load.flows(15);
    }
    await load.finish();
    expect(load.moves).toBeGreaterThan(5);
  }, 90_000);

  test('an ephemeral publication reaches each subscriber once, and not the sender who asked for no echo', async () => {
    const channel = 'ephemeral:typing';
    const sockets = await Promise.all(
      [...stage.nodes, ...stage.nodes].map(async (node) => {
        const socket = await WebSocketClient.open(node.url);
        await socket.request({ type: 'subscribe', channel });
        return socket;
      }),
    );
    const [sender] = sockets;
    await sender?.request({ type: 'publish', channel, data: 1, echo: false });
    await sender?.request({ type: 'publish', channel, data: 2 });
    await sender?.request({ type: 'publish', channel, data: 'last' });
    for (const socket of sockets) {
      const heard: unknown[] = [];
      while (heard.at(-1) !== 'last') heard.push((await socket.next('message', 10_000)).data);
      expect(heard).toEqual(socket === sender ? [2, 'last'] : [1, 2, 'last']);
    }
    await Promise.all(sockets.map((socket) => socket.close()));
  }, 30_000);

  test('what is large is kept in Redis compressed, and reaches other nodes and the history as it was', async () => {
    const [channel = ''] = stage.channels(1);
    const [one, two] = stage.nodes as [RunningServer, RunningServer];
    const [speaker, hearer] = await Promise.all([one, two].map((node) => WebSocketClient.open(node.url)));
    await hearer!.request({ type: 'subscribe', channel });
    const large = { text: 'é "row" of a table, '.repeat(2_500) };
    for (const data of ['small', large]) {
      expect(await speaker!.request({ type: 'publish', channel, data }, 10_000)).toMatchObject({ type: 'published' });
      expect(await hearer!.next('message', 10_000)).toMatchObject({ data });
    }
    const { messages = [] } = await speaker!.request({ type: 'history', channel, limit: 10 }, 10_000);
    expect(messages.map(({ data }) => data)).toEqual(['small', large]);
    const [key = ''] = await stage.redis.admin.keys(`*:s:{${channel}}`);
    const kept = await stage.redis.admin.xrange(key, '-', '+');
    expect(kept[0]![1][1]).toBe('"small"');
    expect(kept[1]![1][1]!.length).toBeLessThan(1_000);
    await Promise.all([speaker, hearer].map((socket) => socket!.close()));
  }, 60_000);

  // Answers of one moment go out in one write, which nothing else may overtake.
  test('answers come in the order of the commands, however many are under way', async () => {
    const [channel = ''] = stage.channels(1);
    const socket = await WebSocketClient.open(stage.nodes[0]?.url ?? '');
    await socket.next('welcome');
    await socket.request({ type: 'subscribe', channel });
    const expected: string[] = [];
    for (let round = 0; round < 20; round++) {
      for (let count = 0; count < 20; count++) {
        const id = `${round}-${count}`;
        socket.send({ type: 'publish', channel, data: id, id });
        expected.push(`published ${id}`);
      }
      for (const type of ['ping', 'nonsense', 'history']) {
        socket.send({ type, channel, id: `${round}-${type}` });
        const answer = type === 'ping' ? 'pong' : type === 'nonsense' ? 'error' : type;
        expected.push(`${answer} ${round}-${type}`);
      }
    }
    const answers: string[] = [];
    const offsets: number[] = [];
    while (answers.length < expected.length || offsets.length < 400) {
      const { type, id, offset = 0 } = await socket.nextAny(10_000);
      if (type === 'message') offsets.push(offset);
      else answers.push(`${type} ${id}`);
    }
    expect(answers).toEqual(expected);
    expect(offsets).toEqual(offsets.map((_, index) => index + 1));
    await socket.close();
  }, 30_000);

  test('a node killed -9: its readers go on elsewhere, and nobody misses anything', async () => {
    const load = await stage.load();
    const [node] = stage.nodes;
    if (node === undefined) throw new Error('there is no node');
    await stage.killNode(node);
    await load.arrives(30);
    await stage.startNode();
    await load.arrives(30);
    await load.finish();
  }, 60_000);

  test('2,000 channels of a node are heard again within 2 s after its connection was lost', async () => {
    const names = stage.channels(2_000);
    const [reading, writing] = stage.nodes;
    const { admin } = stage.redis;
    const sockets = await Promise.all(
      [names.slice(0, 1_000), names.slice(1_000)].map(async (half) => {
        const socket = await WebSocketClient.open(reading?.url ?? '');
        await Promise.all(half.map((channel) => socket.request({ type: 'subscribe', channel }, 20_000)));
        return socket;
      }),
    );
    const topics = names.map((name) => `sobranie:c:{${name}}`);
    const heard = async (): Promise<number> => {
      const counts = (await admin.call('PUBSUB', 'NUMSUB', ...topics)) as (string | number)[];
      return counts.filter((count, index) => index % 2 === 1 && Number(count) > 0).length;
    };
    expect(await heard()).toBe(2_000);
    const startedAt = performance.now();
    await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    // The killing is done when the answer comes.
    await until(async () => (await heard()) === 2_000, 'all channels heard again', 20_000);
    const tookMs = performance.now() - startedAt;
    expect(tookMs).toBeLessThan(long ? 2_000 : 10_000);
    const publisher = await WebSocketClient.open(writing?.url ?? '');
    await Promise.all(names.map((channel) => publisher.request({ type: 'publish', channel, data: channel }, 20_000)));
    for (const socket of sockets) {
      for (let count = 0; count < 1_000; count++) {
        const { channel, data, offset } = await socket.next('message', 10_000);
        expect([data, offset]).toEqual([channel, 1]);
      }
    }
    await Promise.all([publisher, ...sockets].map((socket) => socket.close()));
  }, 60_000);
});

describe('the relay into Redis', () => {
  let stage: RedisStage;
  beforeAll(async () => {
    stage = await RedisStage.open({ nodes: 2, persist: true, database: true });
  }, 60_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  // Rows are appended to Redis, then deleted from the outbox: a leader that dies in between leaves them to the next one,
  // which must not append them a second time.
  test('its leader killed -9 between appending and deleting: each row is in Redis exactly once', async () => {
    const databaseUrl = stage.databaseUrl;
    const load = await stage.load({ databaseUrl });
    const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
    const gate = 4_711;
    await sql.unsafe(`
      CREATE FUNCTION public.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock_shared(${gate}); RETURN NULL; END $$;
      CREATE TRIGGER gate BEFORE DELETE ON realtime.outbox FOR EACH STATEMENT EXECUTE FUNCTION public.wait_at_gate();
    `);
    const waiters = (): Promise<{ pid: number }[]> => sql<{ pid: number }[]>`
      SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = ${gate} AND NOT granted
    `;
    for (let round = 0; round < (long ? 6 : 2); round++) {
      await sql`SELECT pg_advisory_lock(${gate})`;
      await until(async () => (await waiters()).length > 0, 'the leader stands before the deletion', 20_000);
      await stage.killNode(await leaderOf(stage));
      // Its session would otherwise go on with the deletion, not knowing that nobody waits for it.
      await sql`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE objid = ${gate} AND NOT granted`;
      await sql`SELECT pg_advisory_unlock(${gate})`;
      await stage.startNode();
      await load.arrives(50, 40_000);
    }
    await sql`DROP TRIGGER gate ON realtime.outbox`;
    await sql.end();
    // Writers feel nothing of a Redis that is away, and what they wrote meanwhile arrives.
    await stage.redis.kill9();
    await load.flows(30);
    await stage.redis.start();
    await load.arrives(50, 40_000);
    await load.finish({ timeoutMs: 40_000 });
  }, 120_000);
});

async function leaderOf({ nodes }: RedisStage): Promise<RunningServer> {
  for (const node of nodes) {
    const metrics = await (await fetch(`${node.url}/metrics`)).text();
    if (/^sobranie_relay_leader(\{.*\})? 1$/m.test(metrics)) return node;
  }
  throw new Error('no node relays');
}
