// A read of the log left a subscription behind, at the node and at NATS, for each piece of it; and found the beginning of
// the piece by a row of questions, each waiting for the answer to the one before. Here NATS itself counts both.

import { connect, errors } from '@nats-io/transport-node';
import { expect, test } from 'bun:test';
import { Rules } from '../../src/rules/rules.ts';
import { ask } from '../../src/sync/nats/answers.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { NatsReads } from '../../src/sync/nats/reads.ts';
import { parseNatsUrl } from '../../src/nats/target.ts';
import { systemClock } from '../../src/time/clock.ts';
import { answered } from '../support/answered.ts';
import { deaf, natsAdapter } from '../support/nats-harness.ts';
import { startNats } from '../support/nats.ts';
import { freePort } from '../support/postgres.ts';
import { patient } from '../support/patience.ts';
import { randomFrom, seed } from '../support/random.ts';

patient();

const published = 4_000;
const channels = Array.from({ length: 20 }, (_, index) => `c${index}`);

test(`a read costs NATS few questions, and leaves nothing behind (SEED=${seed})`, async () => {
  const random = randomFrom(seed);
  const monitor = await freePort();
  const nats = await startNats(['-m', String(monitor)]);
  const names = new NatsNames('reads');
  const adapter = natsAdapter(parseNatsUrl(nats.url), names);
  const spy = await connect({ servers: nats.url });
  try {
    await adapter.start(deaf);
    const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;
    const heads = new Map<string, number>();
    for (let left = published; left > 0; left -= 100) {
      const some = Array.from({ length: 100 }, () => channels[Math.floor(random() * channels.length)]!);
      for (const channel of some) heads.set(channel, (heads.get(channel) ?? 0) + 1);
      await Promise.all(
        some.map((channel) => {
          const outgoing = { channel, rule, data: '1', at: Date.now(), key: crypto.randomUUID() };
          return answered(() => adapter.publish(outgoing));
        }),
      );
    }
    let asked = 0;
    spy.subscribe(`$JS.API.DIRECT.GET.${names.logStream}.>`, { callback: () => void asked++ });
    spy.subscribe(`$JS.API.DIRECT.GET.${names.logStream}`, { callback: () => void asked++ });
    await spy.flush();
    const subscriptions = async (): Promise<number> => {
      const answer = (await (await fetch(`http://127.0.0.1:${monitor}/varz`)).json()) as { subscriptions: number };
      return answer.subscriptions;
    };
    const before = await subscriptions();
    const { epoch } = adapter.client;
    let reads = 0;
    for (const channel of channels) {
      const head = heads.get(channel) ?? 0;
      for (const offset of [0, 1, Math.floor(head / 3), head - 40, head - 1]) {
        const query = { since: { epoch, offset }, limit: 1_000 };
        const page = await answered(() => adapter.history(channel, rule, query));
        expect(page.complete).toBe(true);
        expect(page.publications.map((each) => each.offset)).toEqual(
          Array.from({ length: head - offset }, (_, index) => offset + 1 + index),
        );
        reads++;
      }
      const newest = await answered(() => adapter.history(channel, rule, { limit: 10 }));
      expect(newest.publications.map((each) => each.offset)).toEqual(
        Array.from({ length: 10 }, (_, index) => head - 9 + index),
      );
      reads++;
    }
    await spy.flush();
    expect(asked).toBeGreaterThan(0);
    // The newest, the oldest, a piece from the estimate on, and sometimes a second one.
    expect(asked / reads).toBeLessThan(4);
    expect(await subscriptions()).toBe(before);
  } finally {
    await Promise.all([adapter.close(), spy.close()]);
    await nats.close();
  }
});

