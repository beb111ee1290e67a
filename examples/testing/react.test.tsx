// A React component's own tests: rendered in memory, against a real Sobranie server in the test's process.

import { GlobalRegistrator } from '@happy-dom/global-registrator';
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test';
import { createRoot, type Root } from 'react-dom/client';
import { Sobranie, type Change } from '@sobranie/client';
import { useLiveTable } from '@sobranie/react';
import { startTestServer, type TestServer } from '@sobranie/server/testing';

type Order = { id: number; status: string };
type Client = Sobranie<{ orders: Change<Order> }>;

function Orders({ client, load }: { client: Client; load: () => Promise<Order[]> }) {
  const { rows, status } = useLiveTable(client, 'orders', { key: 'id', load });
  return <p>{[status, ...rows.map((order) => `${order.id} ${order.status}`)].join(', ')}</p>;
}

let server: TestServer;
let root: Root;
let client: Client;
const table: Order[] = [{ id: 1, status: 'new' }];

beforeAll(async () => {
  // The document alone: the runtime's own fetch and WebSocket reach the server.
  const { fetch, WebSocket, Request, Response, Headers, AbortController, AbortSignal } = globalThis;
  GlobalRegistrator.register();
  Object.assign(globalThis, { fetch, WebSocket, Request, Response, Headers, AbortController, AbortSignal });
  server = await startTestServer();
});

afterEach(() => {
  root.unmount();
  client.close();
});

afterAll(() => server.close());

/** Writes the table and publishes the change, as the database of a real server does. */
async function write(order: Order): Promise<void> {
  table.splice(0, table.length, ...table.filter(({ id }) => id !== order.id), order);
  const change: Change<Order> = {
    action: 'UPDATE',
    schema: 'public',
    table: 'orders',
    data: order,
    old: { id: order.id },
  };
  await server.publish('orders', change);
}

async function shows(text: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (document.body.textContent !== text && Date.now() < deadline) await Bun.sleep(5);
  expect(document.body.textContent).toBe(text);
}

test('orders are shown as they are, also after the connection was lost', async () => {
  client = new Sobranie(server.url, { token: () => server.token('ann'), backoffMs: [10, 50] });
  root = createRoot(document.body);
  root.render(<Orders client={client} load={async () => [...table]} />);
  await shows('live, 1 new');
  await write({ id: 1, status: 'paid' });
  await shows('live, 1 paid');
  server.cutConnections();
  await write({ id: 1, status: 'sent' });
  await shows('live, 1 sent');
});
