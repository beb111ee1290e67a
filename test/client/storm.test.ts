// Ten thousand clients lose their server in one moment. Those that come back together would bring it down again: no
// second may see more than 2.5 times the average of reconnects, and nobody may give up.
//
// It holds for two ways to count: each attempt, whether it is let in or not, from the loss until all are back; and those
// that are let in, from the server's return until all are back.

import { expect, test } from 'bun:test';
import { Sobranie } from '@sobranie/client';
import { seed } from '../support/random.ts';
import { patient } from '../support/patience.ts';
import { FakeServer, World } from './simulation.ts';

patient();

const count = 10_000;

function worstRatio(times: readonly number[], from: number, until: number): number {
  const seconds = new Map<number, number>();
  let total = 0;
  for (const time of times) {
    if (time < from || time > until) continue;
    const second = Math.floor((time - from) / 1_000);
    seconds.set(second, (seconds.get(second) ?? 0) + 1);
    total++;
  }
  return Math.max(...seconds.values()) / (total / Math.ceil((until - from + 1) / 1_000));
}

const outagesMs = process.env['LONG'] === '1' ? [0, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000] : [0, 8_000];

test.each(outagesMs)(`a server that is away for %d ms, seed ${seed}`, async (outageMs) => {
  const world = new World(seed);
  const server = new FakeServer();
  server.onCommand = (socket, { type, id, channel }) => {
    if (type === 'subscribe') socket.say({ type: 'subscribed', id, channel, recoverable: true, epoch: 'e', offset: 0 });
    if (type === 'ping') socket.say({ type: 'pong' });
  };
  const platform = world.platform(server);
  const clients = Array.from({ length: count }, () => {
    const client = new Sobranie('http://server', { platform });
    client.channel('posts').subscribe(() => undefined);
    return client;
  });
  await world.pass(15_000);
  expect(server.sockets.size).toBe(count);

  const lostAt = world.now;
  server.attempts.length = server.welcomes.length = 0;
  server.cutAll();
  if (outageMs > 0) await world.pass(outageMs);
  server.isUp = true;
  await world.pass(60_000);

  // Nobody gave up, and each came back once.
  expect(server.sockets.size).toBe(count);
  expect(server.welcomes).toHaveLength(count);
  expect(clients.every(({ status }) => status.state === 'connected')).toBe(true);
  const until = Math.max(...server.welcomes);
  expect(worstRatio(server.attempts, lostAt, until)).toBeLessThan(2.5);
  expect(worstRatio(server.welcomes, lostAt + outageMs, until)).toBeLessThan(2.5);
  for (const client of clients) client.close();
});
