// Two or more real servers over a Redis of their own, with a proxy in between if asked for, and loads on them: what the
// tests of faults and of clusters share. At the end no server may have logged what nobody handles.

import { expect } from 'bun:test';
import { Load, type LoadOptions } from './load.ts';
import { createDatabase } from './postgres.ts';
import { startServer, type Environment, type RunningServer } from './process.ts';
import { startProxy, type Proxy } from './proxy.ts';
import { startRedis, type TestRedis, type TestRedisOptions } from './redis.ts';

/** A server, or several that are one. */
export interface RedisPlace {
  readonly url: string;
  resume?(): void;
  close(): Promise<void>;
}

export interface StageOptions {
  readonly nodes?: number;
  /** Of every node. */
  readonly environment?: Environment;
  /** With a database, table changes are relayed as well. */
  readonly database?: boolean;
}

export interface RedisStageOptions extends StageOptions, TestRedisOptions {
  readonly proxied?: boolean;
}

/** A node that starts beside loads and other tests takes many times the second that it needs alone. */
const nodeStartMsMax = 60_000;

export class RedisStage<Place extends RedisPlace = TestRedis> {
  readonly redis: Place;
  readonly nodes: RunningServer[] = [];
  readonly seed: number;
  /** Only there if it was asked for. */
  readonly proxy: Proxy | undefined;
  readonly databaseUrl: string;
  readonly #loads: Load[] = [];
  #names = 0;

  readonly #environment: Environment;

  private constructor(redis: Place, proxy: Proxy | undefined, databaseUrl: string, given: Environment) {
    this.redis = redis;
    this.proxy = proxy;
    this.databaseUrl = databaseUrl;
    this.#environment = given;
    this.seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
    console.log(`SEED=${this.seed}`);
  }

  /** Over a server of its own. */
  static async open({ proxied = false, ...rest }: RedisStageOptions): Promise<RedisStage> {
    const redis = await startRedis(rest);
    return RedisStage.on(redis, rest, proxied ? await startProxy({ port: redis.port }) : undefined);
  }

  /** Over what was started for it, which ends with the stage. */
  static async on<Place extends RedisPlace>(
    redis: Place,
    { nodes = 2, environment = {}, database = false }: StageOptions = {},
    proxy?: Proxy,
  ): Promise<RedisStage<Place>> {
    // Also where nothing is written: without one each node would bring up its own.
    const { url } = await createDatabase({ migrated: true });
    const role = database ? {} : { ROLE: 'ws,sse,api' };
    const stage = new RedisStage(redis, proxy, url, { ...role, ...environment });
    try {
      await Promise.all(Array.from({ length: nodes }, () => stage.startNode()));
    } catch (error) {
      await stage.close();
      throw error;
    }
    return stage;
  }

  async startNode(given: Environment = {}): Promise<RunningServer> {
    const environment = {
      SYNC: 'redis',
      REDIS_URL: this.proxy?.through(this.redis.url) ?? this.redis.url,
      RATE_LIMIT_PER_MINUTE: '0',
      SUBSCRIBES_PER_MINUTE: '0',
      BROADCAST_INTERVAL: '0',
      SHUTDOWN_TIMEOUT: '0',
      LOG_FORMAT: 'json',
      DATABASE_URL: this.databaseUrl,
      ...this.#environment,
      ...given,
    };
    const server = await startServer(environment, nodeStartMsMax);
    this.nodes.push(server);
    return server;
  }

  /** As an orchestrator does: one that gives up, since what it needs is away, is started again. Bad settings are final. */
  async startNodePatiently(given: Environment = {}): Promise<RunningServer> {
    for (;;) {
      try {
        return await this.startNode(given);
      } catch (error) {
        if (!String(error).includes('ended with 1 before')) throw error;
        console.log('a node gave up, and is started again');
      }
    }
  }

  /** SIGKILL, and nobody turns to it any more. */
  async killNode(node: RunningServer): Promise<void> {
    this.nodes.splice(this.nodes.indexOf(node), 1);
    await node.kill9();
  }

  /** Channels that no other load uses. */
  channels(count: number): string[] {
    const name = `fault-${++this.#names}`;
    return Array.from({ length: count }, (_, index) => `${name}:${index}`);
  }

  /** A load that flows over all nodes. */
  async load(options: Partial<LoadOptions> = {}): Promise<Load> {
    const load = new Load({ seed: this.seed, nodes: () => this.nodes, channels: this.channels(4), ...options });
    this.#loads.push(load);
    await load.start();
    await load.arrives(20);
    return load;
  }

  async endLoads(): Promise<void> {
    await Promise.all(this.#loads.splice(0).map((load) => load.end()));
  }

  async close(): Promise<void> {
    await this.endLoads();
    this.redis.resume?.();
    const printed = await Promise.all(
      this.nodes.map(async (node) => {
        await node.stop();
        return node.stdout() + node.stderr();
      }),
    );
    await this.proxy?.close();
    await this.redis.close();
    for (const text of printed)
      expect(text).not.toMatch(/was not handled|was not caught|failed unexpectedly|"level":"fatal"/);
  }
}
