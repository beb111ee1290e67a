// An engine that this server does not have is registered by its row alone: it keeps the contract, and a real server runs
// on it, with clients over both transports, table changes, tickets and limits, which no other part knows how to share.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { startNode, type Node } from '../../src/app/compose.ts';
import { engines as ownEngines } from '../../src/app/engines.ts';
import { createLogger } from '../../src/app/logger.ts';
import { connect, type Database } from '../../src/database/connect.ts';
import { readSettings, SettingsError, type Environment } from '../../src/settings/settings.ts';
import type { EngineParts } from '../../src/sync/engine.ts';
import { systemClock, type Clock } from '../../src/time/clock.ts';
import { EventClient, Refused, WebSocketClient } from '../support/clients.ts';
import { silentObserver } from '../support/doubles.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { socketEngine } from '../support/socket-engine.ts';
import { SocketLayer } from '../support/socket-layer.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { syncContract, type SyncHarness } from './sync-contract.ts';

patient();

const engines = [...ownEngines, socketEngine];

async function openLayer(clock: Clock): Promise<SocketLayer> {
  const layer = new SocketLayer(join(temporaryFolder('layer'), 'socket'), clock);
  await layer.listen();
  return layer;
}

async function harness(): Promise<SyncHarness> {
  let passed = 0;
  const clock = { ...systemClock, now: () => Date.now() + passed };
  const layer = await openLayer(clock);
  const closers: (() => unknown)[] = [];
  const sql = connect('postgres://nobody@127.0.0.1:1/none', { applicationName: 'none' });
  const parts: EngineParts = {
    incarnation: 'contract',
    database: { sql, url: '', directUrl: '', applicationName: 'none' },
    observer: silentObserver,
    clock,
    log: { error: () => undefined, warn: () => undefined, debug: () => undefined },
    closing: { add: (_what, close) => closers.push(close) },
  };
  const closeNodes = async (): Promise<void> => {
    for (const close of closers.splice(0)) await close();
  };
  return {
    createNode: async (events) => {
      const { adapter } = await socketEngine.open({ path: layer.path }, parts);
      closers.push(() => adapter.close());
      await adapter.start(events);
      return adapter;
    },
    restart: closeNodes,
    clock: {
      now: () => clock.now(),
      advance: (milliseconds) => {
        passed += milliseconds;
      },
    },
    close: async () => {
      await closeNodes();
      await layer.goAway();
    },
  };
}

syncContract('an engine of a test', { traits: { shared: true, durable: true }, open: harness });

describe('settings', () => {
  const faultsOf = (env: Environment): readonly string[] => {
    try {
      readSettings(env, engines);
      return [];
    } catch (error) {
      if (error instanceof SettingsError) return error.faults;
      throw error;
    }
  };

  test('the row’s name is a value of SYNC, and its URL chooses it', () => {
    expect(readSettings({ SOCKET_PATH: '/x' }, engines)).toMatchObject({ sync: 'socket', engine: { path: '/x' } });
    expect(readSettings({ SOCKET_PATH: '/x', SYNC: 'postgres' }, engines)).toMatchObject({
      sync: 'postgres',
      engine: {},
    });
    expect(readSettings({ SOCKET_PATH: '/x', WORKERS: '2' }, engines).workers).toBe(2);
    expect(faultsOf({ SYNC: 'sockets' })[0]).toContain('`memory`, `socket`');
  });

  test('what is wrong with them is said as of any other setting', () => {
    expect(faultsOf({ SYNC: 'socket' })).toEqual(['SYNC=socket without SOCKET_PATH: set SOCKET_PATH']);
    expect(faultsOf({ SOCKET_PATH: 'x' })).toEqual(['SOCKET_PATH: "x" is not an absolute path']);
    expect(faultsOf({ SOCKET_PAHT: '/x' })).toEqual(['SOCKET_PAHT is not a setting; did you mean SOCKET_PATH?']);
    expect(faultsOf({ SOCKET_PATH: '/x', REDIS_URL: 'redis://h' })).toEqual([
      'REDIS_URL and SOCKET_PATH are set: set SYNC too, to name the engine',
    ]);
  });
});

