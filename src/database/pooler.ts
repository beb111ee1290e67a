// Tells whether a pooler, such as PgBouncer, stands between this server and its database, and how long a session of the
// database stays with one client. In transaction and statement mode it does so for a moment only: LISTEN hears nothing,
// and a lock of a session is left behind on a connection that serves others.
//
// A pooler gives its own key for cancelling, so the process that the key names is not the one that answers. Only then is
// a second client opened. In session mode no two clients of one time have the same session; in the others they soon do.
// Nothing is locked, prepared or set for longer than a transaction meanwhile, so nothing can be left behind.

import { isDoneWithin } from '../time/within.ts';
import { connect, type Database } from './connect.ts';
import { unpreparedUrl } from './url.ts';

export type Pooling = 'none' | 'session' | 'transaction' | 'statement';

/** A pooler cannot carry what the URL is used for: sessions, or at least transactions. */
export class PoolerInTheWay extends Error {
  readonly code: 'POOLER_KEEPS_NO_SESSION' | 'POOLER_KEEPS_NO_TRANSACTION';

  constructor(pooling: Pooling, lacking: 'session' | 'transaction') {
    super(`a pooler in ${pooling} mode stands before the database, and this needs a ${lacking} of its own`);
    this.name = 'PoolerInTheWay';
    this.code = lacking === 'session' ? 'POOLER_KEEPS_NO_SESSION' : 'POOLER_KEEPS_NO_TRANSACTION';
  }
}

/** Two clients that share sessions meet at the first or second look, where the pooler is not busy. */
const looks = 50;
/** Past it, a pooler in session mode has no session left for the second client. */
const secondClientMs = 8_000;

const applicationName = 'sobranie look for a pooler';

/** Rejects with the driver's errors. */
export async function poolingOf(url: string): Promise<Pooling> {
  const open = (): Database => connect(unpreparedUrl(url), { applicationName, max: 1 });
  const first = open();
  const second = open();
  try {
    if (await isDirect(first)) return 'none';
    if (!(await takesTransactions(first))) return 'statement';
    const sharing = areShared(first, second);
    sharing.catch(() => undefined);
    if (!(await isDoneWithin(sharing, secondClientMs))) return 'session';
    return (await sharing) ? 'transaction' : 'session';
  } finally {
    await Promise.all([first.end({ timeout: 0 }), second.end({ timeout: 0 })]);
  }
}

/** Throws `PoolerInTheWay` when a session does not stay with its client, else the driver's errors. */
export async function refusePooler(url: string): Promise<void> {
  const pooling = await poolingOf(url);
  if (pooling === 'transaction' || pooling === 'statement') throw new PoolerInTheWay(pooling, 'session');
}

/** No pooler stands between. */
async function isDirect(sql: Database): Promise<boolean> {
  const { answering, named } = await sessionOf(sql);
  return answering === named;
}

/** The process that answers, and the one that this connection was told of. Rejects with the driver's errors. */
export async function sessionOf(sql: Database): Promise<{ answering: number; named: number | null }> {
  const result = await sql.unsafe('select pg_catalog.pg_backend_pid() as pid').simple();
  return { answering: Number(result[0]?.['pid']), named: result.state.pid };
}

async function areShared(first: Database, second: Database): Promise<boolean> {
  const seen = [new Set<number>(), new Set<number>()] as const;
  for (let look = 0; look < looks; look++) {
    seen[0].add((await sessionOf(first)).answering);
    seen[1].add((await sessionOf(second)).answering);
    const isShared = [...seen[0]].some((pid) => seen[1].has(pid));
    if (isShared || seen[0].size > 1 || seen[1].size > 1) return true;
  }
  return false;
}

/**
 * In statement mode a transaction ends the connection. So does a network that fails, but not each time. Odyssey takes it
 * without an error, and ends it behind each of its statements: what is set for the transaction is gone then.
 */
async function takesTransactions(sql: Database): Promise<boolean> {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      return await sql.begin(async (transaction) => {
        await transaction.unsafe("select pg_catalog.set_config('sobranie.look', 'kept', true)").simple();
        const rows = await transaction
          .unsafe("select pg_catalog.current_setting('sobranie.look', true) as look")
          .simple();
        return rows[0]?.['look'] === 'kept';
      });
    } catch {
      await sessionOf(sql);
    }
  }
  return false;
}
