// Rows and messages are the table, every time: random writers change a table while subscribers come at random moments,
// over both transports, are cut, and come back, also from a node that is killed. Each of them applies what it is sent
// strictly, and in the end of its time, when writers rest, has the table. LONG=1 runs ten thousand subscribers, RUNS=… as
// many as it says of each engine; `shards.ts` runs them in shards with a seed each.

import { afterAll, describe, expect, test } from 'bun:test';
import { finished } from 'node:stream/promises';
import postgres from 'postgres';
import { EventClient, Refused, WebSocketClient, type Frame } from '../support/clients.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { createDatabase } from '../support/postgres.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import { pick, randomFrom, seed, type Random } from '../support/random.ts';
import { startRedis } from '../support/redis.ts';
import { RowsBelief, type Row } from '../support/rows-belief.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';

const isLong = process.env['LONG'] === '1';
const runs = (short: number, long: number): number => Number(process.env['RUNS'] ?? (isLong ? long : short));
const rooms = ['a', 'b', 'c'];
const waitMs = isLong ? 120_000 : 30_000;
/** A bulk of the long form must not be there for good: rows of one room are deleted at least as fast as they come. */
const size = isLong ? { bulk: 10_000, delete: 1_000, together: 50 } : { bulk: 200, delete: 150, together: 20 };

interface Engine {
  readonly name: string;
  readonly nodes: number;
  readonly runs: number;
  readonly settings: () => Promise<Environment>;
}

const engines: readonly Engine[] = [
  { name: 'postgres', nodes: 1, runs: runs(100, 10_000), settings: () => Promise.resolve({ SYNC: 'postgres' }) },
  { name: 'memory', nodes: 1, runs: runs(20, 1_000), settings: () => Promise.resolve({ SYNC: 'memory' }) },
  {
    name: 'redis, two nodes',
    nodes: 2,
    runs: runs(20, 200),
    settings: async () => ({ SYNC: 'redis', REDIS_URL: (await startRedis()).url }),
  },
  {
    name: 'postgres, two nodes',
    nodes: 2,
    runs: runs(20, 200),
    settings: () => Promise.resolve({ SYNC: 'postgres' }),
  },
];

// Two of three times the query differs from all before, so that its rows are shared with nobody.
const rules = new TestRules(`{ channels: 'items:{room}', history: { size: 50000 }, allow: { subscribe: 'everyone' },
  snapshot: ({ captures, sql }) => {
    globalThis.turn = (globalThis.turn ?? 0) + 1;
    return sql\`select id, room, value from items where room = \${captures.room} and \${globalThis.turn % 3 === 0 ? 0 : globalThis.turn}::int >= 0 order by id\`;
  } }`);

/** One step of a writer, in a transaction that may take a while, or be taken back. */
async function write(sql: postgres.Sql, random: Random, ids: { next: number }): Promise<void> {
  const statements = 1 + Math.floor(random() * 4);
  const isTakenBack = random() < 0.15;
  const pauseMs = random() < 0.3 ? random() * 30 : 0;
  const rollback = new Error('taken back');
  try {
    await sql.begin(async (transaction) => {
      for (let statement = 0; statement < statements; statement++) {
        const room = pick(rooms, random);
        const kind = random();
        const some = Math.floor(random() * 1_000);
        if (kind < 0.35) {
          await transaction`insert into items values (${ids.next++}, ${room}, ${some})`;
        } else if (kind < 0.4) {
          const from = ids.next;
          const count = random() < 0.02 ? size.bulk : 200;
          ids.next += count;
          await copy(transaction, from, count, room);
        } else if (kind < 0.6) {
          await transaction`update items set value = value + 1 where id = (
            select id from items order by (id::bigint * 7919 + ${some}) % 1009 limit 1 for update skip locked)`;
        } else if (kind < 0.75) {
          await transaction`update items set room = ${room} where id = (
            select id from items order by (id::bigint * 7919 + ${some}) % 1009 limit 1 for update skip locked)`;
        } else if (kind < 0.92) {
          await transaction`delete from items where id = (
            select id from items order by (id::bigint * 7919 + ${some}) % 1009 limit 1 for update skip locked)`;
        } else {
          await transaction`delete from items where id in (
            select id from items where room = ${room} order by id limit ${size.delete} for update skip locked)`;
        }
        if (pauseMs > 0) await transaction`select pg_sleep(${pauseMs / 1_000})`;
      }
      if (isTakenBack) throw rollback;
    });
  } catch (error) {
    if (error !== rollback) throw error;
  }
}