describe('two servers on an engine of a test', () => {
  const apiKey = 'the-key-of-the-backend-0123456789';
  const limit = 20;
  let layer: SocketLayer;
  let database: TestDatabase;
  let sql: Database;
  let nodes: Node[] = [];
  const clients: { cut(): Promise<void> }[] = [];

  beforeAll(async () => {
    [layer, database] = await Promise.all([openLayer(systemClock), createDatabase({ migrated: true })]);
    sql = connect(database.url, { applicationName: 'test', max: 1 });
    const log = createLogger({ level: 'silent', format: 'json', node: 'test' });
    nodes = await Promise.all(
      ['one', 'two'].map((name) => {
        const environment = {
          SOCKET_PATH: layer.path,
          DATABASE_URL: database.url,
          NODE_ID: name,
          HOST: '127.0.0.1',
          PORT: '0',
          JWT_SECRET: secret,
          API_KEY: apiKey,
          RATE_LIMIT_PER_MINUTE: String(limit),
          SHUTDOWN_TIMEOUT: '0',
        };
        return startNode(readSettings(environment, engines), log, { engines });
      }),
    );
  }, 60_000);
  afterAll(async () => {
    await Promise.all(clients.map((client) => client.cut()));
    await Promise.all(nodes.map(({ shutdown }) => shutdown.signal('SIGTERM')));
    await until(() => layer.connections === 0, 'the layer has no connection left', 5_000);
    await layer.goAway();
    await sql.end({ timeout: 1 });
    await database.drop();
  }, 60_000);

  async function join(kind: typeof WebSocketClient, node: number, query: string): Promise<WebSocketClient>;
  async function join(kind: typeof EventClient, node: number, query: string): Promise<EventClient>;
  async function join(
    kind: typeof WebSocketClient | typeof EventClient,
    node: number,
    query: string,
  ): Promise<WebSocketClient | EventClient> {
    const client = await kind.open(nodes[node]!.url, { query });
    clients.push(client);
    return client;
  }

  async function queryOf(sub: string): Promise<string> {
    return `token=${await tokenOf({ sub, channels: { '*': ['subscribe', 'publish', 'history'] } })}`;
  }

  function isReady(node: number): Promise<boolean> {
    return fetch(`${nodes[node]!.url}/health/ready`).then(({ status }) => status === 200);
  }

  test('a publication, a table change and an ephemeral one reach both transports on both nodes', async () => {
    expect(await Promise.all([isReady(0), isReady(1)])).toEqual([true, true]);
    const socket = await join(WebSocketClient, 0, await queryOf('ann'));
    const stream = await join(EventClient, 1, `${await queryOf('bob')}&channels=room:a,ephemeral:a`);
    for (const channel of ['room:a', 'ephemeral:a']) await socket.request({ type: 'subscribe', channel });
    await stream.next('welcome');
    expect(await socket.request({ type: 'publish', channel: 'room:a', data: 1 })).toMatchObject({ offset: 1 });
    await sql`SELECT realtime.send('room:a', '2'::jsonb)`;
    const heard = [await socket.next('message'), await socket.next('message')];
    expect(heard.map(({ offset, data }) => [offset, data])).toEqual([
      [1, 1],
      [2, 2],
    ]);
    const streamed = [await stream.next('message'), await stream.next('message')];
    expect(streamed.map(({ frame }) => [frame.offset, frame.data])).toEqual([
      [1, 1],
      [2, 2],
    ]);
    await socket.request({ type: 'publish', channel: 'ephemeral:a', data: 3 });
    expect((await socket.next('message')).data).toBe(3);
    expect((await stream.next('message')).frame.data).toBe(3);
    await until(async () => (await sql`SELECT FROM realtime.outbox`).length === 0, 'the outbox is empty', 5_000);
  }, 30_000);

  test('a ticket of one node opens one connection on the other', async () => {
    const answer = await fetch(`${nodes[0]!.url}/realtime/ticket`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({ user: 'cat' }),
    });
    const { ticket } = (await answer.json()) as { ticket: string };
    const socket = await join(WebSocketClient, 1, `token=${ticket}`);
    expect((await socket.next('welcome')).user).toBe('cat');
    const again = await EventClient.open(nodes[0]!.url, { query: `token=${ticket}&channels=a` }).catch(
      (error: unknown) => error,
    );
    expect(again).toBeInstanceOf(Refused);
  }, 30_000);

  test('a user’s commands on both nodes are counted together', async () => {
    const query = await queryOf('dan');
    const sockets = [await join(WebSocketClient, 0, query), await join(WebSocketClient, 1, query)];
    for (const socket of sockets)
      for (let id = 0; id < limit; id++) socket.send({ type: 'history', channel: 'ephemeral:a', id });
    let answered = 0;
    for (const socket of sockets) {
      await socket.next('welcome');
      for (let id = 0; id < limit; id++) if ((await socket.nextAny()).type === 'history') answered++;
    }
    expect(answered).toBe(limit);
  }, 30_000);

  test('while it is away nodes say so, and go on where they were when it is back', async () => {
    const [socket, other] = [
      await join(WebSocketClient, 0, await queryOf('eve')),
      await join(WebSocketClient, 1, await queryOf('fay')),
    ];
    for (const each of [socket, other]) await each.request({ type: 'subscribe', channel: 'room:b' });
    await socket.request({ type: 'publish', channel: 'room:b', data: 1 });
    await layer.goAway();
    const refused = await socket.request({ type: 'publish', channel: 'room:b', data: 2 });
    expect(refused).toMatchObject({ type: 'error', code: 'unavailable' });
    await sql`SELECT realtime.send('room:b', '3'::jsonb)`;
    await layer.listen();
    const heard = [await other.next('message', 15_000), await other.next('message', 15_000)];
    expect(heard.map(({ offset, data }) => [offset, data])).toEqual([
      [1, 1],
      [2, 3],
    ]);
    await until(async () => (await isReady(0)) && (await isReady(1)), 'both are ready', 10_000, 50);
  }, 40_000);
});
