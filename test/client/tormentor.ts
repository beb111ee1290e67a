// What the clients are tortured with: for one engine a database with a table that is written to, a server that is killed
// and replaced, a network that cuts, stalls, halves, swallows, reorders and refuses, and where there is one a Redis that dies.
// Publishes numbered messages all the while, each until it is accepted.
//
// Lifecycle: `start`, `torment` once, `close` whenever it is no longer needed. `close` ends what `torment` still does.

import { setTimeout as timer } from 'node:timers/promises';
import postgres from 'postgres';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import {
  listening,
  spawnServer,
  startServer,
  type Environment,
  type RunningProcess,
  type RunningServer,
} from '../support/process.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { pick, randomFrom, type Random } from '../support/random.ts';
import { nowSeconds, secret, tokenOf } from '../support/tokens.ts';
import type { Orders, Thing } from './torture-client.ts';

export type Engine = 'memory' | 'postgres' | 'redis';

/** Under so much load a start takes its time. */
const startMs = 120_000;
const apiKey = 'the-key-of-the-backend-0123456789';

export class Tormentor {
  readonly engine: Engine;
  readonly channels: readonly string[];
  readonly done: string[] = [];
  readonly #random: Random;
  readonly #settings: Environment;
  readonly #database: TestDatabase;
  readonly #sql: postgres.Sql;
  readonly #redis: TestRedis | undefined;
  readonly #proxy: Proxy;
  readonly #closing = new AbortController();
  #server: RunningServer;
  /** A server that is not there yet. */
  #next: RunningProcess | undefined;
  #work: readonly Promise<void>[] = [];
  #isOver = false;
  #end: Orders['end'];
  /** The last answer to a publication that was not accepted, or why there was none. */
  #refusal = 'none';

  private constructor(
    engine: Engine,
    seed: number,
    parts: {
      readonly settings: Environment;
      readonly database: TestDatabase;
      readonly redis: TestRedis | undefined;
      readonly server: RunningServer;
      readonly proxy: Proxy;
    },
  ) {
    this.engine = engine;
    this.channels = [0, 1, 2].map((index) => `room:${index}`);
    this.#random = randomFrom(seed);
    this.#settings = parts.settings;
    this.#database = parts.database;
    this.#redis = parts.redis;
    this.#server = parts.server;
    this.#proxy = parts.proxy;
    this.#sql = postgres(parts.database.url, { onnotice: () => undefined });
  }

  static async start(engine: Engine, seed: number): Promise<Tormentor> {
    const [database, redis] = await Promise.all([
      createDatabase({ migrated: true }),
      engine === 'redis' ? startRedis() : undefined,
    ]);
    const settings = {
      DATABASE_URL: database.url,
      SYNC: engine,
      ...(redis !== undefined && { REDIS_URL: redis.url }),
      JWT_SECRET: secret,
      API_KEY: apiKey,
      ALLOWED_ORIGINS: '*',
      HEARTBEAT: '8',
      RATE_LIMIT_PER_MINUTE: '0',
      SHUTDOWN_TIMEOUT: '1',
      BROADCAST_INTERVAL: '0',
    };
    const server = await startServer(settings, startMs);
    const proxy = await startProxy({ port: server.port });
    const tormentor = new Tormentor(engine, seed, { settings, database, redis, server, proxy });
    const sql = tormentor.#sql;
    await sql`create table things (id int primary key, value text not null)`;
    await sql`select realtime.watch('things')`;
    return tormentor;
  }

