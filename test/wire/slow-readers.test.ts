// A slow reader hurts only itself: it is cut, comes back by position or is told of a gap, and what waited for it is
// freed; a reader beside it gets everything.

import { expect, test } from 'bun:test';
import type { Frame, ReceivedEvent } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { until, wait } from '../support/tcp-client.ts';
import { describeWire, sample, samples, type Wire } from './wire.ts';
import { patient } from '../support/patience.ts';

patient();

const mebibyte = 1_048_576;
const bytesEach = 50_000;
const count = 1_000;

async function residentBytes(server: RunningServer): Promise<number> {
  return sample(server, 'process_resident_memory_bytes');
}

/** 50 MB into the channel, at the pace of a healthy reader. */
async function publishLoad(wire: Wire, server: RunningServer, channel: string): Promise<void> {
  const publisher = await wire.subscriber(server);
  const data = 'x'.repeat(bytesEach);
  for (let sent = 0; sent < count; sent += 20) {
    for (let index = 0; index < 20; index++) publisher.send({ type: 'publish', channel, data, echo: false });
    await publisher.settle();
  }
  await publisher.close();
}

describeWire('Slow readers', (wire) => {
  test('a WebSocket and a stream that stop reading are cut while 50 MB pass; others get all of it', async () => {
    const server = await wire.start({
      MAX_BUFFERED_BYTES: String(2 * mebibyte),
      HISTORY_BYTES_MAX: String(4 * mebibyte),
    });
    const channel = wire.channel();
    const offsets = { socket: [] as number[], stream: [] as number[] };
    const faults: string[] = [];
    const take = (list: number[], frame: Frame): void => {
      if (frame.type === 'message') list.push(frame.offset!);
      else if (frame.type !== 'welcome' && frame.type !== 'subscribed') faults.push(frame.type);
    };
    const healthy = await wire.socket(server, {
      query: `channels=${channel}`,
      onText: (text) => take(offsets.socket, JSON.parse(text) as Frame),
    });
    await wire.stream(server, { query: `channels=${channel}`, onEvent: ({ frame }) => take(offsets.stream, frame) });
    await until(async () => (await sample(server, 'sobranie_subscriptions_active')) === 2, 'both are subscribed');
    const expectAll = async (upTo: number): Promise<void> => {
      const done = (): boolean => offsets.socket.length >= upTo && offsets.stream.length >= upTo;
      await until(done, () => `all of it; got ${offsets.socket.length} and ${offsets.stream.length}`, 20_000);
    };

    // The first load fills what is kept anyway, so that the second shows what slow readers cost.
    await publishLoad(wire, server, channel);
    await expectAll(count);
    const before = await residentBytes(server);

    const slowSocket = await wire.subscriber(server, channel);
    const slowStream = await wire.stream(server, { query: `channels=${channel}` });
    const { lastEventId } = await slowStream.next('welcome');
    slowSocket.pause();
    slowStream.pause();
    await publishLoad(wire, server, channel);
    await expectAll(2 * count);
    const disconnected = async (transport: string): Promise<number> =>
      (await samples(server)).get(`sobranie_disconnects_total{transport="${transport}",code="1006"}`) ?? 0;
    await until(async () => (await disconnected('websocket')) === 1, 'the slow socket was cut');
    await until(async () => (await disconnected('sse')) === 1, 'the slow stream was cut');
    slowSocket.resume();
    slowStream.resume();
    expect((await wait(slowSocket.closed, 5_000, 'the slow socket’s end')).code).toBe(1006);
    expect(await wait(slowStream.closed, 5_000, 'the slow stream’s end')).toBe(false);

    const numbers = Array.from({ length: 2 * count }, (_, index) => index + 1);
    expect(offsets).toEqual({ socket: numbers, stream: numbers });
    expect(faults).toEqual([]);
    expect(await sample(server, 'sobranie_subscriptions_active')).toBe(2);
    const growth = async (): Promise<number> => (await residentBytes(server)) - before;
    // It is free for the server at once, and back when the collector has run, which an idle process does in some 10 s.
    await until(
      async () => (await growth()) < 24 * mebibyte,
      () => 'the memory is back',
      90_000,
    );

    // They come back from where they were: everything since then follows, but for what a gap has told.
    let position = count;
    const onEvent = ({ type, frame }: ReceivedEvent): void => {
      if (type === 'gap') position = frame.offset!;
      else if (type === 'message' && frame.offset !== ++position) faults.push(`${frame.offset} came as ${position}`);
    };
    await wire.stream(server, { query: `channels=${channel}`, lastEventId, onEvent });
    await until(() => position >= 2 * count, 'the stream that came back has caught up', 20_000);
    expect(faults).toEqual([]);
    await healthy.cut();
  }, 180_000);
});
