// Two real servers with Kafka between them and the log in PostgreSQL are one server: the same sequence everywhere, whatever
// becomes of Kafka or of a node, and each table change once. Without Kafka publications go on, since the log is in the
// database: the other node finds them there within a second.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { WebSocketClient } from '../support/clients.ts';
import { startKafka, type TestKafka } from '../support/kafka.ts';
import { patient } from '../support/patience.ts';
import { freePort } from '../support/postgres.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { RedisStage } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';

patient();

const long = process.env['LONG'] === '1';

describe('two nodes over Kafka', () => {
  let kafka: TestKafka;
  let proxy: Proxy;
  let stage: RedisStage<TestKafka>;
  beforeAll(async () => {
    const port = await freePort();
    proxy = await startProxy({ port });
    kafka = await startKafka({ port, advertisedPort: proxy.port });
    const environment = { SYNC: 'kafka', KAFKA_URL: `kafka://127.0.0.1:${proxy.port}`, REDIS_URL: undefined };
    stage = await RedisStage.on(kafka, { environment, database: true }, proxy);
  }, 200_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  /** Resolves when each node's messages come back to it: readiness is a probe of that way. */
  async function connected(): Promise<void> {
    const isReady = async ({ url }: { readonly url: string }): Promise<boolean> =>
      (await fetch(`${url}/health/ready`)).status === 200;
    await until(async () => (await Promise.all(stage.nodes.map(isReady))).every(Boolean), 'all ready', 90_000, 50);
  }

  test('publications and rows arrive once and in order, and the database notifies nobody of them', async () => {
    const sql = postgres(stage.databaseUrl, { max: 1, onnotice: () => undefined });
    const [log] = await sql<{ topic: string }[]>`SELECT topic FROM realtime.log`;
    const heard: string[] = [];
    await sql.listen(`${log?.topic}_log`, (payload) => heard.push(payload));
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    await load.arrives(60);
    await load.finish();
    await sql`SELECT realtime.tell(${log?.topic ?? ''}, 0, '')`;
    await until(() => heard.length > 0, 'what was notified on purpose', 20_000);
    expect(heard).toEqual([expect.stringMatching(/^0 /)]);
    await sql.end();
  }, 120_000);

  test('Kafka killed -9, started again, and replaced by an empty one: nobody misses anything, and meanwhile it goes on', async () => {
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    for (let round = 0; round < (long ? 6 : 1); round++) {
      await kafka.kill9();
      await load.arrives(40, 40_000);
      await kafka.start();
      await connected();
      await load.arrives(40, 40_000);
    }
    await kafka.replace();
    await kafka.start();
    await connected();
    await load.arrives(40, 40_000);
    await load.finish({ timeoutMs: 40_000 });
  }, 400_000);

  test('paused, its connections cut, and half open: nobody misses anything', async () => {
    const load = await stage.load();
    kafka.pause();
    await load.arrives(40, 40_000);
    kafka.resume();
    for (let round = 0; round < (long ? 20 : 3); round++) {
      await connected();
      proxy.cut();
      await load.arrives(10, 40_000);
    }
    await connected();
    proxy.swallow();
    await load.arrives(40, 40_000);
    await load.finish({ timeoutMs: 40_000 });
    await connected();
  }, 300_000);

  async function relays({ url }: { readonly url: string }): Promise<boolean> {
    const response = await fetch(`${url}/metrics`);
    return /^sobranie_relay_leader(?:\{[^}]*\})? 1$/m.test(await response.text());
  }

  // What a relay has committed and not told yet is told by nobody after its end. Kafka takes nothing for a moment, so that
  // there is such a thing.
  test('the node that relays is killed -9 between its commits and their word: its readers go on elsewhere', async () => {
    await connected();
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    for (let round = 0; round < (long ? 3 : 1); round++) {
      await stage.startNode();
      const leading = await Promise.all(stage.nodes.map(async (node) => ((await relays(node)) ? node : undefined)));
      const leader = leading.find((node) => node !== undefined) ?? stage.nodes[0];
      if (leader === undefined) throw new Error('there is no node');
      kafka.pause();
      await load.arrives(10, 40_000);
      await stage.killNode(leader);
      kafka.resume();
      await load.arrives(30, 40_000);
    }
    await load.finish({ timeoutMs: 40_000 });
  }, 200_000);

  test('an ephemeral publication and a member of a channel reach the other node', async () => {
    await connected();
    const [one, two] = await Promise.all(stage.nodes.slice(0, 2).map((node) => WebSocketClient.open(node.url)));
    if (one === undefined || two === undefined) throw new Error('there are not two nodes');
    for (const socket of [one, two]) await socket.request({ type: 'subscribe', channel: 'ephemeral:typing' });
    await one.request({ type: 'publish', channel: 'ephemeral:typing', data: 1 });
    expect(await two.next('message', 20_000)).toMatchObject({ channel: 'ephemeral:typing', data: 1 });
    const channel = 'room:presence';
    await two.request({ type: 'subscribe', channel, presence: true });
    await one.request({ type: 'subscribe', channel, presence: true });
    expect((await two.next('join', 20_000)).channel).toBe(channel);
    await one.close();
    expect((await two.next('leave', 20_000)).channel).toBe(channel);
    await two.close();
  }, 60_000);
});
