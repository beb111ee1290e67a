// A backend's own tests against a real Sobranie server, which lives in the test's process and is there in milliseconds.
// The backend here ships orders: it tells everyone, and the customer.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { Sobranie } from '@sobranie/client';
import { Backend } from '@sobranie/server';
import { startTestServer, type TestServer } from '@sobranie/server/testing';

async function ship(backend: Backend, order: { readonly id: number; readonly customer: string }): Promise<void> {
  await backend.publish('orders', { id: order.id, status: 'sent' });
  await backend.notify(order.customer, { title: `Order ${order.id} is on its way` });
}

let server: TestServer;
beforeAll(async () => (server = await startTestServer()));
afterAll(() => server.close());

test('a shipped order is told to everyone, and to the customer alone', async () => {
  await ship(new Backend(server.url, { apiKey: server.apiKey }), { id: 7, customer: 'ann' });
  const told = async (channel: string) => (await server.history(channel)).messages.map(({ data }) => data);
  expect(await told('orders')).toEqual([{ id: 7, status: 'sent' }]);
  expect(await told('user:ann')).toEqual([{ title: 'Order 7 is on its way' }]);
});

test('a client that was cut off misses nothing, and one whose token ended asks for another', async () => {
  let tokens = 0;
  const token = () => server.token('ann', { seconds: ++tokens * 60 });
  const client = new Sobranie(server.url, { token, backoffMs: [10, 50] });
  const events = client.channel('news').events()[Symbol.asyncIterator]();
  const next = async () => (await events.next()).value;
  const first = next();
  while ((await server.channels()).length === 0) await Bun.sleep(5);
  await server.publish('news', 'one');
  expect(await first).toMatchObject({ type: 'message', data: 'one' });
  server.cutConnections('ann');
  await server.publish('news', 'two');
  expect(await next()).toMatchObject({ data: 'two' });
  server.advanceTime(10 * 60_000);
  await server.publish('news', 'three');
  expect(await next()).toMatchObject({ data: 'three' });
  expect(tokens).toBeGreaterThan(2);
  client.close();
});
