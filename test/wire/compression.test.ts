// Compressed event streams and WebSockets: what a client reads is the same, whichever it is and whenever it joined.

import { beforeAll, expect, test } from 'bun:test';
import { get, type IncomingMessage } from 'node:http';
import { PassThrough } from 'node:stream';
import { createGunzip, inflateRawSync } from 'node:zlib';
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
  const settings = { SYNC: 'memory', DATABASE_URL: url, DRAIN_WINDOW: '1' };
  node = await startNode({ ...settings, SSE_COMPRESSION: 'true', WS_COMPRESSION: 'true' });
}, 60_000);

/** As a client keeps it that asks for compression: each frame, and in how many bytes it came. */
class DeflateSocket {
  readonly frames: string[] = [];
  readonly sizes: number[] = [];
  readonly #socket: WebSocket;

  constructor(query: string) {
    this.#socket = new WebSocket(`${node.url.replace('http', 'ws')}/realtime/ws?${query}`);
    this.#socket.binaryType = 'arraybuffer';
    this.#socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      const bytes = typeof data === 'string' ? Buffer.from(data) : new Uint8Array(data);
      this.frames.push(typeof data === 'string' ? data : inflateRawSync(bytes).toString());
      this.sizes.push(typeof data === 'string' ? -bytes.length : bytes.length);
    };
  }

  send(command: object): void {
    this.#socket.send(JSON.stringify(command));
  }

  /** The frames of this type, once there are so many. */
  async of(type: string, count: number): Promise<string[]> {
    const all = (): string[] => this.frames.filter((frame) => frame.startsWith(`{"type":"${type}"`));
    await until(() => all().length >= count, `${count} ${type}`);
    return all();
  }

  /** How many bytes they came in; negative for text. */
  sizesOf(frames: readonly string[]): number[] {
    return frames.map((frame) => this.sizes[this.frames.indexOf(frame)] ?? 0);
  }

  close(): void {
    this.#socket.close();
  }
}

class GzipStream {
  text = '';
  bytes = 0;
  ended = false;
  readonly #response: IncomingMessage;

