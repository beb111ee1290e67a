// A RabbitMQ of three members, as the bus and as a source with a quorum queue: the member that everybody is connected to is
// killed -9 under load, the address leads to another one, and every confirmed message is accounted for. Three of them need
// too much of a machine for every run.

import { connect, type ConfirmChannel } from 'amqplib';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { becomesReady } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { startRabbitCluster, type TestRabbit } from '../support/rabbitmq.ts';
import { RedisStage } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';
import { SourceStage } from '../sources/source-contract.ts';

patient();

describe.if(process.env['LONG'] === '1')('RabbitMQ of three members', () => {
  let members: readonly TestRabbit[] = [];
  /** As a name or a load balancer leads to a member that lives. */
  let proxy: Proxy;
  let url: string;
  beforeAll(async () => {
    members = await startRabbitCluster();
    proxy = await startProxy({ port: members[0]!.port });
    url = proxy.through(members[0]!.url);
  }, 600_000);
  beforeEach(() => proxy.retarget({ port: members[0]!.port }));
  afterAll(async () => {
    await proxy.close();
    for (const member of members) await member.close();
  }, 60_000);

  /** Each of the first two is killed, with the third one and the other living. */
  async function killEach(without: () => Promise<void>): Promise<void> {
    for (const place of [0, 1]) {
      proxy.retarget({ port: members[place + 1]!.port });
      await members[place]!.kill9();
      await without();
      await members[place]!.start();
    }
  }

  test('as the bus: the member that the nodes are connected to is killed -9, and nobody misses anything', async () => {
    const place = { url, close: () => Promise.resolve() };
    const environment = { SYNC: 'rabbitmq', RABBITMQ_URL: url, REDIS_URL: undefined };
    const stage = await RedisStage.on(place, { environment, database: true });
    const load = await stage.load({ databaseUrl: stage.databaseUrl });
    await killEach(async () => {
      await load.arrives(40, 60_000);
      await Promise.all(stage.nodes.map((node) => becomesReady(node, 120_000)));
      await load.arrives(40, 60_000);
    });
    await load.finish({ timeoutMs: 60_000 });
    await stage.close();
  }, 600_000);

  test('as a source: a quorum queue whose leader is killed -9 brings each confirmed message once, in order', async () => {
    const declaring = await connect(members[0]!.url);
    const first = await declaring.createChannel();
    // Its leader is where it was declared.
    await first.assertQueue('orders', { durable: true, arguments: { 'x-queue-type': 'quorum' } });
    await declaring.close();
    const stage = await SourceStage.open(`{ rabbitmq: { queue: 'orders', url: '${url}', channel: 'orders' } }`, {
      SYNC: 'postgres',
    });
    await Promise.all([stage.startNode(), stage.startNode()]);
    const connection = await connect(members[2]!.url);
    const channel: ConfirmChannel = await connection.createConfirmChannel();
    const send = (count: number): Promise<boolean> =>
      new Promise((resolve) => {
        const content = Buffer.from(String(count));
        channel.sendToQueue('orders', content, { persistent: true }, (error) => resolve(error === null));
      });
    let [confirmed, refused, isSending] = [0, 0, true];
    const sending = (async () => {
      while (isSending) {
        if (await send(confirmed)) confirmed++;
        else refused++;
      }
    })();
    const further = async (count: number): Promise<void> => {
      const goal = confirmed + count;
      await until(() => confirmed >= goal, 'more are confirmed', 120_000, 20);
    };
    await further(200);
    await killEach(() => further(200));
    isSending = false;
    await sending;
    await until(async () => (await stage.log('orders')).at(-1) === confirmed - 1, 'all are logged', 120_000, 50);
    const log = await stage.log('orders');
    process.stdout.write(`${confirmed} confirmed, ${refused} refused, ${log.length} published\n`);
    // One that was refused may have been taken all the same.
    expect(log.length).toBeWithin(confirmed, confirmed + refused + 1);
    expect(log.filter((data, place) => data !== log[place - 1])).toEqual(
      Array.from({ length: confirmed }, (_, place) => place),
    );
    await connection.close();
    await stage.close();
  }, 600_000);
});
