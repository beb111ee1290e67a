// Reads of the log have a connection to NATS of their own: over the same one a publish waited for all reads that a crowd had
// asked for before. When that connection alone is lost, the node is not ready until it is back, and then reads again.

import { expect, test } from 'bun:test';
import type { Position } from '../../src/protocol/position.ts';
import { Rules } from '../../src/rules/rules.ts';
import { parseNatsUrl } from '../../src/nats/target.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { answered } from '../support/answered.ts';
import { silentObserver } from '../support/doubles.ts';
import { natsAdapter } from '../support/nats-harness.ts';
import { startNats } from '../support/nats.ts';
import { patient } from '../support/patience.ts';
import { until } from '../support/tcp-client.ts';

patient();

const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;

test('the connection that reads is lost alone: the node is away, comes back, and tells where its channels stand', async () => {
  const nats = await startNats();
  const ups: boolean[] = [];
  const observer = { ...silentObserver, up: (_name: string, up: boolean) => void ups.push(up) };
  const adapter = natsAdapter(parseNatsUrl(nats.url), new NatsNames('reading'), { observer });
  const heads: Position[] = [];
  try {
    await adapter.start({
      publication: () => undefined,
      head: (_channel, head) => void heads.push(head),
      settled: () => undefined,
    });
    await answered(() => adapter.subscribe('a', rule));
    await answered(() => adapter.publish({ channel: 'a', rule, data: '1', at: Date.now(), key: 'one' }));
    const { client } = adapter;
    expect(client.reading).not.toBe(client.connection);
    ups.length = 0;
    heads.length = 0;
    await client.reading.reconnect();
    await until(() => ups.includes(false) && adapter.health().up, 'it is away, and comes back', 20_000);
    await until(() => heads.some(({ offset }) => offset === 1), 'the head is told again', 20_000);
    const { publications } = await answered(() => adapter.history('a', rule, { limit: 10 }));
    expect(publications.map(({ data }) => data)).toEqual(['1']);
  } finally {
    await adapter.close();
    await nats.close();
  }
});
