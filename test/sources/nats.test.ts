// A stream of NATS JetStream as a source, on a real server that keeps it on disk.

import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { startNats } from '../support/nats.ts';
import { patient } from '../support/patience.ts';
import { testSource } from './source-contract.ts';

patient();

testSource('nats', async () => {
  const nats = await startNats();
  const open = (): Promise<NatsConnection> => connect({ servers: nats.url.replace('nats://', ''), reconnect: false });
  let connection = await open();
  const encoder = new TextEncoder();
  return {
    config: (what) => `nats: { subject: '${what}.*', url: '${nats.url}'`,
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
