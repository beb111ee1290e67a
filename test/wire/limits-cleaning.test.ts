// Cleaning is total: thousands of connections come and go in disorder, over both transports, most of them refused, and
// nothing is left of them in what the limits keep. The server runs in this process, so that its maps can be looked at.

import { afterAll, expect, test } from 'bun:test';
import { startNode, type Node } from '../../src/app/compose.ts';
import { engines } from '../../src/app/engines.ts';
import { createLogger } from '../../src/app/logger.ts';
import { readSettings } from '../../src/settings/settings.ts';
import { NodeLimits } from '../../src/limits/node-limits.ts';
import { EventClient, Refused, WebSocketClient } from '../support/clients.ts';
import { createDatabase } from '../support/postgres.ts';
import { pick, randomFrom, seed } from '../support/random.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';

let node: Node | undefined;
afterAll(async () => {
  await node?.shutdown.signal('SIGTERM');
}, 30_000);

test(`4,000 connections in disorder leave nothing behind (SEED=${seed})`, async () => {
  const { url } = await createDatabase({ migrated: true });
  const environment = {
    DATABASE_URL: url,
    SYNC: 'memory',
    HOST: '127.0.0.1',
    PORT: '0',
    JWT_SECRET: secret,
    TRUSTED_PROXIES: 'loopback',
    MAX_CONNECTIONS_PER_USER: '30',
    MAX_CONNECTIONS_PER_ADDRESS: '40',
    CONNECTS_PER_SECOND_PER_ADDRESS: '60',
    AUTH_FAILURES_PER_MINUTE_PER_ADDRESS: '20',
    RATE_LIMIT_PER_MINUTE: '50',
    SHUTDOWN_TIMEOUT: '0',
  };
  const settings = readSettings(environment, engines);
  const server = (node = await startNode(settings, createLogger({ level: 'silent', format: 'json', node: 'limits' })));
  const { limits } = server;
  if (!(limits instanceof NodeLimits)) throw new Error('the node has other limits');

  const random = randomFrom(seed);
  const channels = { '*': ['subscribe', 'publish'] };
  const good = await Promise.all(['ann', 'bob', 'cat', 'dan'].map((sub) => tokenOf({ sub, channels })));
  const tokens = [...good, ...good, await tokenOf({ sub: 'eve' }, undefined, 'not the secret, but long enough too')];
  const counts = { welcome: 0, refused: 0 };
  const visit = async (): Promise<void> => {
    const headers = { 'X-Forwarded-For': `198.51.100.${Math.floor(random() * 12)}` };
    const options = { headers, query: `token=${pick(tokens, random)}&channels=a`, timeoutMs: 20_000 };
    try {
      const client = await (random() < 0.5 ? WebSocketClient : EventClient).open(server.url, options);
      const isWelcome = await client.next('welcome', 20_000).then(
        () => true,
        () => false,
      );
      counts[isWelcome ? 'welcome' : 'refused']++;
      if (isWelcome && client instanceof WebSocketClient) client.send({ type: 'ping' });
      await Bun.sleep(random() * 20);
      await client.cut();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      counts.refused++;
    }
  };
  const visits = Array.from({ length: 4_000 }).values();
  const visitor = async (): Promise<void> => {
    for (const _each of visits) await visit();
  };
  await Promise.all(Array.from({ length: 250 }, visitor));
  expect(counts.welcome).toBeGreaterThan(200);
  expect(counts.refused).toBeGreaterThan(200);
  await until(() => server.sessions.size === 0, 'all have left', 10_000);
  // Allowances last until their windows end, and are as many as there were users and addresses: four, and twelve twice.
  limits.sweep();
  expect(limits.size).toBeLessThanOrEqual(4 + 12 + 12);
  expect(limits.openConnections).toBe(0);
}, 60_000);
