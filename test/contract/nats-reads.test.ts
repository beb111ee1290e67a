// A read of the log left a subscription behind, at the node and at NATS, for each piece of it; and found the beginning of
// the piece by a row of questions, each waiting for the answer to the one before. Here NATS itself counts both.

import { connect } from '@nats-io/transport-node';
import { expect, test } from 'bun:test';
import { Rules } from '../../src/rules/rules.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { parseNatsUrl } from '../../src/nats/target.ts';
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
