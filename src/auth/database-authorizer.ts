// Asks the database's function `realtime.authorize(channel text, action text, claims jsonb)`, if there is one. It
// returns a boolean: true allows, false forbids, null leaves the decision to the rules.
//
// Lifecycle: `start` looks for the function, and a timer looks again every few seconds. `close` ends the timer and the
// pool. The pool is its own: a function that hangs must not take the connections that publications need.

import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Database } from '../database/connect.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { within } from '../time/within.ts';
import { claimsOf, type Decision, type Decisions, type Question } from './decisions.ts';

export interface DatabaseAuthorizerPorts {
  /** A pool for the function alone: its queries may be cancelled. */
  readonly sql: Database;
  /** Another pool, to look for the function: there the look does not wait behind calls that hang. */
  readonly lookSql: Database;
  readonly decisions: Decisions;
  readonly log: (message: string, details: object) => void;
}

const lookEveryMs = 3_000;
/** Until the first answer nobody may do anything, so it may take longer than later ones. */
const firstLookMsMax = 5_000;
/** A right that is withdrawn must end within a second, whether or not the database answers. */
const lookMsMax = 500;
const undefinedFunction = '42883';

export class DatabaseAuthorizer {
  readonly #ports: DatabaseAuthorizerPorts;
  /** Undefined while unknown. Nobody may do anything then, since the function might forbid it. */
  #exists: boolean | undefined;
  #isUnknownLogged = false;
  #looking: Promise<void> | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(ports: DatabaseAuthorizerPorts) {
    this.#ports = ports;
  }

  async start(): Promise<void> {
    await this.#lookOnce(firstLookMsMax);
    this.#timer = setInterval(() => void this.#lookOnce(lookMsMax), lookEveryMs);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#ports.sql.end({ timeout: 1 });
  }

  /** Finds out whether the function exists now. While the database is away the last finding counts. Never rejects. */
  async look(): Promise<void> {
    // A look that is under way may have been answered before the function was created.
    await this.#looking;
    await this.#lookOnce(lookMsMax);
  }

  /** Null, synchronously, where there is no such function. Throws, or rejects with, `unavailable`. */
  ask(question: Question): MaybePromise<Decision> {
    if (this.#exists === false) return null;
    if (this.#exists === undefined) throw new RealtimeError('unavailable');
    return this.#ports.decisions.ask(question, (signal) => this.#query(question, signal));
  }

  forget(user: string | undefined): void {
    this.#ports.decisions.forget(user);
  }

  async #query({ identity, action, channel }: Question, signal: AbortSignal): Promise<Decision> {
    const { sql } = this.#ports;
    const claims = JSON.stringify(claimsOf(identity));
    const query = sql<{ allowed: Decision }[]>`
      SELECT realtime.authorize(${channel}::text, ${action}::text, ${claims}::text::jsonb) AS allowed`;
    signal.addEventListener('abort', () => this.#cancel(query));
    try {
      const [row] = await query;
      return row === undefined ? false : row.allowed;
    } catch (error) {
      if ((error as { code?: unknown }).code !== undefinedFunction) throw error;
      // It was dropped a moment ago, or it calls another function that does not exist.
      await this.look();
      if (this.#exists === false) return null;
      throw error;
    }
  }

  #lookOnce(msMax: number): Promise<void> {
    return (this.#looking ??= this.#look(msMax).finally(() => {
      this.#looking = undefined;
    }));
  }

  async #look(msMax: number): Promise<void> {
    const { lookSql, log } = this.#ports;
    try {
      const query = lookSql<{ exists: boolean }[]>`
        SELECT to_regprocedure('realtime.authorize(text, text, jsonb)') IS NOT NULL AS exists`;
      const [row] = await within(query, msMax, 'the look for realtime.authorize');
      const exists = row?.exists === true;
      if (exists && this.#exists !== true)
        log('realtime.authorize is in the database: it decides before the rules', {});
      if (!exists && this.#exists === true) log('realtime.authorize is gone from the database: the rules decide', {});
      this.#exists = exists;
    } catch (error) {
      // The last finding still counts. Other parts report that the database is away.
      if (this.#exists !== undefined || this.#isUnknownLogged) return;
      this.#isUnknownLogged = true;
      log('nobody may do anything until it is known whether the database has realtime.authorize', { err: error });
    }
  }

  /** Nobody waits for the answer any more, so the database need not go on. */
  #cancel(query: object): void {
    // The driver's own `cancel` drops the promise of its request: a failure would be an unhandled rejection.
    const { canceller } = query as Cancellable;
    canceller(query).catch((error: unknown) => {
      this.#ports.log('a call of realtime.authorize could not be cancelled', { err: error });
    });
  }
}

interface Cancellable {
  readonly canceller: (query: object) => Promise<void>;
}
