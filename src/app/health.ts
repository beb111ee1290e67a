// Liveness and readiness. Ready is proved, not assumed: a message travels the sync layer for each answer.

import type { SyncAdapter } from '../core/sync-adapter.ts';
import type { Check } from '../api/operations.ts';
import { DeadlineError, within } from '../time/within.ts';

export interface HealthParts {
  readonly adapter: SyncAdapter;
  /** Answers when the database does; undefined without one. */
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

/** What failed in detail goes to the log by its own path: an answer to anyone holds no addresses. */
async function check(run: () => Promise<unknown>): Promise<Check> {
  try {
    await within(run(), checkTimeoutMs, 'the check');
    return { ok: true };
  } catch (error) {
    return { ok: false, detail: error instanceof DeadlineError ? 'no answer in time' : 'failed' };
  }
}