async function copy(sql: postgres.TransactionSql, from: number, count: number, room: string): Promise<void> {
  const into = await sql`copy items (id, room, value) from stdin`.writable();
  const lines = Array.from({ length: count }, (_, index) => `${from + index}\t${room}\t${from + index}\n`);
  into.end(lines.join(''));
  await finished(into);
}

/** Writers pause while so many changes wait for the relay. */
const waitingMax = 300;

async function waiting(sql: postgres.Sql): Promise<number> {
  const [row] = await sql`select count(*)::int as count from (select from realtime.outbox limit ${waitingMax + 1}) o`;
  return Number(row?.['count']);
}

/** They write without end, and pause to let others look. */
class Writers {
  readonly #all: readonly Promise<void>[];
  #pause: PromiseWithResolvers<void> | undefined;
  #writing = 0;
  #isOver = false;
  failure: unknown;

  constructor(sql: postgres.Sql, ids: { next: number }) {
    this.#all = Array.from({ length: 3 }, (_, index) => this.#work(sql, randomFrom(seed + index + 1), ids));
    for (const each of this.#all) each.catch((error: unknown) => (this.failure = error));
  }

  /** Resolves when no transaction is open. */
  async rest(): Promise<void> {
    this.#pause ??= Promise.withResolvers();
    await until(() => this.#writing === 0 || this.failure !== undefined, 'the writers rest', waitMs);
  }

  resume(): void {
    this.#pause?.resolve();
    this.#pause = undefined;
  }

  /** Rejects with what a writer met. */
  async end(): Promise<void> {
    this.#isOver = true;
    this.resume();
    await Promise.all(this.#all);
  }

  async #work(sql: postgres.Sql, random: Random, ids: { next: number }): Promise<void> {
    while (!this.#isOver) {
      this.#writing++;
      await write(sql, random, ids);
      this.#writing--;
      await Bun.sleep(random() * 40);
      // A cluster that writers outrun for good has no rows that are true soon.
      while (!this.#isOver && (await waiting(sql)) > waitingMax) await Bun.sleep(20);
      await this.#pause?.promise;
    }
  }
}

interface Subscriber {
  readonly room: string;
  readonly belief: RowsBelief;
  cut(): Promise<void>;
  /** After it was cut: by its position, if it has all rows, and for rows otherwise. */
  comeBack(node: RunningServer): Promise<void>;
}

async function subscribe(node: RunningServer, room: string, random: Random): Promise<Subscriber> {
  const belief = new RowsBelief();
  const channel = `items:${room}`;
  const timeoutMs = waitMs;
  let client: WebSocketClient | EventClient;
  const overStream = random() < 0.5;
  let lastEventId = '';
  const openStream = async (at: RunningServer): Promise<void> => {
    client = await EventClient.open(at.url, {
      query: `channels=${channel}&snapshot=1`,
      onEvent: ({ frame, lastEventId: id }) => {
        belief.take(frame);
        lastEventId = id;
      },
      ...(lastEventId === '' ? {} : { lastEventId }),
      timeoutMs,
    });
  };
  const openSocket = async (at: RunningServer): Promise<void> => {
    const since = belief.isWhole ? { epoch: belief.epoch, offset: belief.offset } : undefined;
    const ask = (socket: WebSocketClient) => socket.send({ type: 'subscribe', channel, snapshot: true, since, id: 1 });
    const socket = await WebSocketClient.open(at.url, {
      onText: (text) => {
        const frame = JSON.parse(text) as Frame;
        if (frame.code === 'unavailable') ask(socket);
        else belief.take(frame);
      },
      timeoutMs,
    });
    client = socket;
    ask(socket);
  };
  // A busy machine may make rows unavailable for a while: clients ask again.
  const open = async (at: RunningServer): Promise<void> => {
    if (!overStream) return openSocket(at);
    for (;;) {
      try {
        return await openStream(at);
      } catch (error) {
        if (!(error instanceof Refused && error.status === 503)) throw error;
      }
    }
  };
  await open(node);
  return { room, belief, cut: () => client.cut(), comeBack: open };
}

describe.each([...engines])(`rows and messages are the table (seed ${seed}), $name`, (engine) => {
  const nodes: RunningServer[] = [];
  afterAll(() => stopNodes(nodes));

  test(
    'whenever a subscriber comes',
    async () => {
      const random = randomFrom(seed);
      const database = await createDatabase({ migrated: true });
      const sql = postgres(database.url, { max: 6, onnotice: () => undefined });
      await sql`create table items (id int primary key, room text not null, value int)`;
      await sql`select realtime.watch('items', array['items:{room}'])`;
      const settings = {
        DATABASE_URL: database.url,
        CONFIG_FILE: rules.path,
        SNAPSHOT_TIMEOUT: '20',
        SNAPSHOT_ROWS_MAX: '100000',
        ...(await engine.settings()),
      };
      for (let index = 0; index < engine.nodes; index++) nodes.push(await startNode(settings));

      const ids = { next: 1 };
      const writers = new Writers(sql, ids);
      const { together } = size;
      for (let run = 0; run < engine.runs && writers.failure === undefined; run += together) {
        const subscribers: Subscriber[] = [];
        for (let index = 0; index < together; index++) {
          subscribers.push(await subscribe(pick(nodes, random), pick(rooms, random), random));
          if (random() < 0.4) await Bun.sleep(random() * 12);
        }
        await until(() => subscribers.every(({ belief }) => belief.isWhole), 'all have their rows', waitMs);
        const isLast = run + together >= engine.runs;
        // Some are cut, and all of a node that is killed in the midst of it: they come back to the others.
        const dies = isLast && nodes.length > 1 ? nodes.pop() : undefined;
        await dies?.kill9();
        for (const subscriber of subscribers) {
          if (dies === undefined && random() < 0.7) continue;
          await subscriber.cut();
          await subscriber.comeBack(pick(nodes, random));
        }
        await until(() => subscribers.every(({ belief }) => belief.isWhole), 'all have their rows again', waitMs);
        // What is compared is the table at one moment: a marker in each room is its end.
        await writers.rest();
        const markers = new Map(rooms.map((room) => [room, ids.next++]));
        for (const [room, marker] of markers) await sql`insert into items values (${marker}, ${room}, -1)`;
        const table = Map.groupBy(await sql<Row[]>`select id, room, value from items order by id`, ({ room }) => room);
        await until(
          () => subscribers.every(({ belief, room }) => belief.rows.has(markers.get(room) ?? 0)),
          'all have heard the end',
          waitMs,
        );
        for (const { belief, room } of subscribers) {
          expect(belief.faults).toEqual([]);
          const rows = [...belief.rows.values()].toSorted((one, other) => one.id - other.id);
          expect(rows).toEqual((table.get(room) ?? []).map((row) => ({ ...row })));
        }
        writers.resume();
        await Promise.all(subscribers.map((subscriber) => subscriber.cut()));
        if (isLong) process.stderr.write(`${engine.name}: ${run + together} of ${engine.runs}\n`);
      }
      await writers.end();
      await sql.end({ timeout: 5 });
    },
    isLong ? 14_400_000 : 180_000,
  );
});