test('a page ends before a message that is gone, and what follows it comes after a gap', async () => {
  const nats = await startNats();
  const names = new NatsNames('gone');
  const adapter = natsAdapter(parseNatsUrl(nats.url), names);
  try {
    await adapter.start(deaf);
    const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;
    const publish = async (offset: number): Promise<void> => {
      const outgoing = { channel: 'a', rule, data: String(offset), at: Date.now(), key: `key ${offset}` };
      await answered(() => adapter.publish(outgoing));
    };
    for (let offset = 1; offset <= 6; offset++) await publish(offset);
    const { client } = adapter;
    const read = async (offset: number): Promise<unknown[]> => {
      const query = { since: { epoch: client.epoch, offset }, limit: 100 };
      const { publications, complete, gap } = await answered(() => adapter.history('a', rule, query));
      return [publications.map((each) => each.offset), complete, gap];
    };
    await client.readManager.streams.deleteMessage(names.logStream, 4);
    expect(await read(0)).toEqual([[1, 2, 3], false, undefined]);
    expect(await read(3)).toEqual([[5, 6], false, 'trimmed']);

    // Its key is free again: nothing in the log says that it was used.
    const again = { channel: 'a', rule, data: '"4 again"', at: Date.now(), key: 'key 4' };
    expect(await answered(() => adapter.publish(again))).toEqual({ epoch: client.epoch, offset: 7 });

    // What is published while a page is read is not of it.
    const reads = new NatsReads({ client, names, clock: systemClock });
    const newest = await reads.newest('a');
    await publish(8);
    const piece = await reads.piece('a', 5, { count: 10, bytesMax: 1_000, newest: newest! });
    expect(piece.map(({ offset }) => offset)).toEqual([5, 6, 7]);
    reads.close();
  } finally {
    await adapter.close();
    await nats.close();
  }
});

test('who waits for an answer learns at once that the connection is lost', async () => {
  const nats = await startNats();
  const [silent, asks] = [await connect({ servers: nats.url }), await connect({ servers: nats.url })];
  try {
    const heard = Promise.withResolvers<void>();
    silent.subscribe('question', { callback: () => heard.resolve() });
    await silent.flush();
    const asking = ask(asks, { subject: 'question', text: '', timeoutMs: 20_000 }, () => false);
    const failure = asking.catch((error: unknown) => error);
    await heard.promise;
    await asks.close();
    expect(await failure).toBeInstanceOf(errors.ClosedConnectionError);
  } finally {
    await Promise.all([silent.close(), asks.close()]);
    await nats.close();
  }
});

test('what follows a publication whose data are gone, or one that is gone after many, comes after a gap', async () => {
  const nats = await startNats();
  const names = new NatsNames('holes');
  const adapter = natsAdapter(parseNatsUrl(nats.url), names);
  try {
    await adapter.start(deaf);
    const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;
    const publish = async (channel: string, data: string): Promise<void> => {
      const outgoing = { channel, rule, data, at: Date.now(), key: crypto.randomUUID() };
      await answered(() => adapter.publish(outgoing));
    };
    const { client } = adapter;
    const { streams } = client.readManager;
    const read = async (channel: string, offset: number): Promise<unknown[]> => {
      const query = { since: { epoch: client.epoch, offset }, limit: 1_000, bytesMax: 8 << 20 };
      const { publications, complete, gap } = await answered(() => adapter.history(channel, rule, query));
      return [publications[0]?.offset, publications.length, complete, gap];
    };
    await publish('large', '1');
    await publish('large', JSON.stringify('x'.repeat(100_000)));
    await publish('large', '3');
    expect(await read('large', 0)).toEqual([1, 3, true, undefined]);
    await streams.purge(names.dataStream);
    expect(await read('large', 0)).toEqual([3, 1, false, 'trimmed']);
    expect(await read('large', 2)).toEqual([3, 1, true, undefined]);

    // More than one piece of the log, and the hole between two of them.
    for (let count = 0; count < 600; count += 100) {
      await Promise.all(Array.from({ length: 100 }, () => publish('many', '1')));
    }
    await streams.deleteMessage(names.logStream, 3 + 513);
    expect(await read('many', 0)).toEqual([1, 512, false, undefined]);
    expect(await read('many', 512)).toEqual([514, 87, false, 'trimmed']);
  } finally {
    await adapter.close();
    await nats.close();
  }
});
