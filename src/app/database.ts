// The node's database: the one that DATABASE_URL names, or an embedded one of its own.

import type { Sql } from 'postgres';
import type { CloseStack } from './close-stack.ts';
import { startEmbeddedPostgres } from './embedded-postgres.ts';
import type { Logger } from './logger.ts';
import type { Settings } from './settings.ts';

export interface Database {
  readonly url: string;
  readonly directUrl: string;
  readonly psql: string;
  readonly sql: Sql;
  ping(): Promise<unknown>;
}

export async function openDatabase(
  settings: Settings,
  log: Logger,
  closing: CloseStack,
): Promise<Database | undefined> {
  if (settings.sync === 'memory') return undefined;
  const embedded = await startEmbeddedPostgres({ directory: settings.dataDir, log });
  closing.add('embedded PostgreSQL', () => embedded.stop());
  return undefined;
}