  constructor(response: IncomingMessage) {
    this.#response = response;
    // With a decoder of its own: a character may end in the next chunk.
    const decoder = new TextDecoder();
    const gunzip = this.encoding === 'gzip' ? createGunzip() : new PassThrough();
    gunzip.on('data', (chunk: Buffer) => (this.text += decoder.decode(chunk, { stream: true })));
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

  /** Without what is each stream's own, and without one of which a part is still to come. */
  get messages(): string[] {
    const events = this.text.split('\n\n').slice(0, -1);
    return events.filter((event) => event.startsWith('event: message'));
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

// Of a large message only what stands before its data is each stream's own, also where it is compressed.
test('streams that catch up on large messages read the same compressed as plain', async () => {
  const early = await EventClient.open(node.url, { query: 'channels=large' });
  const { lastEventId } = await early.next('welcome');
  await early.cut();
  for (let id = 0; id < 12; id++)
    await publish('large', { id, text: `${id} and more `.repeat(id % 3 === 0 ? 1 : 4_000) });
  const query = `large&since=${lastEventId}`;
  const streams = await Promise.all([open(query), open(query), open(query, 'identity')]);
  await until(() => streams.every(({ messages }) => messages.length === 12), 'all caught up');
  const [first, second, plain] = streams;
  expect(first?.messages).toEqual(plain?.messages);
  expect(second?.messages).toEqual(plain?.messages);
  expect([first?.encoding, plain?.encoding]).toEqual(['gzip', undefined]);
  for (const stream of streams) stream.close();
});

test('streams that catch up on many small messages, from the same place or another, read the same as plain', async () => {
  const early = await EventClient.open(node.url, { query: 'channels=small' });
  const { lastEventId } = await early.next('welcome');
  for (let id = 0; id < 120; id++) await publish('small', { id, text: 'and so on' });
  let later = lastEventId;
  for (let id = 0; id < 40; id++) later = (await early.next('message')).lastEventId;
  const places = [lastEventId, lastEventId, later];
  await early.cut();
  const streams = await Promise.all(
    places.flatMap((since) => [open(`small&since=${since}`), open(`small&since=${since}`, 'identity')]),
  );
  const counts = [120, 120, 120, 120, 80, 80];
  await until(() => streams.every(({ messages }, index) => messages.length === counts[index]), 'all caught up');
  const ids = streams.map(({ messages }) => messages.map((event) => Number(/"id":(\d+)/.exec(event)?.[1])));
  expect(ids).toEqual(counts.map((count) => Array.from({ length: count }, (_, index) => 120 - count + index)));
  for (const { messages } of streams) expect(messages).toEqual(streams[1]!.messages.slice(-messages.length));
  for (const stream of streams) stream.close();
});

test('WebSockets that ask for it read large messages compressed, others and the rest as text', async () => {
  const row = (id: number) => ({
    ...{ id, customer: `Customer ${id * 7919}` },
    items: Array.from({ length: 25 }, (_, line) => ({
      sku: `SKU-${(id * 31 + line * 17) % 997}`,
      quantity: line % 7,
      price: id + line / 10,
    })),
  });
  const first = new DeflateSocket('channels=orders&deflate=1');
  const plain = new DeflateSocket('channels=orders');
  await Promise.all([first.of('subscribed', 1), plain.of('subscribed', 1)]);
  for (let id = 0; id < 5; id++) await publish('orders', row(id));
  const second = new DeflateSocket('channels=orders&deflate=1');
  await second.of('subscribed', 1);
  for (let id = 5; id < 10; id++) await publish('orders', row(id));
  await publish('orders', 'short');
  // What does not get shorter is text as well.
  await publish('orders', Buffer.from(crypto.getRandomValues(new Uint8Array(3_000))).toString('latin1'));
  const [ofFirst, ofSecond, ofPlain] = await Promise.all([
    first.of('message', 12),
    second.of('message', 7),
    plain.of('message', 12),
  ]);
  expect(ofFirst).toEqual(ofPlain);
  expect(ofSecond).toEqual(ofPlain.slice(5));
  const sizes = first.sizesOf(ofFirst);
  for (const [index, frame] of ofFirst.slice(0, 10).entries()) {
    expect(sizes[index]).toBeGreaterThan(0);
    expect((sizes[index] ?? 0) / frame.length).toBeLessThan(0.5);
  }
  expect(sizes[10]).toBeLessThan(0);
  expect(plain.sizesOf(ofPlain).every((size) => size < 0)).toBe(true);

  // Of a sender that wants no echo all others hear, each in its own form.
  const text = 'said by the first '.repeat(100);
  first.send({ type: 'publish', channel: 'orders', data: text, echo: false });
  await first.of('published', 1);
  plain.send({ type: 'publish', channel: 'orders', data: `${text}, then by the plain one`, echo: false });
  await plain.of('published', 1);
  const [heardByFirst, heardByPlain] = [(await first.of('message', 13))[12], (await plain.of('message', 13))[12]];
  const heardBySecond = (await second.of('message', 9)).slice(7);
  expect(heardByFirst).toContain('then by the plain one');
  expect(heardByPlain).not.toContain('then by the plain one');
  expect(heardBySecond).toEqual([heardByPlain ?? '', heardByFirst ?? '']);
  expect(second.sizesOf(heardBySecond).every((size) => size > 0)).toBe(true);

  // Who has left hears no more, and who comes back hears what was missed.
  second.send({ type: 'unsubscribe', channel: 'orders' });
  await second.of('unsubscribed', 1);
  await publish('orders', row(11));
  await first.of('message', 14);
  expect(await second.of('message', 9)).toHaveLength(9);
  for (const socket of [first, second, plain]) socket.close();
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
