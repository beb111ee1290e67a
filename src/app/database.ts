// The node's database: the one that DATABASE_URL names, or an embedded one of its own; migrated before anything uses
// it.

import { connect, type Database } from '../database/connect.ts';
import { makeDemoTables } from '../database/demo-tables.ts';
import { migrate } from '../database/migrate.ts';
import type { CloseStack } from './close-stack.ts';
import { startEmbeddedPostgres } from '../embedded/embedded-postgres.ts';
import { systemClock } from '../time/clock.ts';
import { within } from '../time/within.ts';
import { PoolerInTheWay, poolingOf } from '../database/pooler.ts';
import { refuseAnotherDatabase } from '../database/same-database.ts';
import { ownUrl, settledUrl, shownDatabaseUrl, unpreparedUrl } from '../database/url.ts';
import type { Logger } from './logger.ts';
import { patientStep } from './patient-step.ts';
import { databaseFault, type DatabaseSetting } from './start-fault.ts';
import type { Settings } from '../settings/settings.ts';

export interface NodeDatabase {
  /** As it was given, or as the embedded database names itself: every other program takes it too. */
  readonly givenUrl: string;
  /** For pools of the server's own statements. It may lead to a pooler, and says so where that takes no prepared statements. */
  readonly url: string;
  /** As that, for pools that run SQL of the application: with its `search_path`. */
  readonly applicationUrl: string;
  /** For sessions of their own: LISTEN and locks. */
  readonly directUrl: string;
  /** As that, for one that sets what it needs itself. A pooler that comes into the way later is then told apart. */
  readonly relayUrl: string;
  /** As start-up prints it. In production the log may be read by many, so no password is in it. */
  readonly printedUrl: string;
  /** A shell line that opens a console, with the password in it; undefined unless the database is the embedded one. */
  readonly psql: string | undefined;
  readonly sql: Database;
  /** How the database names this node's connections. Notifications carry it too. */
  readonly applicationName: string;
}

/** For a node that has none: what nevertheless asks for it fails with these words. */
export const nowhere: NodeDatabase = new Proxy({} as NodeDatabase, {
  get: () => {
    throw new Error('this node has no database');
  },
});

const poolSize = 4;

export async function openDatabase(settings: Settings, log: Logger, closing: CloseStack): Promise<NodeDatabase> {
  const { url: givenUrl, directUrl: givenDirectUrl, printedUrl, psql } = await locate(settings, log, closing);
  const startedAt = performance.now();
  const steps = { log, clock: systemClock };
  const { remarks } = await patientStep('the database', () => migrate(givenDirectUrl), steps).catch(
    (error: unknown) => {
      throw databaseFault(error, settings, directSetting(settings));
    },
  );
  const direct = await patientStep('the database', () => directlyTo(givenDirectUrl, settings), steps);
  const directUrl = direct.own;
  const pooled =
    givenUrl === givenDirectUrl
      ? undefined
      : await pooledUrl({ url: givenUrl, directUrl: givenDirectUrl }, settings, log);
  const { own: url, ofApplication: applicationUrl } = pooled ?? direct;
  for (const remark of remarks) log.warn({ database: shownDatabaseUrl(url) }, remark);
  const isOurs = settings.databaseUrl === undefined && settings.nodeEnv !== 'production';
  if (settings.demoTables ?? isOurs) await makeDemoTables(directUrl);
  log.debug(
    { ms: Math.round(performance.now() - startedAt), database: shownDatabaseUrl(url) },
    'database is up to date',
  );
  const applicationName = `sobranie ${settings.nodeId}`;
  const sql = connect(url, { applicationName, max: poolSize });
  closing.add('database pool', () => sql.end({ timeout: 5 }));
  const urls = { givenUrl, url, applicationUrl, directUrl, relayUrl: givenDirectUrl, printedUrl };
  return { ...urls, psql, sql, applicationName };
}

function directSetting({ databaseUrlDirect }: Settings): DatabaseSetting {
  return databaseUrlDirect === undefined ? 'DATABASE_URL' : 'DATABASE_URL_DIRECT';
}

interface Urls {
  readonly own: string;
  readonly ofApplication: string;
}

const bothAs = (url: string): Urls => ({ own: url, ofApplication: url });
const withoutPooler = (url: string): Urls => ({ own: ownUrl(url), ofApplication: settledUrl(url) });

/** The URL for sessions of their own. A pooler may stand before it that gives each client one. */
async function directlyTo(url: string, settings: Settings): Promise<Urls> {
  try {
    return (await poolingOf(url)) === 'none' ? withoutPooler(url) : bothAs(url);
  } catch (error) {
    throw databaseFault(error, settings, directSetting(settings));
  }
}

/** The URL for the pool, which may lead to a pooler. Which statements it takes is found out here. */
async function pooledUrl(
  { url, directUrl }: { readonly url: string; readonly directUrl: string },
  settings: Settings,
  log: Logger,
): Promise<Urls> {
  const steps = { log, clock: systemClock };
  try {
    const pooling = await patientStep('the pooler', () => poolingOf(url), steps);
    // Publishing takes a transaction.
    if (pooling === 'statement') throw new PoolerInTheWay(pooling, 'transaction');
    await patientStep('the database', () => refuseAnotherDatabase(url, directUrl), steps);
    log.info({ pooling, database: shownDatabaseUrl(url) }, 'DATABASE_URL was looked at for a pooler');
    if (pooling === 'none') return withoutPooler(url);
    return bothAs(pooling === 'transaction' ? unpreparedUrl(url) : url);
  } catch (error) {
    throw databaseFault(error, settings, 'DATABASE_URL');
  }
}

async function locate(
  settings: Settings,
  log: Logger,
  closing: CloseStack,
): Promise<{ url: string; directUrl: string; printedUrl: string; psql: string | undefined }> {
  const { databaseUrl, databaseUrlDirect } = settings;
  if (databaseUrl !== undefined) {
    const printedUrl = shownDatabaseUrl(databaseUrl);
    return { url: databaseUrl, directUrl: databaseUrlDirect ?? databaseUrl, printedUrl, psql: undefined };
  }
  const starting = startEmbeddedPostgres({ directory: settings.dataDir, log });
  // Before it is up: a start that is interrupted must not leave it behind.
  closing.add('embedded PostgreSQL', async () => (await starting.catch(() => undefined))?.stop());
  const embedded = await starting;
  const { url, passfileUrl, psql } = embedded;
  return { url, directUrl: url, printedUrl: settings.production ? passfileUrl : url, psql };
}

/** Rejects with the driver's error when the session may not write: the database's or the role's default forbids it. */
export async function checkWrites(sql: Database): Promise<void> {
  // Asks for the right to write, locks no row and writes nothing.
  await sql`SELECT FROM realtime.log WHERE false FOR UPDATE`;
}

const watchesMax = 500;
const watchesMsMax = 3_000;

/** For people to look at. Rejects when the database does not answer in time. */
export async function readWatches(sql: Database): Promise<readonly object[]> {
  const query = sql`
    SELECT regexp_replace("table"::text, '^public[.]', '') AS "table", to_json(channels) AS channels, to_json(columns) AS columns, fault, fault_count::int AS faults, last_reason AS reason
    FROM realtime.watches ORDER BY 1 LIMIT ${watchesMax}`;
  return within(query, watchesMsMax, 'the answer of the database');
}
