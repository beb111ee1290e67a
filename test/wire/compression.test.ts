// Compressed event streams: what a client reads is the same, whichever stream it is and whenever it joined.

import { beforeAll, expect, test } from 'bun:test';
import { get, type IncomingMessage } from 'node:http';
import { createGunzip } from 'node:zlib';
import { launchBrowser } from '../support/browser.ts';
import { EventClient } from '../support/clients.ts';
import { startNode } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';

patient();

let node: RunningServer;

beforeAll(async () => {
  const { url } = await createDatabase({ migrated: true });
  node = await startNode({ SYNC: 'memory', DATABASE_URL: url, SSE_COMPRESSION: 'true', DRAIN_WINDOW: '1' });
}, 60_000);

class GzipStream {
  text = '';
  bytes = 0;
  ended = false;
  readonly #response: IncomingMessage;

  constructor(response: IncomingMessage) {
    this.#response = response;
    const gunzip = createGunzip();
    gunzip.on('data', (chunk: Buffer) => (this.text += chunk.toString()));
    // The member has no checksum at its end.
    gunzip.on('error', () => undefined);
    response.on('data', (chunk: Buffer) => {
      this.bytes += chunk.length;
      gunzip.write(chunk);
    });
    response.on('end', () => (this.ended = true));
  }

  get encoding(): string | undefined {
    return this.#response.headers['content-encoding'];
  }

  /** Without what is each stream's own. */
  get messages(): string[] {
    return this.text.split('\n\n').filter((event) => event.startsWith('event: message'));
  }

  close(): void {
    this.#response.destroy();
  }
}

function open(channels: string, accept = 'gzip, deflate, br'): Promise<GzipStream> {
  return new Promise((resolve, reject) => {
    const url = `${node.url}/realtime/events?channels=${channels}`;
    get(url, { headers: { 'accept-encoding': accept }, agent: false }, (response) => {
      resolve(new GzipStream(response));
    }).on('error', reject);
  });
}

async function publish(channel: string, data: unknown): Promise<void> {
  const answer = await fetch(`${node.url}/realtime/publish`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ channel, data }),
  });
  expect(answer.status).toBe(200);
}

test('streams that join at different times read the same, in 0.4 of the bytes; others get it plain', async () => {
  const row = (id: number) => ({
    ...{ id, customer: `Customer ${id * 7919}`, note: 'delivered to the neighbour on the second floor. '.repeat(4) },
    items: Array.from({ length: 25 }, (_, line) => ({
      sku: `SKU-${(id * 31 + line * 17) % 997}`,
      quantity: line % 7,
      price: id + line / 10,
    })),
  });
  const first = await open('rows');
  for (let id = 0; id < 5; id++) await publish('rows', row(id));
  const second = await open('rows');
  const plain = await EventClient.open(node.url, { query: 'channels=rows' });
  for (let id = 5; id < 25; id++) await publish('rows', row(id));
  await until(() => first.messages.length === 25 && second.messages.length === 20, 'all arrived');
  expect(second.messages).toEqual(first.messages.slice(5));
  expect([first.encoding, second.encoding]).toEqual(['gzip', 'gzip']);
  const texts: string[] = [];
  for (let id = 5; id < 25; id++) texts.push(JSON.stringify((await plain.next('message')).frame));
  expect(
    first.messages.slice(5).map((event) => JSON.stringify(JSON.parse(/^data: (.*)$/m.exec(event)?.[1] ?? ''))),
  ).toEqual(texts);
  expect(first.bytes / Buffer.byteLength(first.text)).toBeLessThan(0.4);
  for (const accept of ['identity', 'br', 'gzip;q=0', '*;q=0']) {
    const refused = await open('rows', accept);
    expect([accept, refused.encoding]).toEqual([accept, undefined]);
    refused.close();
  }
  first.close();
  second.close();
  await plain.cut();
});

test('a browser reads it with a bare EventSource, and reconnects when the server ends it', async () => {
  const browser = await launchBrowser();
  try {
    const { page } = await browser.newPage({ bypassCSP: true });
    await page.goto(`${node.url}/health/live`);
    await page.evaluate(`
      globalThis.seen = [];
      const source = new EventSource('/realtime/events?channels=page');
      for (const name of ['welcome', 'message', 'drain']) source.addEventListener(name, () => seen.push(name));
      source.addEventListener('error', () => seen.push('error ' + source.readyState));
    `);
    const seen = (): Promise<string[]> => page.evaluate('seen');
    await until(async () => (await seen()).includes('welcome'), 'it is welcomed');
    for (let count = 0; count < 3; count++) await publish('page', { count });
    await until(async () => (await seen()).filter((name) => name === 'message').length === 3, 'it hears');
    process.kill(node.pid, 'SIGTERM');
    // 0: it connects anew, and does not give up.
    await until(async () => (await seen()).includes('error 0'), 'it reconnects');
    expect((await seen()).slice(0, 5)).toEqual(['welcome', 'message', 'message', 'message', 'drain']);
    expect(await node.waitForExit()).toBe(0);
  } finally {
    await browser.close();
  }
});
