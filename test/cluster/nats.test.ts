// Two real servers over NATS are one server, on one nats-server and on a cluster of three: the same sequence everywhere,
// whatever is killed, and each table change once. Tickets, limits and presence are in the database beside it.

import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { WebSocketClient } from '../support/clients.ts';
import { startNats, startNatsCluster, type TestNats, type TestNatsCluster } from '../support/nats.ts';
import { becomesReady } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { RedisStage, type RedisPlace, type StageOptions } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';

patient();

const long = process.env['LONG'] === '1';

function stageOn<Place extends RedisPlace>(nats: Place, options: StageOptions = {}): Promise<RedisStage<Place>> {
  const environment = { SYNC: 'nats', NATS_URL: nats.url, REDIS_URL: undefined };
  return RedisStage.on(nats, { ...options, environment });
}

describe('two nodes over one nats-server', () => {
  let stage: RedisStage<TestNats>;
  beforeAll(async () => {
    stage = await stageOn(await startNats(), { database: true });
  }, 60_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  test('the nats-server killed -9 and started again: publications and rows all arrive, each once', async () => {
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    for (let round = 0; round < (long ? 10 : 1); round++) {
      await stage.redis.kill9();
      await until(() => load.unavailable > 0, 'a publication was answered unavailable');
      await stage.redis.start();
      await load.arrives(50);
    }
    await load.finish();
  }, 60_000);

  test('paused: publications are refused in time, and nobody misses anything', async () => {
    const load = await stage.load();
    stage.redis.pause();
    await until(() => load.unavailable > 0, 'a publication was answered unavailable');
    stage.redis.resume();
    await load.arrives(50);
    await load.finish();
  }, 60_000);

  test('a node killed -9: its readers go on elsewhere', async () => {
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    for (const node of stage.nodes.slice(0, long ? 2 : 1)) {
      await stage.startNode();
      await stage.killNode(node);
      await load.arrives(30, 40_000);
    }
    await load.finish({ timeoutMs: 40_000 });
  }, 90_000);

  // NATS was named by its prefix alone. A name that NATS itself keeps is lost with its data, and a node that starts just
  // then gives it another one.
  test('it comes back late and empty, as a new node starts: all nodes end ready, and whoever missed anything is told', async () => {
    const named = async () => (await sql<{ layer: string }[]>`select layer from realtime.log`)[0]?.layer;
    const sql = postgres(String(stage.databaseUrl), { max: 1, onnotice: () => undefined });
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    await stage.redis.replace();
    const starting = stage.startNodePatiently();
    await until(() => load.unavailable > 0, 'a publication was answered unavailable', 60_000);
    await stage.redis.start();
    const fresh = await starting;
    await Promise.all(stage.nodes.map((node) => becomesReady(node, 60_000)));
    await load.arrives(50, 40_000);
    await load.finish({ timeoutMs: 40_000, gaps: 'allowed' });
    // The relay that led put its name back, or the new node led first under the name that it gave. All have the same one.
    expect(await named()).toMatch(/^nats sobranie \w+$/);
    await sql.end();
    await stage.killNode(fresh);
  }, 400_000);

  // The stream outlived the database that had filled it, and positions of before stayed good.
  test('another incarnation of the database: positions of before are void, and what comes then arrives', async () => {
    const [{ url } = { url: '' }] = stage.nodes;
    const [live, other] = await Promise.all([WebSocketClient.open(url), WebSocketClient.open(url)]);
    const channel = 'item:lineage';
    await live.request({ type: 'subscribe', channel });
    const publish = (data: number) => live.request({ type: 'publish', channel, data });
    const { epoch, offset } = await publish(1);
    await live.next('message');
    const sql = postgres(String(stage.databaseUrl), { max: 1, onnotice: () => undefined });
    await sql`select realtime.renew()`;
    await sql.end();
    const gap = await live.next('gap', 20_000);
    expect(gap).toMatchObject({ channel, reason: 'epoch_changed' });
    expect(gap.epoch).not.toBe(epoch);
    expect(await other.request({ type: 'subscribe', channel, since: { epoch, offset } })).toMatchObject({
      recovered: false,
      epoch: gap.epoch,
    });
    await publish(2);
    for (const client of [live, other])
      expect(await client.next('message', 10_000)).toMatchObject({ data: 2, offset: offset! + 1 });
    await Promise.all([live.close(), other.close()]);
  }, 60_000);

  test('members of a channel are the same on both nodes, and a leave reaches the other one', async () => {
    const [one, two] = await Promise.all(stage.nodes.slice(0, 2).map((node) => WebSocketClient.open(node.url)));
    if (one === undefined || two === undefined) throw new Error('there are not two nodes');
    const channel = 'room:presence';
    await two.request({ type: 'subscribe', channel, presence: true });
    await one.request({ type: 'subscribe', channel, presence: true });
    expect((await two.next('join')).channel).toBe(channel);
    expect(await one.request({ type: 'presence', channel })).toMatchObject({ count: 2 });
    await one.close();
    expect((await two.next('leave', 20_000)).channel).toBe(channel);
    await two.close();
  }, 40_000);
});

describe('two nodes over a cluster of three', () => {
  let stage: RedisStage<TestNatsCluster>;
  beforeAll(async () => {
    stage = await stageOn(await startNatsCluster());
  }, 60_000);
  afterEach(() => stage.endLoads(), 30_000);
  afterAll(() => stage.close(), 60_000);

  test('the leader of the log killed -9 under load: nobody misses anything', async () => {
    const load = await stage.load();
    for (let round = 0; round < (long ? 6 : 1); round++) {
      const leader = await stage.redis.leaderOf('sobranie_log');
      await leader.kill9();
      await load.arrives(50, 40_000);
      await leader.start();
      await load.arrives(50, 40_000);
    }
    await load.finish({ timeoutMs: 40_000 });
  }, 400_000);
});
