// A nats-server that stands still under two nodes.

import { test } from 'bun:test';
import { startNats } from '../support/nats.ts';
import { patient } from '../support/patience.ts';
import { RedisStage } from '../support/redis-stage.ts';
import { standsStill } from './silent-broker.ts';

patient();

test('it stands still with publications in flight: each is answered in time, and nothing is started again', async () => {
  const nats = await startNats();
  const environment = { SYNC: 'nats', NATS_URL: nats.url, REDIS_URL: undefined };
  const stage = await RedisStage.on(nats, { environment });
  await standsStill(stage, false);
  await stage.close();
}, 300_000);
