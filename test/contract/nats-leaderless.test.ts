// A stream whose leader a cluster has just chosen is not known everywhere yet: for some milliseconds nobody answers to
// its subjects, and publishers got `unavailable` at once. Here the stream is gone meanwhile, which looks the same.

import { connect } from '@nats-io/transport-node';
import { jetstreamManager } from '@nats-io/jetstream';
import { expect, test } from 'bun:test';
import { Rules } from '../../src/rules/rules.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { parseNatsUrl } from '../../src/nats/target.ts';
import { deaf, natsAdapter } from '../support/nats-harness.ts';
import { startNats } from '../support/nats.ts';

test('a publisher waits for the leader of the stream', async () => {
  const nats = await startNats();
  const names = new NatsNames('leaderless');
  const adapter = natsAdapter(parseNatsUrl(nats.url), names);
  const connection = await connect({ servers: nats.url });
  try {
    await adapter.start(deaf);
    const { streams } = await jetstreamManager(connection);
    await streams.delete(names.logStream);
    await streams.delete(names.dataStream);
    const rule = new Rules({ rules: [{ channels: '*' }] }).all[0]!;
    const small = adapter.publish({ channel: 'news', rule, data: '1', at: Date.now() });
    const large = adapter.publish({
      channel: 'large',
      rule,
      data: JSON.stringify('x'.repeat(200_000)),
      at: Date.now(),
    });
    // It makes the streams again.
    await adapter.probe(5_000);
    expect(await small).toMatchObject({ offset: 1 });
    expect(await large).toMatchObject({ offset: 1 });
  } finally {
    await Promise.all([adapter.close(), connection.close()]);
    await nats.close();
  }
});
