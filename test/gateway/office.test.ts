// The recipe for nginx let 250 connections of one address in and then 50 a second, and answered 429 to the rest. After a
// deploy a whole office comes back at once, and an EventSource that is refused never tries again: it was cut for good.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { EventClient, WebSocketClient } from '../support/clients.ts';
import { startNginx, type Nginx } from '../support/nginx.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import type { RunningServer } from '../support/process.ts';

patient();

const officeSize = 1_200;

let node: RunningServer;
let nginx: Nginx;

beforeAll(async () => {
  node = await startNode({ SYNC: 'memory' });
  nginx = await startNginx({ ports: [node.port] });
});

afterAll(async () => {
  await nginx?.close();
  await stopNodes([node]);
}, 60_000);

test(`${officeSize} clients behind one address come back at once, and none is refused`, async () => {
  const opening = Array.from({ length: officeSize }, (_, index) =>
    index % 2 === 0
      ? WebSocketClient.open(nginx.url, { timeoutMs: 40_000 })
      : EventClient.open(nginx.url, { query: 'channels=office', timeoutMs: 40_000 }),
  );
  const settled = await Promise.allSettled(opening);
  const refused = settled.flatMap((each) => (each.status === 'rejected' ? [String(each.reason)] : []));
  await Promise.all(settled.flatMap((each) => (each.status === 'fulfilled' ? [each.value.cut()] : [])));
  expect(refused).toEqual([]);
});
