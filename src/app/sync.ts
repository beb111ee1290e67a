// Chooses the sync adapter. A new one is a file under src/sync and a case here.

import type { Clock } from '../time/clock.ts';
import type { SyncObserver } from '../core/observer.ts';
import type { SyncAdapter } from '../core/sync-adapter.ts';
import { MemoryAdapter } from '../sync/memory/adapter.ts';
import type { CloseStack } from './close-stack.ts';
import { connect } from '../database/connect.ts';
import { PostgresAdapter } from '../sync/postgres/adapter.ts';
import { redisTarget } from '../redis/target.ts';
import { RedisAdapter } from '../sync/redis/adapter.ts';
import type { NodeDatabase } from './database.ts';
import type { Logger } from './logger.ts';
import type { Settings } from '../settings/settings.ts';

export interface AdapterParts {
  readonly settings: Settings;
  /** Of this process alone: even under a name that another one has, it would not take the other's messages for its own. */
  readonly incarnation: string;
  readonly database: NodeDatabase;
  readonly observer: SyncObserver;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

function createPostgres({ incarnation, database, observer, clock, log }: AdapterParts): PostgresAdapter {
  const { sql, directUrl, applicationName } = database;
  return new PostgresAdapter({
    sql,
    connectDirect: (answerSeconds) =>
      connect(directUrl, { applicationName, max: 1, ...(answerSeconds === undefined ? {} : { answerSeconds }) }),
    nodeId: incarnation,
    applicationName,
    clock,
    observer,
    log: (message, error) => log.error({ err: error }, message),
  });
}

function createRedis({ settings, incarnation, observer, clock, log }: AdapterParts): RedisAdapter {
  if (settings.redisUrl === undefined) throw new Error('SYNC=redis needs REDIS_URL');
  return new RedisAdapter({
    target: redisTarget({ url: settings.redisUrl, tlsCa: settings.redisTlsCa }),
    prefix: settings.redisPrefix,
    nodeId: incarnation,
    clock,
    observer,
    log: (message, error) => log.error({ err: error }, message),
  });
}

const sweepEveryMs = 60_000;

export function createAdapter(parts: AdapterParts): SyncAdapter {
  const { settings } = parts;
  switch (settings.sync) {
    case 'memory':
      return createMemory(parts);
    case 'postgres':
      return createPostgres(parts);
    case 'redis':
      return createRedis(parts);
  }
}

function createMemory({ settings, clock, observer, closing }: AdapterParts): MemoryAdapter {
  const adapter = new MemoryAdapter({ clock, observer, historyBytesMax: settings.historyBytesMax });
  const timer = setInterval(() => adapter.sweep(), sweepEveryMs);
  closing.add('history sweep', () => clearInterval(timer));
  return adapter;
}
