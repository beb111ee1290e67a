// Opens what reads the rows with which subscriptions begin: connections of its own, as a query that takes long must not
// hold up anything else.

import type { Snapshots } from '../core/snapshot.ts';
import { connect } from '../database/connect.ts';
import type { SnapshotMetrics } from '../metrics/snapshot-metrics.ts';
import type { RowsRule } from '../rules/rules.ts';
import type { Settings } from '../settings/settings.ts';
import { DatabaseRows } from '../snapshot/database-rows.ts';
import { DatabaseSnapshots, queriesMax } from '../snapshot/snapshots.ts';
import { WaitingChanges } from '../snapshot/waiting-changes.ts';
import type { Clock } from '../time/clock.ts';
import type { CloseStack } from './close-stack.ts';
import type { NodeDatabase } from './database.ts';
import type { Logger } from './logger.ts';

export interface SnapshotParts {
  readonly settings: Settings;
  readonly database: NodeDatabase;
  /** By the rules in force. */
  readonly rowsOf: (channel: string) => RowsRule;
  readonly metrics: SnapshotMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

/** Beyond the time that a statement has, for its answer to arrive. */
const answerSeconds = 5;

export function openSnapshots({ settings, database, rowsOf, metrics, clock, log, closing }: SnapshotParts): Snapshots {
  const { snapshotTimeout, snapshotRowsMax: rowsMax, snapshotBytesMax: bytesMax } = settings;
  const timeoutMs = snapshotTimeout * 1_000;
  const sql = connect(database.applicationUrl, {
    applicationName: database.applicationName,
    // Queries may hold theirs for long. Whoever has its rows already looks for what waits by one more.
    max: queriesMax + 1,
    answerSeconds: Math.ceil(snapshotTimeout) + answerSeconds,
  });
  closing.add('snapshots', () => sql.end({ timeout: 1 }));
  return new DatabaseSnapshots(timeoutMs, {
    rows: new DatabaseRows(sql, { timeoutMs, rowsMax, bytesMax }),
    waiting: new WaitingChanges(sql),
    rowsOf,
    clock,
    observe: (outcome) => metrics.rows(outcome),
    failed: (message, details) => log.warn(details, message),
  });
}
