// What holds over every bus beside the log: two real servers with the bus between them and the log in PostgreSQL are one
// server. The same sequence everywhere, whatever becomes of the bus or of a node, and each table change once. Without the
// bus publications go on, since the log is in the database: the other node finds them there within a second.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { WebSocketClient } from '../support/clients.ts';
import type { Load } from '../support/load.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import type { Proxy } from '../support/proxy.ts';
import { RedisStage, type RedisPlace } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';
import { standsStill } from './silent-broker.ts';

const long = process.env['LONG'] === '1';

export interface BusServer extends RedisPlace {
  /** Resolves when clients may come. */
  start(): Promise<void>;
  /** SIGKILL; resolves when the process is gone. */
  kill9(): Promise<void>;
  /** SIGSTOP: connections stand, and nobody answers. */
  pause(): void;
  resume(): void;
}

/** Two nodes, and a proxy between them and the bus. */
export class BusScene<Server extends BusServer> {
  readonly server: Server;
  readonly proxy: Proxy;
  readonly stage: RedisStage<Server>;

  private constructor(server: Server, proxy: Proxy, stage: RedisStage<Server>) {
    this.server = server;
    this.proxy = proxy;
    this.stage = stage;
  }

  /** `environment` names the engine, and leads to the proxy. */
  static async open<Server extends BusServer>(
    server: Server,
    proxy: Proxy,
    environment: Environment,
  ): Promise<BusScene<Server>> {
    const given = { ...environment, REDIS_URL: undefined };
    return new BusScene(server, proxy, await RedisStage.on(server, { environment: given, database: true }, proxy));
  }

  /** Resolves when each node's messages come back to it: readiness is a probe of that way. */
  async connected(): Promise<void> {
    const isReady = async ({ url }: RunningServer): Promise<boolean> =>
      (await fetch(`${url}/health/ready`)).status === 200;
    await until(async () => (await Promise.all(this.stage.nodes.map(isReady))).every(Boolean), 'all ready', 90_000, 50);
  }

  /** The bus ends as `end` ends it. A node starts meanwhile, as in a deploy that follows on a loss. */
  async loses(load: Load, end: () => Promise<void>): Promise<void> {
    const { server, stage } = this;
    await end();
    const starting = stage.startNodePatiently();
    await load.arrives(40, 40_000);
    await server.start();
    const fresh = await starting;
    await this.connected();
    await load.arrives(40, 40_000);
    await stage.killNode(fresh);
  }

  /** The node that relays, or any where none does at this moment. */
  async leader(): Promise<RunningServer> {
    const leads = async ({ url }: RunningServer): Promise<boolean> =>
      /^sobranie_relay_leader(?:\{[^}]*\})? 1$/m.test(await (await fetch(`${url}/metrics`)).text());
    const leading = await Promise.all(this.stage.nodes.map(leads));
    const found = this.stage.nodes[Math.max(0, leading.indexOf(true))];
    if (found === undefined) throw new Error('there is no node');
    return found;
  }
}

