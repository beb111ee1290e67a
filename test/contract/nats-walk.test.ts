// A crowd's messages come by a consumer of the stream: in their order, up to where they are wanted, and nothing of it is left on
// the server. A message that was lost on its way would be a hole for whoever reads what was brought.

import { expect, test } from 'bun:test';
import { parseNatsUrl } from '../../src/nats/target.ts';
import { Rules } from '../../src/rules/rules.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import type { Swept } from '../../src/sync/nats/sweep.ts';
import { numbersOf, walk } from '../../src/sync/nats/walk.ts';
import { systemClock } from '../../src/time/clock.ts';
import { answered } from '../support/answered.ts';
import { deaf, natsAdapter } from '../support/nats-harness.ts';
import { startNats } from '../support/nats.ts';
import { patient } from '../support/patience.ts';
import { until } from '../support/tcp-client.ts';

patient();

const channels = ['walk:a', 'walk:b', 'walk:c.d'];
/** More than one pull brings. */
const count = 2_400;

test('all messages from a number on come once and in order, also past those that are gone, until enough is taken', async () => {
  const nats = await startNats();
  const names = new NatsNames('walk');
  const adapter = natsAdapter(parseNatsUrl(nats.url), names, { clock: systemClock });
  try {
    await adapter.start(deaf);
    const { client } = adapter;
    const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;
    for (let from = 0; from < count; from += 200) {
      const numbers = Array.from({ length: 200 }, (_, index) => from + index);
      const publish = (number: number) => {
        const channel = channels[number % channels.length]!;
        return adapter.publish({ channel, rule, data: String(number), at: Date.now(), key: `key ${number}` });
      };
      await Promise.all(numbers.map((number) => answered(() => publish(number))));
    }
    const { streams, consumers } = client.readManager;
    const gone = [700, 701, 1_500];
    for (const seq of gone) await streams.deleteMessage(names.logStream, seq);
    const take = async (from: number, most: number): Promise<Swept[]> => {
      const taken: Swept[] = [];
      await walk(client, names.logStream, from, (swept) => taken.push(swept) < most);
      return taken;
    };

    const all = await take(101, Infinity);
    const wanted = Array.from({ length: count - 100 }, (_, index) => index + 101).filter((seq) => !gone.includes(seq));
    expect(all.map(({ entry }) => entry.seq)).toEqual(wanted);
    expect(new Set(all.map(({ subject }) => subject))).toEqual(new Set(channels.map((channel) => names.log(channel))));
    for (const { entry } of all) expect(entry.offset).toBeGreaterThan(0);
    // Exactly one pull, and one more than that.
    for (const most of [1, 1_000, 1_001]) expect(await take(1, most)).toHaveLength(most);
    expect(await take(count + 1, Infinity)).toEqual([]);

    const left = async (): Promise<number> => (await consumers.list(names.logStream).next()).length;
    await until(async () => (await left()) === 0, 'no consumer is left');
  } finally {
    await adapter.close();
    await nats.close();
  }
});

test('a message says its number in the stream and among those that were brought, with a domain and without', () => {
  const without = '$JS.ACK.log.consumer.1.4711.12.1764400000000000000.88';
  const domain = '$JS.ACK.hub.acchash.log.consumer.1.4711.12.1764400000000000000.88';
  for (const reply of [without, domain, `${domain}.random`]) {
    expect(numbersOf({ reply })).toEqual({ seq: 4_711, place: 12 });
  }
});
