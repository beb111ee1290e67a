// The server that takes a subscription tells the others of its cluster a moment later. What another node published in that
// moment to an ephemeral channel was dropped, though the subscriber had been told that it hears everything.

import { expect, test } from 'bun:test';
import { Rules } from '../../src/rules/rules.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { parseNatsUrl } from '../../src/nats/target.ts';
import { natsAdapter } from '../support/nats-harness.ts';
import { startNats, startNatsCluster } from '../support/nats.ts';
import { startProxy } from '../support/proxy.ts';
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

test('with one server too a subscription is confirmed once the server has it, however slow the way is', async () => {
  const nats = await startNats();
  const proxy = await startProxy({ port: nats.port });
  const names = new NatsNames('interest');
  const [slow, quick] = [proxy.through(nats.url), nats.url].map((url, index) =>
    natsAdapter(parseNatsUrl(url), names, { nodeId: `node${index}` }),
  );
  try {
    const heard: string[] = [];
    const events = { head: () => undefined, settled: () => undefined };
    await slow!.start({ ...events, publication: ({ data }) => void heard.push(data) });
    await quick!.start({ ...events, publication: () => undefined });
    proxy.delayMs = 100;
    await slow!.subscribe('typing:a', rule);
    await quick!.publish({ channel: 'typing:a', rule, data: '1', at: Date.now() });
    await until(() => heard.length > 0, 'it is heard', 5_000);
  } finally {
    await Promise.all([slow!.close(), quick!.close()]);
    await proxy.close();
    await nats.close();
  }
});
