// The server that takes a subscription tells the others of its cluster a moment later. What another node published in that
// moment to an ephemeral channel was dropped, though the subscriber had been told that it hears everything.

import { expect, test } from 'bun:test';
import { Rules } from '../../src/rules/rules.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { parseNatsUrl } from '../../src/nats/target.ts';
import { natsAdapter } from '../support/nats-harness.ts';
import { startNatsCluster } from '../support/nats.ts';
import { patient } from '../support/patience.ts';
import { until } from '../support/tcp-client.ts';

patient();

const rule = new Rules({ rules: [{ channels: '*', recoverable: false }] }).all[0]!;

test('what any node publishes once a subscription is confirmed is heard, whichever server it is connected to', async () => {
  const cluster = await startNatsCluster();
  const heard = new Set<string>();
  const adapters = cluster.servers.map(({ url }, index) =>
    natsAdapter(parseNatsUrl(url), new NatsNames('interest'), { nodeId: `node${index}` }),
  );
  try {
    await Promise.all(
      adapters.map((adapter, node) =>
        adapter.start({
          publication: ({ channel, data }) => void heard.add(`${node} ${channel} ${data}`),
          head: () => undefined,
          settled: () => undefined,
        }),
      ),
    );
    const expected: string[] = [];
    const publish = async (channel: string, from: number): Promise<void> => {
      await adapters[from]!.publish({ channel, rule, data: String(from), at: Date.now() });
    };
    for (let round = 0; round < 100; round++) {
      const to = round % 3;
      const channel = `typing:${round}`;
      await adapters[to]!.subscribe(channel, rule);
      const others = [0, 1, 2].filter((node) => node !== to);
      await Promise.all(others.map((from) => publish(channel, from)));
      expected.push(...others.map((from) => `${to} ${channel} ${from}`));
    }
    await until(() => expected.every((each) => heard.has(each)), 'all are heard').catch(() => undefined);
    expect(expected.filter((each) => !heard.has(each))).toEqual([]);

    // Who is gone is waited for no longer than once.
    await adapters[2]!.close();
    await adapters[0]!.subscribe('typing:after', rule);
    await publish('typing:after', 1);
    await until(() => heard.has('0 typing:after 1'), 'the others go on');
  } finally {
    await Promise.all(adapters.map((adapter) => adapter.close()));
    await cluster.close();
  }
});
