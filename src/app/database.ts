// The node's database: the one that DATABASE_URL names, or an embedded one of its own; migrated before anything uses
// it.

import { connect, type Database } from '../database/connect.ts';
import { makeDemoTables } from '../database/demo-tables.ts';
import { migrate } from '../database/migrate.ts';
import type { CloseStack } from './close-stack.ts';
import { startEmbeddedPostgres } from '../embedded/embedded-postgres.ts';
import { systemClock } from '../time/clock.ts';
import { isPassingFailure, patiently } from '../time/patiently.ts';
import { within } from '../time/within.ts';
import { plainCause } from './causes.ts';
import { redactUrl, type Logger } from './logger.ts';
import { databaseFault } from './start-fault.ts';
import type { Settings } from '../settings/settings.ts';

export interface NodeDatabase {
  readonly url: string;
  /** For sessions of their own: LISTEN and locks. */
  readonly directUrl: string;
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
  const { url, directUrl, psql } = await locate(settings, log, closing);
  const startedAt = performance.now();
  const { remarks } = await patiently(() => migrate(directUrl), {
    mayPass: isPassingFailure,
    waiting: (error) => log.warn({ cause: plainCause(error) }, 'waiting for the database'),
    clock: systemClock,
  }).catch((error: unknown) => {
    throw databaseFault(error, settings);
  });
  for (const remark of remarks) log.warn({ database: redactUrl(url) }, remark);
  const isOurs = settings.databaseUrl === undefined && settings.nodeEnv !== 'production';
  if (settings.demoTables ?? isOurs) await makeDemoTables(directUrl);
  log.debug({ ms: Math.round(performance.now() - startedAt), database: redactUrl(url) }, 'database is up to date');
  const applicationName = `sobranie ${settings.nodeId}`;
  const sql = connect(url, { applicationName, max: poolSize });
  closing.add('database pool', () => sql.end({ timeout: 5 }));
  return { url, directUrl, psql, sql, applicationName };
}

async function locate(
  settings: Settings,
  log: Logger,
  closing: CloseStack,
): Promise<{ url: string; directUrl: string; psql: string | undefined }> {
  const { databaseUrl, databaseUrlDirect } = settings;
  if (databaseUrl !== undefined) {
    return { url: databaseUrl, directUrl: databaseUrlDirect ?? databaseUrl, psql: undefined };
  }
  const embedded = await startEmbeddedPostgres({ directory: settings.dataDir, log });
  closing.add('embedded PostgreSQL', () => embedded.stop());
  return { url: embedded.url, directUrl: embedded.url, psql: embedded.psql };
}

const watchesMax = 500;
const watchesMsMax = 3_000;

/** For people to look at. Rejects when the database does not answer in time. */
export async function readWatches(sql: Database): Promise<readonly object[]> {
  const query = sql`
    SELECT "table"::text, to_json(channels) AS channels, to_json(columns) AS columns, fault, fault_count::int AS faults, last_reason AS reason
    FROM realtime.watches ORDER BY 1 LIMIT ${watchesMax}`;
  return within(query, watchesMsMax, 'the answer of the database');
}
