// The log grew without bound as soon as one rule kept longer than another, and Redis got a key for each row. Here rows are
// written under two rules, and every message is counted by a client: the metrics say exactly the same. LONG=1 does so for
// half an hour (LIFE_MINUTES: for as many) at 500 rows a second, and sees the log, the keys and the memory level off.

import { afterAll, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import postgres from 'postgres';
import type { Frame } from '../support/clients.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { startRedis } from '../support/redis.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { samples } from '../wire/wire.ts';

patient();

const isLong = process.env['LONG'] !== undefined;
const seconds = isLong ? Number(process.env['LIFE_MINUTES'] ?? 30) * 60 : 4;
const channels = 10;
const perTurn = 5;
const turnMs = 100;
/**
 * What is written waits while so much is on its way. At a load of 30 to 40 two cores do not relay 500 rows a second over Redis:
 * rows that waited piled up in the outbox, to 106 MB once, and were taken for what is kept.
 */
const aheadMax = 5_000;

const rules = new TestRules(`
  { channels: 'brief:*', history: { size: 500, seconds: 60 } },
  { channels: 'lasting:*', history: { size: 1000, seconds: 86400 } },
  { channels: '*' }`);
const redis = await startRedis();
const closers: (() => unknown)[] = [() => redis.close()];
afterAll(async () => {
  for (const close of closers.reverse()) await close();
}, 60_000);

interface Life {
  readonly server: RunningServer;
  readonly sql: postgres.Sql;
  received: number;
}

async function begin(environment: Record<string, string>): Promise<Life> {
  const database = await createDatabase();
  closers.push(() => database.drop());
  const server = await startServer({ DATABASE_URL: database.url, CONFIG_FILE: rules.path, ...environment });
  closers.push(() => server.stop());
  const sql = postgres(database.url, { max: 2, onnotice: () => undefined });
  closers.push(() => sql.end({ timeout: 1 }));
  await sql`create table brief (id int, text text)`;
  await sql`create table lasting (id int, text text)`;
  await sql`select realtime.watch('brief', '{"brief:{id}"}')`;
  await sql`select realtime.watch('lasting', '{"lasting:{id}"}')`;
  const life: Life = { server, sql, received: 0 };
  const socket = new WebSocket(`${server.url.replace('http', 'ws')}/realtime/ws`);
  closers.push(() => socket.close());
  let subscribed = 0;
  const subscribe = (channel: string): void => socket.send(JSON.stringify({ type: 'subscribe', channel, id: channel }));
  socket.onmessage = ({ data }) => {
    const text = String(data);
    if (text.startsWith('{"type":"message"')) life.received++;
    else if (text.startsWith('{"type":"subscribed"')) subscribed++;
    else if (text.startsWith('{"type":"error"')) {
      // Redis may have no time to answer within its second.
      const { id, retryable } = JSON.parse(text) as Frame;
      if (retryable !== true) throw new Error(text);
      setTimeout(() => subscribe(String(id)), 200);
    } else if (text.startsWith('{"type":"gap"'))
      throw new Error(`${text}, and the server: ${server.stdout().slice(-3_000)}`);
  };
  await new Promise((resolve) => (socket.onopen = resolve));
  const names = Array.from({ length: channels }, (_, index) => [`brief:${index + 1}`, `lasting:${index + 1}`]).flat();
  for (const channel of names) subscribe(channel);
  await until(() => subscribed === names.length, 'all subscribed', 60_000);
  return life;
}

interface Size {
  readonly log: number;
  readonly logBytes: number;
  readonly outboxBytes: number;
  readonly rssMb: number;
}

async function sizeOf({ server, sql }: Life): Promise<Size> {
  const [row] = await sql<Omit<Size, 'rssMb'>[]>`select count(*)::float8 as log,
    pg_total_relation_size('realtime.publications')::float8 as "logBytes",
    pg_total_relation_size('realtime.outbox')::float8 as "outboxBytes" from realtime.publications`;
  const kilobytes = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1];
  return { ...row!, rssMb: Math.round(Number(kilobytes) / 1024) };
}

test(
  'rows under two rules: every count is true, and what is kept does not grow',
  async () => {
    const lives = await Promise.all([begin({ SYNC: 'postgres' }), begin({ SYNC: 'redis', REDIS_URL: redis.url })]);
    const sizes: { at: number; perSecond: number; keys: number; of: Size[] }[] = [];
    const startedAt = performance.now();
    const elapsed = (): number => (performance.now() - startedAt) / 1000;
    let written = 0;
    let sampledAt = 0;
    for (let turn = 1; elapsed() < seconds; turn++) {
      await Promise.all(
        lives.map(({ sql }) =>
          sql.unsafe(`insert into brief select 1 + g % ${channels}, repeat('x', 100) from generate_series(1, ${perTurn * 5}) g;
          insert into lasting select 1 + g % ${channels}, repeat('x', 100) from generate_series(1, ${perTurn * 5}) g`),
        ),
      );
      written += perTurn * 10;
      await until(() => lives.every(({ received }) => written - received < aheadMax), 'rows are received', 120_000);
      if (isLong && elapsed() - sampledAt > 30) {
        sampledAt = elapsed();
        const sample = {
          at: Math.round(sampledAt),
          perSecond: Math.round(written / sampledAt),
          keys: await redis.admin.dbsize(),
          of: await Promise.all(lives.map(sizeOf)),
        };
        sizes.push(sample);
        process.stdout.write(`${JSON.stringify(sample)}\n`);
      }
      await Bun.sleep(Math.max(0, turn * turnMs - elapsed() * 1000));
    }
    for (const life of lives) await until(() => life.received >= written, 'all received', 120_000);
    for (const life of lives) {
      expect(life.received).toBe(written);
      const metrics = await samples(life.server);
      const sum = (name: string, label = ''): number =>
        [...metrics]
          .filter(([key]) => key.startsWith(name) && key.includes(label))
          .reduce((total, [, value]) => total + value, 0);
      expect(sum('sobranie_publications_total', 'source="database"')).toBe(written);
      expect(sum('sobranie_messages_sent_total', 'type="message"')).toBe(written);
      expect(sum('sobranie_messages_lost_total')).toBe(0);
      expect(sum('sobranie_message_delivery_duration_seconds_count')).toBe(written);
      expect(sum('sobranie_subscriptions_active')).toBe(channels * 2);
    }
    // A head and a history of each channel, and what else a node keeps there.
    expect(await redis.admin.dbsize()).toBeLessThan(channels * 2 * 2 + 30);
    // The first minutes fill what is kept; ten are the least that says anything of the rest.
    const settled = sizes.slice(Math.ceil(sizes.length / 3));
    const half = sizes.length < 20 ? 0 : settled.length >> 1;
    for (const key of ['log', 'logBytes', 'outboxBytes', 'rssMb'] as const) {
      for (const index of half > 0 ? lives.keys() : []) {
        const most = (some: typeof sizes): number => Math.max(...some.map(({ of }) => of[index]![key]));
        expect(most(settled.slice(half))).toBeLessThan(most(settled.slice(0, half)) * 1.3 + 20);
      }
    }
  },
  (seconds + 600) * 1000,
);