  async answer({ call }: { readonly call: string }): Promise<unknown> {
    if (call === 'rows') return this.#rows();
    if (call === 'token') {
      // Some end while they are used, some have ended when they come.
      const seconds = Math.floor(this.#random() * 25) - 3;
      return tokenOf({ sub: 'ann', channels: { '*': ['subscribe'] } }, nowSeconds() + seconds);
    }
    const url = `http://127.0.0.1:${this.#proxy.port}`;
    return { url, channels: this.channels, table: 'things', end: this.#end } satisfies Orders;
  }

  /** For so long; then mends everything and lets it settle. Rejects with the first thing that went wrong. */
  torment(ms: number): Promise<void> {
    const work = [...this.channels.map((channel) => this.#publish(channel)), this.#write(), this.#harmFor(ms)];
    const settled = Promise.all(work).then(() => this.#settle());
    this.#work = [...work, settled];
    return settled;
  }

  /** What it does, for the message of a torture that does not end. */
  get state(): string {
    const stage = this.#end === undefined ? (this.#isOver ? 'settling' : 'harming') : 'settled';
    return `${this.engine}: ${stage} after ${this.done.join(' ')}; the last publication refused: ${this.#refusal}`;
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the torment is over'));
    await this.#next?.kill9();
    await Promise.allSettled(this.#work);
    await Promise.all([this.#proxy.close(), this.#server.stop(), this.#redis?.close()]);
    await this.#sql.end({ timeout: 1 });
    await this.#database.drop();
  }

  /** Rejects when it is closed meanwhile. */
  #pause(ms: number): Promise<void> {
    return timer(ms, undefined, { signal: this.#closing.signal });
  }

  async #settle(): Promise<void> {
    const heads: Record<string, string> = {};
    for (const channel of this.channels) heads[channel] = await this.#head(channel);
    this.#end = { heads, rows: await this.#rows() };
  }

  async #harmFor(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (performance.now() < until) {
      await this.#pause(300 + this.#random() * 1_500);
      await this.#harm();
    }
    this.#proxy.mode = 'forward';
    this.#proxy.delayMs = 0;
    // A last word in each channel, which tells who has fallen behind.
    this.#isOver = true;
  }

  #rows(): Promise<Thing[]> {
    return this.#sql<Thing[]>`select * from things order by id`;
  }

  async #harm(): Promise<void> {
    const harms: Readonly<Record<string, () => unknown>> = {
      cut: () => this.#proxy.cut(),
      halve: () => this.#proxy.cutAfter(Math.floor(this.#random() * 2_000)),
      swallow: () => this.#proxy.swallow(),
      stall: async () => {
        this.#proxy.delayMs = 100 + this.#random() * 900;
        await this.#pause(1_000);
        this.#proxy.delayMs = 0;
      },
      reorder: async () => {
        this.#proxy.connectDelayMs = 1_500;
        this.#proxy.cut();
        await this.#pause(2_000);
        this.#proxy.connectDelayMs = 0;
      },
      refuse: async () => {
        this.#proxy.mode = pick(['refuse', 'blackhole'], this.#random);
        this.#proxy.cut();
        await this.#pause(this.#random() * 2_000);
        this.#proxy.mode = 'forward';
      },
      deploy: () => this.#replace(() => this.#server.stop()),
      crash: () => this.#replace(() => this.#server.kill9()),
      ...(this.#redis !== undefined && {
        redis: async () => {
          await this.#redis?.kill9();
          await this.#pause(this.#random() * 1_000);
          await this.#redis?.start();
        },
      }),
    };
    const names = Object.keys(harms).filter((name) => name !== 'swallow' || this.#random() < 0.5);
    const name = pick(names, this.#random);
    this.done.push(name);
    await harms[name]?.();
  }

  /** The log of one process's memory has one process: there the old one goes before the new one comes. */
  async #replace(end: () => Promise<unknown>): Promise<void> {
    if (this.engine === 'memory') {
      await end();
      this.#server = await this.#startNext();
      this.#proxy.retarget({ port: this.#server.port });
    } else {
      const next = await this.#startNext();
      this.#proxy.retarget({ port: next.port });
      await end();
      this.#server = next;
    }
  }

  /**
   * As a supervisor would: a server that a starved machine gave no answer from its database in time ends, and is started
   * again. The torment once ended with the first such start, on a machine with a dozen processes for each core.
   */
  async #startNext(): Promise<RunningServer> {
    const deadline = performance.now() + startMs;
    for (;;) {
      this.#closing.signal.throwIfAborted();
      this.#next = spawnServer(this.#settings);
      try {
        return await listening(this.#next, startMs);
      } catch (error) {
        await this.#next.kill9();
        if (performance.now() > deadline) throw error;
        this.done.push('restarted');
      } finally {
        this.#next = undefined;
      }
    }
  }

  async #publish(channel: string): Promise<void> {
    for (let count = 1; ; count++) {
      const isLast = this.#isOver;
      const body = JSON.stringify({ channel, data: { count }, key: crypto.randomUUID() });
      while (!(await this.#post(body))) await this.#pause(100);
      if (isLast) return;
      await this.#pause(this.#random() * 60);
    }
  }

  async #post(body: string): Promise<boolean> {
    try {
      const headers = { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' };
      const signal = AbortSignal.any([AbortSignal.timeout(3_000), this.#closing.signal]);
      const url = `${this.#server.url}/realtime/publish`;
      const response = await fetch(url, { method: 'POST', body, headers, signal });
      const answer = await response.text();
      if (!response.ok) this.#refusal = `${response.status} ${answer}`;
      return response.ok;
    } catch (error) {
      // The server is away, or was killed before it answered.
      this.#refusal = String(error);
      return false;
    }
  }

  async #write(): Promise<void> {
    const sql = this.#sql;
    while (!this.#isOver) {
      const id = Math.floor(this.#random() * 30);
      const value = Math.floor(this.#random() * 1e6).toString(36);
      const kind = this.#random();
      if (kind < 0.6) {
        await sql`insert into things values (${id}, ${value}) on conflict (id) do update set value = excluded.value`;
      } else if (kind < 0.85) await sql`delete from things where id = ${id}`;
      else if (kind < 0.99) await sql`update things set value = ${value} where id between ${id} and ${id + 5}`;
      else await sql`truncate things`;
      await this.#pause(this.#random() * 80);
    }
  }

  async #head(channel: string): Promise<string> {
    for (;;) {
      try {
        const headers = { authorization: `Bearer ${apiKey}` };
        const url = `${this.#server.url}/realtime/channels/${channel}/history?limit=1`;
        const response = await fetch(url, { headers, signal: this.#closing.signal });
        const { epoch, offset } = (await response.json()) as { epoch?: string; offset?: number };
        if (epoch !== undefined) return `${epoch} ${offset}`;
      } catch {
        // As above.
      }
      await this.#pause(100);
    }
  }
}
