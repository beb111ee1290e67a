// Liveness and readiness. Readiness is proved: for each answer a message travels through the sync layer.

import type { SyncAdapter } from '../core/sync-adapter.ts';
import type { Check } from '../api/operations.ts';
import { DeadlineError, within } from '../time/within.ts';

export interface HealthParts {
  readonly adapter: SyncAdapter;
  /** Resolves when the database has answered; undefined without a database. */
  readonly database: (() => Promise<unknown>) | undefined;
  readonly isDraining: () => boolean;
}

const checkTimeoutMs = 2_000;

export async function readyChecks(parts: HealthParts): Promise<Record<string, Check>> {
  const { adapter, database, isDraining } = parts;
  const [sync, db] = await Promise.all([
    check(() => adapter.probe(checkTimeoutMs)),
    database === undefined ? undefined : check(database),
  ]);
  const draining: Check = isDraining() ? { ok: false, detail: 'shutting down' } : { ok: true };
  return { sync, ...(db === undefined ? {} : { database: db }), draining };
}

/** Details of a failure are in the log: anyone may read this answer, so it holds no addresses. */
async function check(run: () => Promise<unknown>): Promise<Check> {
  try {
    await within(run(), checkTimeoutMs, 'the check');
    return { ok: true };
  } catch (error) {
    return { ok: false, detail: error instanceof DeadlineError ? 'no answer in time' : 'failed' };
  }
}
