// A stream of NATS JetStream as a source, on a real server that keeps it on disk.

import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { expect, test } from 'bun:test';
import { startNats, startNatsCluster } from '../support/nats.ts';
import { patient } from '../support/patience.ts';
import { startProxy } from '../support/proxy.ts';
import { until } from '../support/tcp-client.ts';
import { makeCertificates } from '../support/redis-certificates.ts';
import { SourceStage, testSource } from './source-contract.ts';
import { account, keepsToTls } from './tls-contract.ts';

patient();

testSource('nats', async () => {
  const nats = await startNats();
  const proxy = await startProxy({ port: nats.port });
  const config = (what: string, url: string): string => `nats: { subject: '${what}.*', url: '${url}'`;
  const open = (): Promise<NatsConnection> => connect({ servers: nats.url.replace('nats://', ''), reconnect: false });
  let connection = await open();
  const encoder = new TextEncoder();
  return {
    config: (what) => config(what, nats.url),
    proxy,
    proxied: (what) => config(what, `nats://127.0.0.1:${proxy.port}`),
    prepare: async (what) => {
      const manager = await jetstreamManager(connection);
      await manager.streams.add({ name: what, subjects: [`${what}.*`, `${what}.not.for.us`] });
      await jetstream(connection).publish(`${what}.not.for.us`, 'another subject');
    },
    send: async (what, bodies) => {
      const client = jetstream(connection, { timeout: 20_000 });
      for (const body of bodies) {
        await client.publish(`${what}.new`, typeof body === 'string' ? encoder.encode(body) : body);
      }
    },
    bringsAgain: false,
    startsFast: true,
    kill9: () => nats.kill9(),
    start: async () => {
      await nats.start();
      connection = await open();
    },
    close: async () => {
      await connection.close();
      await nats.close();
    },
  };
});

// The consumer is on one server, and the node may be connected to another one: while the first was away, the source brought
// nothing and said nothing.
test('the server that has the consumer is killed -9, and stays away: the others bring what follows, once and in order', async () => {
  const cluster = await startNatsCluster();
  const servers = cluster.url.replace('nats://', '').split(',');
  const connection = await connect({ servers, maxReconnectAttempts: -1 });
  const manager = await jetstreamManager(connection, { timeout: 20_000 });
  await manager.streams.add({ name: 'orders', subjects: ['orders.*'], num_replicas: 3 });
  const source = `{ nats: { subject: 'orders.*', url: '${cluster.url}', channel: 'orders' } }`;
  const stage = await SourceStage.open(source, { SYNC: 'postgres' });
  try {
    await stage.startNode();
    const client = jetstream(connection, { timeout: 2_000 });
    const send = async (count: number): Promise<void> => {
      for (;;) {
        try {
          await client.publish('orders.new', String(count), { msgID: `order ${count}` });
          return;
        } catch {
          // The cluster chooses another leader.
          await Bun.sleep(50);
        }
      }
    };
    const published = async (): Promise<number[]> => {
      const rows = await stage.sql<{ data: string }[]>`
        select data from realtime.publications where channel = 'orders' order by "offset"`;
      return rows.map(({ data }) => Number(data));
    };
    await send(1);
    await until(async () => (await published()).length === 1, 'the first one', 120_000, 50);
    const [consumer] = await manager.consumers.list('orders').next();
    const leader = cluster.servers[Number(consumer?.cluster?.leader?.slice(1))];
    if (leader === undefined) throw new Error('the source has no consumer');
    await leader.kill9();
    const counts = Array.from({ length: 20 }, (_, index) => index + 1);
    for (const count of counts.slice(1)) await send(count);
    await until(async () => (await published()).length >= 20, 'all of them', 120_000, 50);
    expect(await published()).toEqual(counts);
  } finally {
    await stage.close();
    await connection.close();
    await cluster.close();
  }
}, 400_000);

test('TLS, by an authority of its own', async () => {
  const certificates = makeCertificates();
  const { authority, certificate, key } = certificates;
  const { user, password: pass } = account;
  const login = { user, pass, tls: { ca: await Bun.file(authority).text() } };
  const args = ['--tls', '--tlscert', certificate, '--tlskey', key, '--user', user, '--pass', pass];
  const [nats, plain] = await Promise.all([startNats(args, login), startNats()]);
  const connection = await connect({ ...login, servers: `127.0.0.1:${nats.port}` });
  const manager = await jetstreamManager(connection, { timeout: 20_000 });
  await manager.streams.add({ name: 'orders', subjects: ['orders.*'] });
  await keepsToTls({
    setting: 'NATS_TLS_CA',
    certificates,
    schemes: ['tls://', 'nats://'],
    tlsPlace: `127.0.0.1:${nats.port}`,
    plainPlace: `127.0.0.1:${plain.port}`,
    source: `nats: { subject: 'orders.*'`,
    send: async () => void (await jetstream(connection, { timeout: 20_000 }).publish('orders.new', '1')),
  });
  await connection.close();
  await Promise.all([nats.close(), plain.close()]);
}, 300_000);
