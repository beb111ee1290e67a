// Random tables whose triggers change their rows again, some watched and some with the trigger function for rows, written to
// by several sessions at once in transactions of every kind, while the relay takes small batches and housekeeping forgets.
// Who replays what was published, change by change, ends with the tables; or was told of a gap.
//
// MINUTES=… runs it for so long.

import { expect, test } from 'bun:test';
import postgres from 'postgres';
import { nestedWorkload, type NestedTable } from '../support/nested-workload.ts';
import { createDatabase } from '../support/postgres.ts';
import { pick, randomFrom, seed, type Random } from '../support/random.ts';
import { rowText, TableReplica, type Row } from '../support/table-replica.ts';

const milliseconds = Number(process.env['MINUTES'] ?? 0) * 60_000;
const applicationsMin = Number(process.env['APPLICATIONS'] ?? 5);
const statementsEach = 30;
const sessionsMax = 3;
const rules = JSON.stringify([{ pattern: '', recoverable: true, historySize: 1_000_000, historySeconds: 3_600 }]);
/** Some applications would go on for ever. */
const settings = 'RESET ALL; SET search_path = shop; SET lock_timeout = 500; SET statement_timeout = 1200';
const isolations = ['READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'];

interface Told {
  readonly channel: string;
  /** Empty: a gap. */
  readonly data: string;
}

interface Sessions {
  readonly owner: postgres.Sql;
  readonly relay: postgres.Sql;
  readonly keeper: postgres.Sql;
  readonly writers: readonly postgres.Sql[];
}

/** Whether it went well. */
async function run(writer: postgres.Sql, text: string): Promise<boolean> {
  try {
    await writer.unsafe(text).simple();
    return true;
  } catch (error) {
    // Errors of the application are meant, and those of this schema are not.
    const { message, where = '' } = error as postgres.PostgresError;
    if (/realtime[.]/.test(where) && !/timeout|deadlock|serialize/.test(message)) throw error;
    return false;
  }
}

/** One session's statements, some alone and some in transactions with savepoints. */
async function write(writer: postgres.Sql, random: Random, next: () => string): Promise<void> {
  await run(writer, settings);
  for (let count = 0; count < statementsEach;) {
    if (random() < 0.4) {
      await run(writer, next());
      count++;
      continue;
    }
    await run(writer, `BEGIN ISOLATION LEVEL ${pick(isolations, random)}`);
    let savepoints = 0;
    for (let left = 1 + Math.floor(random() * 8); left > 0; left--) {
      if (random() < 0.35) await run(writer, `SAVEPOINT s${savepoints++}`);
      count++;
      const isDone = await run(writer, next());
      if (savepoints > 0 && (!isDone || random() < 0.2)) await run(writer, `ROLLBACK TO s${savepoints - 1}`);
      else if (!isDone) break;
    }
    await run(writer, random() < 0.85 ? 'COMMIT' : 'ROLLBACK');
  }
}

async function publishedBy(start: number, sessions: Sessions): Promise<[readonly NestedTable[], Told[]]> {
  const random = randomFrom(start);
  const { owner, relay, keeper, writers } = sessions;
  const workload = nestedWorkload(random);
  await owner.unsafe('DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop; SET search_path = shop').simple();
  await owner.unsafe(workload.setUp).simple();
  for (const { name, capture } of workload.tables) {
    if (capture === 'row') continue;
    await owner`select realtime.watch(${name}::text::regclass, array[${name}, ${`${name}:{room}`}]::text[])`;
  }
  const told: Told[] = [];
  let state: string | null = null;
  const take = async (batchMax: number): Promise<number> => {
    const rows = await relay`
      select channel, data, "offset"::float8 as count from realtime.relay(${batchMax}, ${rules}::text::jsonb, ${state})`;
    const report = rows.at(-1)!;
    state = report['data'] as string;
    told.push(...(rows.slice(0, -1) as unknown as Told[]));
    return report['count'] as number;
  };
  let isDone = false;
  const until = async (work: () => Promise<unknown>): Promise<void> => {
    while (!isDone) await work();
  };
  const others = [
    until(() => take(1 + Math.floor(Math.random() * 12))),
    until(() => keeper`select realtime.forget_row_changes(), pg_sleep(0.005)`),
  ];
  const some = writers.slice(0, 1 + Math.floor(random() * sessionsMax));
  try {
    await Promise.all(
      some.map((writer, place) => {
        const own = randomFrom(start + 1 + place);
        return write(writer, own, () => workload.statement(own));
      }),
    );
  } finally {
    isDone = true;
    await Promise.all(others);
  }
  while ((await take(100)) > 0);
  return [workload.tables, told];
}