/** `more`: tests of this bus alone. */
export function busContract<Server extends BusServer>(
  name: string,
  open: () => Promise<BusScene<Server>>,
  more: (scene: () => BusScene<Server>) => void,
): void {
  describe(`two nodes over ${name}`, () => {
    let scene: BusScene<Server>;
    beforeAll(async () => {
      scene = await open();
    }, 500_000);
    afterEach(() => scene.stage.endLoads(), 30_000);
    afterAll(() => scene.stage.close(), 60_000);

    test('publications and rows arrive once and in order, and the database notifies nobody of them', async () => {
      const { databaseUrl } = scene.stage;
      const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
      const [log] = await sql<{ topic: string }[]>`SELECT topic FROM realtime.log`;
      const heard: string[] = [];
      await sql.listen(`${log?.topic}_log`, (payload) => heard.push(payload));
      const load = await scene.stage.load({ databaseUrl });
      await load.arrives(60);
      await load.finish();
      await sql`SELECT realtime.tell(${log?.topic ?? ''}, 0, '')`;
      await until(() => heard.some((notice) => notice.startsWith('0 ')), 'what was notified on purpose', 20_000);
      // What the database itself notifies of carries the publications.
      expect(heard.filter((notice) => notice.includes('\n'))).toEqual([]);
      await sql.end();
    }, 120_000);

    test('it is killed -9 as a new node starts, and comes back late: meanwhile it goes on, and all nodes end ready', async () => {
      const { server, stage } = scene;
      const load = await stage.load({ databaseUrl: stage.databaseUrl });
      for (let round = 0; round < (long ? 6 : 1); round++) await scene.loses(load, () => server.kill9());
      await load.finish({ timeoutMs: 40_000 });
    }, 600_000);

    test('it stands still with publications in flight: all go on, and nothing is started again', async () => {
      await scene.connected();
      await standsStill(scene.stage, true);
    }, 300_000);

    test('its connections cut, and half open: nobody misses anything', async () => {
      const { proxy, stage } = scene;
      const load = await stage.load();
      for (let round = 0; round < (long ? 20 : 3); round++) {
        await scene.connected();
        proxy.cut();
        await load.arrives(10, 40_000);
      }
      await scene.connected();
      proxy.swallow();
      await load.arrives(40, 40_000);
      await load.finish({ timeoutMs: 40_000 });
      await scene.connected();
    }, 300_000);

    // Word of the log reached such a node only by its own look at the log, and ephemeral publications and the questions of
    // nodes never did. Nothing said so.
    test('a node of another engine over the same log: everybody hears everybody, each once and in order', async () => {
      const { stage } = scene;
      await scene.connected();
      const other = await stage.startNode({ SYNC: 'postgres', NODE_ID: 'other' });
      const load = await stage.load({ databaseUrl: stage.databaseUrl });
      const sockets = await Promise.all(stage.nodes.map((node) => WebSocketClient.open(node.url)));
      const heard = sockets.map((): { by: number; count: number }[] => []);
      const channel = 'ephemeral:typing';
      for (const [index, socket] of sockets.entries()) {
        await socket.request({ type: 'subscribe', channel });
        void gather(socket, (data) => heard[index]?.push(data as { by: number; count: number }));
      }
      const say = (by: number, count: number) =>
        sockets[by]?.request({ type: 'publish', channel, data: { by, count } }, 20_000);
      const others = (index: number): number[] => [...sockets.keys()].filter((by) => by !== index);
      const hearsAll = (index: number, count: number): boolean =>
        others(index).every((by) => heard[index]?.some((each) => each.by === by && each.count === count) === true);
      await until(
        async () => {
          for (const by of sockets.keys()) await say(by, 0);
          return [...sockets.keys()].every((index) => hearsAll(index, 0));
        },
        'everybody hears everybody',
        60_000,
        200,
      );
      const counts = Array.from({ length: 30 }, (_, index) => index + 1);
      for (const count of counts) for (const by of sockets.keys()) await say(by, count);
      await until(() => [...sockets.keys()].every((index) => hearsAll(index, 30)), 'the last ones arrive', 20_000);
      for (const index of sockets.keys()) {
        for (const by of others(index)) {
          const got = heard[index]?.filter((each) => each.by === by && each.count > 0).map(({ count }) => count);
          expect([index, by, got]).toEqual([index, by, counts]);
        }
      }
      await until(
        () => [...stage.nodes].some((node) => node.stdout().includes('on the same bus')),
        'the log says so',
        60_000,
      );
      await Promise.all(sockets.map((socket) => socket.close()));
      await load.finish({ timeoutMs: 40_000 });
      await stage.killNode(other);
    }, 200_000);

    more(() => scene);

    // What a relay has committed and not told yet is told by nobody after its end. The bus takes nothing for a moment, so
    // that there is such a thing.
    test('the node that relays is killed -9 between its commits and their word: its readers go on elsewhere', async () => {
      const { server, stage } = scene;
      await scene.connected();
      const load = await stage.load({ databaseUrl: stage.databaseUrl });
      for (let round = 0; round < (long ? 3 : 1); round++) {
        await stage.startNode();
        const leader = await scene.leader();
        server.pause();
        await load.arrives(10, 40_000);
        await stage.killNode(leader);
        server.resume();
        await load.arrives(30, 40_000);
      }
      await load.finish({ timeoutMs: 40_000 });
    }, 200_000);

    test('an ephemeral publication and a member of a channel reach the other node', async () => {
      await scene.connected();
      const [one, two] = await Promise.all(scene.stage.nodes.slice(0, 2).map((node) => WebSocketClient.open(node.url)));
      if (one === undefined || two === undefined) throw new Error('there are not two nodes');
      for (const socket of [one, two]) await socket.request({ type: 'subscribe', channel: 'ephemeral:typing' });
      await one.request({ type: 'publish', channel: 'ephemeral:typing', data: 1 });
      expect(await two.next('message', 20_000)).toMatchObject({ channel: 'ephemeral:typing', data: 1 });
      const channel = 'room:presence';
      await two.request({ type: 'subscribe', channel, presence: true });
      await one.request({ type: 'subscribe', channel, presence: true });
      expect((await two.next('join', 20_000)).channel).toBe(channel);
      await one.close();
      expect((await two.next('leave', 20_000)).channel).toBe(channel);
      await two.close();
    }, 60_000);
  });
}

/** What the socket hears, until it is closed. */
async function gather(socket: WebSocketClient, take: (data: unknown) => void): Promise<void> {
  try {
    for (;;) take((await socket.next('message', 600_000)).data);
  } catch {
    // It is closed.
  }
}
