// The promise of the whole project, over both transports at once: connections that are cut again and again, at any
// byte, while publications pour in, and yet every message comes exactly once and in order.

import { expect, test } from 'bun:test';
import { EventClient, Refused, WebSocketClient, type Frame } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { describeWire } from './wire.ts';

const cutsEach = 20;
const seed = Number(process.env['SEED'] ?? crypto.getRandomValues(new Uint32Array(1))[0]);

/** mulberry32: the same numbers for the same seed. */
function randomFrom(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What one reader got of each channel, over all of its lives. */
class Ledger {
  readonly received = new Map<string, unknown[]>();
  readonly faults: string[] = [];

  take(frame: Frame): void {
    const { type, channel = '', offset, data } = frame;
    if (type === 'gap' || type === 'error') this.faults.push(JSON.stringify(frame));
    if (type !== 'message') return;
    const list = this.received.get(channel) ?? [];
    list.push(data);
    if (offset !== list.length) this.faults.push(`${channel}: offset ${offset} came as number ${list.length}`);
    this.received.set(channel, list);
  }

  get total(): number {
    let sum = 0;
    for (const list of this.received.values()) sum += list.length;
    return sum;
  }

  has(counts: ReadonlyMap<string, number>): boolean {
    return [...counts].every(([channel, count]) => (this.received.get(channel)?.length ?? 0) >= count);
  }
}

interface Reader {
  readonly ledger: Ledger;
  cuts: number;
  /** Connections that were cut after they had brought something. */
  fruitful: number;
  /** Reads through one connection until it is cut. */
  live(cutAfterBytes: number): Promise<void>;
}

/** Says of each channel where it stands, as a client that keeps positions does. */
function socketReader(
  server: RunningServer,
  channels: readonly string[],
  keep: (client: WebSocketClient) => void,
): Reader {
  const ledger = new Ledger();
  const positions = new Map<string, { epoch: string; offset: number }>();
  const live = async (cutAfterBytes: number): Promise<void> => {
    const onText = (text: string): void => {
      const frame = JSON.parse(text) as Frame;
      ledger.take(frame);
      const { type, channel = '', epoch, offset } = frame;
      if (type === 'subscribed' && !positions.has(channel)) positions.set(channel, { epoch: epoch!, offset: offset! });
      if (type === 'subscribed' && frame.recovered === false) ledger.faults.push(text);
      if (type === 'message') positions.set(channel, { epoch: positions.get(channel)!.epoch, offset: offset! });
    };
    const socket = await WebSocketClient.open(server.url, { onText, cutAfterBytes });
    keep(socket);
    for (const channel of channels) socket.send({ type: 'subscribe', channel, since: positions.get(channel) });
    await socket.closed;
  };
  return { ledger, cuts: 0, fruitful: 0, live };
}

/** Knows nothing but the URL and the last event's id, as browsers do. */
function eventReader(server: RunningServer, channels: readonly string[], keep: (client: EventClient) => void): Reader {
  const ledger = new Ledger();
  let lastEventId: string | undefined;
  const live = async (cutAfterBytes: number): Promise<void> => {
    const stream = await EventClient.open(server.url, {
      query: `channels=${channels.join(',')}`,
      onEvent: (event) => {
        lastEventId = event.lastEventId;
        ledger.take(event.frame);
      },
      cutAfterBytes,
      ...(lastEventId === undefined ? {} : { lastEventId }),
    });
    keep(stream);
    await stream.closed;
  };
  return { ledger, cuts: 0, fruitful: 0, live };
}

async function liveUntilCut(reader: Reader, cutAfterBytes: number): Promise<void> {
  const before = reader.ledger.total;
  try {
    await reader.live(cutAfterBytes);
  } catch (error) {
    // A cut in the handshake is a cut as well; an answer that refuses is none.
    if (error instanceof Refused || !(error instanceof Error) || !error.message.includes('closed')) throw error;
  }
  reader.cuts++;
  if (reader.ledger.total > before) reader.fruitful++;
}

describeWire('Cuts', (wire) => {
  test(`${cutsEach} cuts each under load: every message once, in order (SEED=${seed})`, async () => {
    const random = randomFrom(seed);
    const server = await wire.server();
    const channels = [wire.channel(), wire.channel(), wire.channel()];
    const last: { cut(): Promise<void> }[] = [];
    const keep = (client: { cut(): Promise<void> }): void => void last.push(client);
    const readers = [socketReader(server, channels, keep), eventReader(server, channels, keep)];
    // The first connection fixes where a reader starts, so it stands before anything is published.
    const starting = readers.map((reader) => reader.live(Infinity));
    await until(() => last.length === 2, 'both readers are connected');
    const publisher = await wire.subscriber(server);
    const counts = new Map(channels.map((channel) => [channel, 0]));
    const publishSome = async (): Promise<void> => {
      const some = 1 + Math.floor(random() * 30);
      for (let index = 0; index < some; index++) {
        const channel = channels[Math.floor(random() * channels.length)]!;
        const data = counts.get(channel)! + 1;
        counts.set(channel, data);
        const length = random() < 0.02 ? 8_000 : Math.floor(random() * 200);
        publisher.send({ type: 'publish', channel, data: { number: data, text: 'é'.repeat(length) } });
      }
      await publisher.settle();
    };
    await publishSome();
    await until(() => readers.every(({ ledger }) => ledger.has(counts)), 'the first messages');
    for (const client of last.splice(0)) await client.cut();
    await Promise.all(starting);

    const lives = readers.map(async (reader) => {
      while (reader.cuts < cutsEach) {
        // Clients wait before they reconnect, so each life begins with something to recover, and a third of them end
        // before that is done.
        await Bun.sleep(Math.floor(random() * 40));
        const early = random() < 0.33;
        await liveUntilCut(reader, 1 + Math.floor(early ? random() * 5_000 : random() * 60_000));
      }
    });
    const total = (): number => [...counts.values()].reduce((sum, count) => sum + count);
    while (readers.some(({ cuts }) => cuts < cutsEach) || total() < 1_500) {
      await publishSome();
      await Bun.sleep(Math.floor(random() * 10));
    }
    await Promise.all(lives);
    await publishSome();

    const final = readers.map((reader) => reader.live(Infinity));
    const missing = (): string => `all messages; faults: ${readers.flatMap(({ ledger }) => ledger.faults).join(' ')}`;
    await until(() => readers.every(({ ledger }) => ledger.has(counts)), missing, 10_000);
    for (const client of last) await client.cut();
    await Promise.all(final);
    for (const { ledger, fruitful } of readers) {
      // Cuts that come before anything else would prove little.
      expect(fruitful).toBeGreaterThan(cutsEach / 4);
      expect(ledger.faults).toEqual([]);
      for (const [channel, count] of counts) {
        const numbers = ledger.received.get(channel)!.map((data) => (data as { number: number }).number);
        expect(numbers).toEqual(Array.from({ length: count }, (_, index) => index + 1));
      }
    }
  }, 60_000);
});
