// One session of the database: one backend process, from its start to its end. When the connection is lost the session
// is over, with its locks and its LISTEN, and so is this object: it never reconnects, as its user has to take the locks
// again anyway. Lifecycle: `open`, queries one at a time or several, `close`.
//
// Queries use the simple protocol: several statements travel in one round trip, as one transaction. The driver resolves
// a query when the server is ready for the next one, which it says after the commit.

import { RealtimeError } from '../protocol/realtime-error.ts';
import { isDoneWithin } from '../time/within.ts';
import { connect, connectSession, unavailable, type Database } from './connect.ts';
import { refusePooler, sessionOf } from './pooler.ts';

export type Row = Readonly<Record<string, unknown>>;

export interface DirectSessionOptions {
  readonly url: string;
  readonly applicationName: string;
  /** A query unanswered for this long ends the session: the connection may be half-open. Default: `answerSecondsDefault`. */
  readonly answerSeconds?: number | undefined;
  /** A query may take the database longer than that: the session goes on for as long as its process is at work. */
  readonly worksLong?: boolean;
  /** Ends the session when aborted, also while it is being opened. */
  readonly signal?: AbortSignal;
  onNotification?(channel: string, payload: string): void;
  /** Called once, also after `close`. */
  onClosed?(): void;
}

// Each statement has to see what was committed before it, whatever the role or the database has as its default.
// What is told must not be lost by a crash, and nothing may end a statement or its session early.
export const ownSettings = `
  set default_transaction_isolation = 'read committed'; set default_transaction_read_only = off;
  set default_transaction_deferrable = off; set synchronous_commit = on; set search_path = pg_catalog;
  set statement_timeout = 0; set lock_timeout = 0; set idle_in_transaction_session_timeout = 0;
  set plpgsql.extra_errors = ''; set plpgsql.extra_warnings = ''`;

// The session of a client that vanished or was stopped still holds its locks. So the server is told to end it: 12 s after
// the peer's last sign of life, and, where it has that setting, 12 s after the session's last query. Who lives sends a
// query every second.
export const abandonment = `
  select set_config(v.name, v.value, false)
  from (values ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '3'), ('tcp_keepalives_count', '2'),
    ('tcp_user_timeout', '12000'), ('idle_session_timeout', '12000')) v (name, value)
  where exists (select from pg_settings s where s.name = v.name)`;

export const answerSecondsDefault = 10;
/** For the look whether the process of a session is at work. */
const lookMs = 3_000;

export class DirectSession {
  readonly #options: DirectSessionOptions;
  readonly #sql: Database;
  #closed = false;
  /** The process of the database. */
  #process = 0;
  readonly #abort = (): void => void this.close();

  private constructor(options: DirectSessionOptions) {
    this.#options = options;
    this.#sql = connectSession(options.url, {
      applicationName: options.applicationName,
      onNotification: (channel, payload) => {
        if (!this.#closed) options.onNotification?.(channel, payload);
      },
      onClosed: () => this.#end(),
    });
  }

  /**
   * Connects. Throws `unavailable` when the database cannot be reached, or a pooler answers that would give the session
   * to others.
   */
  static async open(options: DirectSessionOptions): Promise<DirectSession> {
    const session = new DirectSession(options);
    if (options.signal?.aborted === true) session.#end();
    options.signal?.addEventListener('abort', session.#abort);
    try {
      const { answering, named } = await session.#bounded(sessionOf(session.#sql));
      session.#process = answering;
      if (answering !== named) await refusePooler(options.url);
      return session;
    } catch (error) {
      await session.close();
      throw unavailable(error);
    }
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Runs statements as one transaction and answers the rows of each that returns rows, of the others an empty list.
   * The last one must return rows. Throws the driver's error, or `unavailable` when the session is over.
   */
  async query(text: string): Promise<readonly (readonly Row[])[]> {
    // The driver would open a new connection without a sign.
    if (this.#closed) throw new RealtimeError('unavailable', 'The database session is over.');
    const result: readonly unknown[] = await this.#bounded(this.#sql.unsafe(text).simple());
    return (Array.isArray(result[0]) ? result : [result]) as readonly (readonly Row[])[];
  }

  async #bounded<Answer>(pending: PromiseLike<Answer>): Promise<Answer> {
    const answerMs = (this.#options.answerSeconds ?? answerSecondsDefault) * 1_000;
    let isPending = true;
    const late = async (): Promise<void> => {
      const goesOn = this.#options.worksLong === true && (await this.#isAtWork());
      if (!isPending || this.#closed) return;
      if (goesOn) timer = setTimeout(() => void late(), answerMs);
      else await this.close();
    };
    let timer = setTimeout(() => void late(), answerMs);
    try {
      return await pending;
    } finally {
      isPending = false;
      clearTimeout(timer);
    }
  }

  /**
   * Whether the database works on a query of this session. Not if it waits for a lock, which may never end, nor for this
   * client: then the connection is lost. One heavy transaction of an application once stopped the relay for good, as its
   * batch was given up after ten seconds, again and again.
   */
  async #isAtWork(): Promise<boolean> {
    const sql = connect(this.#options.url, { applicationName: `${this.#options.applicationName} look`, max: 1 });
    const looking = sql`
      select from pg_catalog.pg_stat_activity a where a.pid = ${this.#process}
        and a.application_name = ${this.#options.applicationName} and a.state = 'active'
        and a.wait_event_type is distinct from 'Lock' and a.wait_event_type is distinct from 'Client'`;
    try {
      return (await isDoneWithin(looking, lookMs)) && (await looking).length > 0;
    } catch (error) {
      // A database that cannot be asked is as good as gone.
      void error;
      return false;
    } finally {
      await sql.end({ timeout: 0 });
    }
  }

  /** Ends the session at once; queries under way reject. Idempotent, never rejects. */
  async close(): Promise<void> {
    this.#end();
    try {
      await this.#sql.end({ timeout: 0 });
    } catch (error) {
      // Ending twice, or what is broken already, ends all the same.
      void error;
    }
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.signal?.removeEventListener('abort', this.#abort);
    this.#options.onClosed?.();
  }
}
