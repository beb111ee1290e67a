// A start beside others: the database or Redis may come up a little later, or may have no room at this moment.

import { backoffMs } from './backoff.ts';
import type { Clock } from './clock.ts';
import { DeadlineError } from './within.ts';

export interface PatienceOptions {
  /** Whether the failure may pass by itself. A wrong password does not. */
  readonly mayPass: (error: unknown) => boolean;
  /** Called once, with the first failure that may pass. */
  readonly waiting: (error: unknown) => void;
  readonly clock: Clock;
}

/** An orchestrator starts the process again, so it need not wait for long. */
const patienceMs = 10_000;
const pauses = { firstMs: 200, maxMs: 1_000 };

/** Tries again for a while as long as failures may pass. Rejects with the last failure. */
export async function patiently<Value>(attempt: () => Promise<Value>, options: PatienceOptions): Promise<Value> {
  const { mayPass, waiting, clock } = options;
  const until = clock.monotonic() + patienceMs;
  for (let failures = 0; ; failures++) {
    try {
      return await attempt();
    } catch (error) {
      if (!mayPass(error) || clock.monotonic() > until) throw error;
      if (failures === 0) waiting(error);
      await clock.sleep(pauses.firstMs / 2 + backoffMs(failures, pauses, clock));
    }
  }
}

const passingCodes = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN'],
  // The PostgreSQL driver's own, and those of a server that starts, ends, or has no session left.
  ...['CONNECT_TIMEOUT', 'CONNECTION_CLOSED', 'CONNECTION_DESTROYED', '57P01', '57P02', '57P03', '53300'],
  // Its disk or memory is full, or another session holds what this one needs.
  ...['53100', '53200', '55P03', '40P01', '40001', '57014'],
  // A standby may be about to be promoted.
  '25006',
]);

/** First words of what Redis answers while it starts, follows a master, is full, or runs a script for too long. */
const passingReplies =
  /^(?:LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|READONLY|MISCONF|NOREPLICAS|OOM|UNKILLABLE)\b|max number of clients/;

/** What a pooler passes on under a code of its own, which it also has for what lasts. */
const poolerCode = '08P01';
const passingPooled =
  /too many|not accepting|starting up|shutting down|recovery mode|cannot connect|login has been failing|timeout|crash/;

/** What the Redis driver says of an answer that did not come in time, or of a connection that was given up for it. */
const lateWords = new Set([
  'Command timed out',
  'Connection is closed.',
  'Command aborted due to connection close',
  "Stream isn't writeable and enableOfflineQueue options is false",
  "Cluster isn't ready and enableOfflineQueue options is false",
  'None of startup nodes is available',
  'Reached the max retries per request limit (which is 0). Refer to "maxRetriesPerRequest" option for details.',
]);

/** What it says where every Sentinel or master that it asked failed. Why the last one did may stand behind it. */
const allFailed = /^(?:All sentinels are unreachable|Failed to refresh slots cache)/;
const refused = /\b(?:NOAUTH|WRONGPASS|NOPERM|certificate)\b/;

/** Of a network, or of a server that is starting, full or slow; looks at what caused the error too. */
export function isPassingFailure(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as Error & { code?: unknown };
  if (typeof code === 'string' && passingCodes.has(code)) return true;
  // A part of this server is between two connections, and knows no more.
  if (code === 'unavailable' && error.cause === undefined) return true;
  if (code === poolerCode && passingPooled.test(error.message)) return true;
  if (passingReplies.test(error.message)) return true;
  if (error instanceof DeadlineError || lateWords.has(error.message)) return true;
  const { cause, lastNodeError = cause } = error as Error & { lastNodeError?: unknown };
  if (lastNodeError === undefined) return allFailed.test(error.message) && !refused.test(error.message);
  return isPassingFailure(lastNodeError);
}
