// To find a channel's next message NATS looks at all that lie before it, of other channels. A crowd on a thousand channels
// kept it busy for five seconds of its processor, and was refused meanwhile. The stretch that a crowd lacks is read once.

import { connect } from '@nats-io/transport-node';
import { expect, test } from 'bun:test';
import { Rules } from '../../src/rules/rules.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { parseNatsUrl } from '../../src/nats/target.ts';
import { systemClock } from '../../src/time/clock.ts';
import { answered } from '../support/answered.ts';
import { deaf, natsAdapter } from '../support/nats-harness.ts';
import { startNats } from '../support/nats.ts';
import { patient } from '../support/patience.ts';

patient();

const channels = Array.from({ length: 300 }, (_, index) => `crowd:${index}`);
const each = 12;

test('what a crowd on many channels lacks is read in one walk, and each gets its own', async () => {
  const nats = await startNats();
  const names = new NatsNames('crowd');
  // A second is that of the crowd's clock.
  const clock = { ...systemClock, monotonic: () => 0, now: Date.now };
  const adapter = natsAdapter(parseNatsUrl(nats.url), names, { clock });
  const spy = await connect({ servers: nats.url });
  try {
    await adapter.start(deaf);
    const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;
    const publish = async (channel: string, data: string): Promise<void> => {
      const outgoing = { channel, rule, data, at: Date.now(), key: crypto.randomUUID() };
      await answered(() => adapter.publish(outgoing));
    };
    for (let round = 1; round <= each; round++) {
      for (let from = 0; from < channels.length; from += 100) {
        const some = channels.slice(from, from + 100);
        await Promise.all(some.map((channel) => publish(channel, `"${channel} ${round}"`)));
      }
    }
    let [walks, own, questions] = [0, 0, 0];
    // One about a channel's newest alone has the channel in its subject.
    spy.subscribe(`$JS.API.DIRECT.GET.${names.logStream}.>`, { callback: () => void questions++ });
    spy.subscribe(`$JS.API.DIRECT.GET.${names.logStream}`, {
      callback: (_error, message) => {
        questions++;
        const asked = message.json<{ batch?: number; next_by_subj?: string }>();
        if (asked.batch !== undefined && asked.next_by_subj !== undefined) own++;
      },
    });
    spy.subscribe(`$JS.API.CONSUMER.MSG.NEXT.${names.logStream}.*`, { callback: () => void walks++ });
    await spy.flush();
    const { epoch } = adapter.client;
    const read = async (channel: string): Promise<void> => {
      expect(await answered(() => adapter.subscribe(channel, rule))).toEqual({ epoch, offset: each });
      const query = { since: { epoch, offset: 2 }, limit: 1_000 };
      const page = await answered(() => adapter.history(channel, rule, query));
      expect(page.complete).toBe(true);
      expect(page.publications.map(({ offset, data }) => [offset, data])).toEqual(
        Array.from({ length: each - 2 }, (_, index) => [index + 3, `"${channel} ${index + 3}"`]),
      );
    };
    const left = [...channels];
    const reader = async (): Promise<void> => {
      for (let channel = left.pop(); channel !== undefined; channel = left.pop()) await read(channel);
    };
    await Promise.all(Array.from({ length: 32 }, reader));
    await spy.flush();
    expect(walks).toBeGreaterThan(0);
    // Those of before it was a crowd, and those that begin just before the stretch.
    expect(own).toBeLessThan(250);
    // Of each channel the newest is asked for twice, when it is opened and when it is read.
    expect(questions).toBeLessThan(channels.length);
    // What came after the walk is not missing.
    const [channel = ''] = channels;
    await publish(channel, '"after"');
    const page = await answered(() =>
      adapter.history(channel, rule, { since: { epoch, offset: each - 1 }, limit: 10 }),
    );
    expect(page.publications.map(({ data }) => data)).toEqual([`"${channel} ${each}"`, '"after"']);
  } finally {
    await Promise.all([adapter.close(), spy.close()]);
    await nats.close();
  }
});