/** Throws where a replay is another table. */
async function check(owner: postgres.Sql, { name, key, capture }: NestedTable, told: readonly Told[]): Promise<void> {
  const truth = new Map<string, string[]>([[name, []]]);
  for (const { room, row } of await owner.unsafe(
    `SELECT realtime.part(room) AS room, to_json(t)::text AS row FROM ${name} t`,
  )) {
    for (const channel of [name, ...(capture === 'row' || room === null ? [] : [`${name}:${String(room)}`])]) {
      truth.set(channel, [...(truth.get(channel) ?? []), rowText(JSON.parse(row as string) as Row)]);
    }
  }
  const own = told.filter(({ channel }) => channel.split(':')[0] === name);
  const byChannel = Map.groupBy(own, ({ channel }) => channel);
  for (const channel of new Set([...truth.keys(), ...byChannel.keys()])) {
    const changes = byChannel.get(channel) ?? [];
    if (changes.some(({ data }) => data === '')) continue;
    const replica = new TableReplica(key);
    for (const [place, { data }] of changes.entries()) {
      try {
        replica.apply(JSON.parse(data) as Row);
      } catch (error) {
        const around = changes.slice(Math.max(0, place - 12), place + 4).map((change) => change.data);
        throw new Error(`${channel}, ${capture}: ${String(error)}\n${around.join('\n')}`, { cause: error });
      }
    }
    expect(replica.all.toSorted(), channel).toEqual((truth.get(channel) ?? []).toSorted());
  }
}

test(
  `a replay of what was published gives the tables, however triggers nest (SEED=${seed})`,
  async () => {
    const database = await createDatabase({ migrated: true });
    const connect = (): postgres.Sql =>
      postgres(database.url, { max: 1, max_lifetime: null, onnotice: () => undefined });
    const sessions: Sessions = {
      owner: connect(),
      relay: connect(),
      keeper: connect(),
      writers: Array.from({ length: sessionsMax }, connect),
    };
    const { owner, relay, keeper, writers } = sessions;
    const endsAt = performance.now() + milliseconds;
    let channels = 0;
    let gaps = 0;
    try {
      for (let number = 0; number < applicationsMin || performance.now() < endsAt; number++) {
        const start = seed + number * 7919;
        try {
          const [tables, told] = await publishedBy(start, sessions);
          for (const table of tables) await check(owner, table, told);
          channels += new Set(told.map(({ channel }) => channel)).size;
          gaps += new Set(told.filter(({ data }) => data === '').map(({ channel }) => channel)).size;
        } catch (error) {
          throw new Error(`SEED=${start} APPLICATIONS=1: ${String(error)}`, { cause: error });
        }
      }
    } finally {
      await Promise.all([owner, relay, keeper, ...writers].map((sql) => sql.end({ timeout: 1 })));
      await database.drop();
    }
    if (milliseconds > 0) process.stderr.write(`${gaps} of ${channels} channels had a gap\n`);
    // Gaps are for what cannot be known: most of this is tried.
    if (applicationsMin > 1) expect(gaps / channels).toBeLessThan(0.6);
  },
  milliseconds + 240_000,
);
