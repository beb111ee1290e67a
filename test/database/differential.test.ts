// One random application, run twice: on a database where its tables are watched, and on one that has never seen this
// server. Whatever the application gets is the same: rows, counts, errors, lastval(). And who replays what was published,
// change by change, ends with the tables.
//
// LONG=1 runs 200,000 statements.

import { expect, test } from 'bun:test';
import postgres from 'postgres';
import { createDatabase } from '../support/postgres.ts';
import { randomFrom, seed } from '../support/random.ts';
import { rowText, TableReplica, type Row } from '../support/table-replica.ts';
import { workload, type Table } from '../support/workload.ts';
import { takenOver, type Seen } from './support.ts';

const isLong = process.env['LONG'] !== undefined;
const applications = Number(process.env['APPLICATIONS'] ?? (isLong ? 500 : 5));
const statementsEach = 400;
const inFlight = 20;

async function outcome(sql: postgres.Sql, text: string): Promise<string> {
  try {
    const rows = await sql.unsafe(text).simple();
    const shown = rows.map((row) => JSON.stringify(row)).toSorted();
    return `${rows.command} ${rows.count} ${shown.join(' ')}`;
  } catch (error) {
    const { code, message } = error as postgres.PostgresError;
    return `${code} ${message}`;
  }
}

/** What the subscribers of a table's channels end with: of its own, and of those of its rooms together. */
function replay(messages: readonly Seen[], table: Table): Map<string, string[]> {
  const channels = Map.groupBy(
    messages.filter(({ channel }) => channel.split(':')[0] === table.name),
    ({ channel }) => channel,
  );
  const ends = new Map<string, string[]>();
  for (const [channel, seen] of channels) {
    const replica = new TableReplica(table.key);
    for (const [place, { data }] of seen.entries()) {
      try {
        replica.apply(data);
      } catch (error) {
        const around = seen.slice(Math.max(0, place - 12), place + 4).map((message) => JSON.stringify(message.data));
        throw new Error(`${channel}: ${String(error)}\n${around.join('\n')}`, { cause: error });
      }
    }
    ends.set(channel, replica.all.toSorted());
  }
  return ends;
}

/** The last one is of no application: what is published uses numbers of the session that publishes it. */
type Sessions = readonly [watched: postgres.Sql, bare: postgres.Sql, relay: postgres.Sql];

let gaps = 0;

async function runBoth(start: number, version: number, [watched, bare, relay]: Sessions): Promise<void> {
  const application = workload(randomFrom(start), version);
  for (const sql of [watched, bare]) {
    await sql.unsafe(`DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop; SET search_path = shop`).simple();
    await sql.unsafe(application.setUp).simple();
  }
  for (const { name } of application.tables) {
    await watched`select realtime.watch(${name}::text::regclass, array[${name}, ${`${name}:{room}`}]::text[])`;
  }
  const texts: string[] = [];
  for (let count = 0; count < statementsEach; count++) texts.push(application.next());
  texts.push(application.finish);
  for (let from = 0; from < texts.length; from += inFlight) {
    const some = texts
      .slice(from, from + inFlight)
      .flatMap((text, n) => (n % 2 ? [text, 'SELECT last_number()'] : [text]));
    const outcomes = async (sql: postgres.Sql): Promise<string[]> => {
      const results = await Promise.all(some.map((text) => outcome(sql, text)));
      return results.map((result, place) => `${some[place]}\n  ${result}`);
    };
    // One after the other. Each would move the other's horizon, and with it the moment at which a page is pruned. Then
    // later rows take other places, and some statements end with an error in one order of places alone.
    const ofWatched = await outcomes(watched);
    const ofBare = await outcomes(bare);
    expect(ofWatched).toEqual(ofBare);
  }

  const messages = await takenOver(relay);
  const doubtful = new Set(messages.filter(({ data }) => data['gap'] === true).map(({ channel }) => channel));
  gaps += doubtful.size;
  for (const table of application.tables) {
    const ends = replay(
      messages.filter(({ channel }) => !doubtful.has(channel)),
      table,
    );
    const rows = await watched.unsafe(
      `SELECT realtime.part(room) AS room, to_json(t)::text AS row FROM ${table.name} t`,
    );
    const truth = new Map<string, string[]>();
    for (const { room, row } of rows) {
      for (const channel of [table.name, ...(room === null ? [] : [`${table.name}:${String(room)}`])]) {
        truth.set(channel, [...(truth.get(channel) ?? []), rowText(JSON.parse(row as string) as Row)]);
      }
    }
    for (const channel of new Set([...ends.keys(), ...truth.keys()])) {
      if (doubtful.has(channel)) continue;
      expect(ends.get(channel) ?? [], channel).toEqual((truth.get(channel) ?? []).toSorted());
    }
  }
}

/** Their catalogs fill with what applications leave, as nothing is vacuumed: so a few share their databases. */
const applicationsTogether = 20;

async function runSome(from: number, to: number): Promise<void> {
  const databases = await Promise.all([createDatabase({ migrated: true }), createDatabase()]);
  // The driver's own end of a connection, after half an hour, would take the settings of the session with it.
  const connect = (url: string): postgres.Sql =>
    postgres(url, { max: 1, max_lifetime: null, onnotice: () => undefined });
  const [ofWatched, ofBare] = databases.map(({ url }) => url) as [string, string];
  const sessions: Sessions = [connect(ofWatched), connect(ofBare), connect(ofWatched)];
  try {
    const [row] = await sessions[2]`select current_setting('server_version_num')::int / 10000 as version`;
    for (let number = from; number < to; number++) {
      const start = seed + number * 7919;
      try {
        await runBoth(start, row!['version'] as number, sessions);
      } catch (error) {
        throw new Error(`SEED=${start} APPLICATIONS=1: ${String(error)}`, { cause: error });
      }
    }
  } finally {
    await Promise.all(sessions.map((session) => session.end({ timeout: 1 })));
    await Promise.all(databases.map((database) => database.drop()));
  }
}

test(
  `watched or not, an application gets the same, and a replay gives its tables (SEED=${seed})`,
  async () => {
    const database = await createDatabase();
    const admin = postgres(database.superUrl, { max: 1 });
    // It frees places at moments of its own.
    await admin.unsafe('ALTER SYSTEM SET autovacuum = off');
    await admin`SELECT pg_reload_conf()`;
    await admin.end();
    for (let from = 0; from < applications; from += applicationsTogether) {
      await runSome(from, Math.min(applications, from + applicationsTogether));
      if (isLong) process.stderr.write(`${Math.min(applications, from + applicationsTogether)} applications\n`);
    }
    // Gaps are for what cannot be known; a few.
    expect(gaps).toBeLessThan(4 * applications + 10);
    await database.drop();
  },
  isLong ? 3_600_000 : 240_000,
);
