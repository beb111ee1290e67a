// The decisions of the application's own code, a function of the rules or of the database.
//
//   - each is remembered for a short time, and asked for once however many callers wait for it
//   - each has a deadline; after a failure its callers get `unavailable`, and nobody else is affected
//   - users, and connections without one, take turns, so that whoever's decisions take long holds up nobody else
//   - a renewal forgets what was remembered, and what was asked for before it

import { createHash } from 'node:crypto';
import type { Identity } from '../core/access.ts';
import type { Action } from '../rules/config.ts';
import type { Clock } from '../time/clock.ts';
import { DeadlineError, within } from '../time/within.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { Turns, type TurnLimits } from '../core/turns.ts';

/** `null`: undecided, others decide. */
export type Decision = boolean | null;
export type DecisionOutcome = 'allowed' | 'forbidden' | 'undecided' | 'failed';

export interface DecisionPorts {
  readonly clock: Clock;
  /** Called once for each decision that was asked for, and not for remembered ones. */
  readonly decided: (outcome: DecisionOutcome) => void;
  /** Called at most every 30 seconds. `more`: how many failures before this one were not reported. */
  readonly failed: (error: unknown, more: number) => void;
}

export interface DecisionLimits {
  readonly cacheSeconds: number;
  readonly timeoutMs: number;
}

export interface Question {
  readonly identity: Identity;
  readonly action: Action;
  readonly channel: string;
  /** Whose turn the decision takes: see `core/turns.ts`. */
  readonly account: string;
}

/** Whom a caller counts for that has no connection: the user, or all callers without one together. */
export function accountOf({ user }: Identity): string {
  return user ?? '\u0000nobody';
}

interface Entry {
  readonly user: string | null;
  answer: Promise<Decision> | Decision;
  /** Monotonic milliseconds. A decision that is awaited does not expire. */
  until: number;
}

const entriesMax = 10_000;
/** Between two failures that are reported. */
const reportEveryMs = 30_000;

export class Decisions {
  readonly #ports: DecisionPorts;
  readonly #limits: () => DecisionLimits;
  readonly #entries = new Map<string, Entry>();
  readonly #turns: Turns;
  #reportedAt = Number.NEGATIVE_INFINITY;
  #unreported = 0;

  constructor(ports: DecisionPorts, limits: () => DecisionLimits, turns: TurnLimits) {
    this.#ports = ports;
    this.#limits = limits;
    this.#turns = new Turns(turns);
  }

  /**
   * Synchronous where the decision is remembered, or made at once. The signal tells `decide` that nobody waits any more.
   * Throws, or rejects with, `unavailable`.
   */
  ask(question: Question, decide: (signal: AbortSignal) => unknown): MaybePromise<Decision> {
    const key = `${identityKey(question.identity)} ${question.action} ${question.channel}`;
    const known = this.#entries.get(key);
    if (known !== undefined && this.#ports.clock.monotonic() < known.until) return known.answer;
    this.#entries.delete(key);
    const answer = this.#inTurn(question, decide);
    if (!(answer instanceof Promise)) return this.#remember(key, question, answer).answer;
    const entry = this.#remember(key, question, answer);
    entry.until = Number.POSITIVE_INFINITY;
    return (entry.answer as Promise<Decision>).then(
      (decision) => {
        entry.answer = decision;
        entry.until = this.#until();
        return decision;
      },
      (error: unknown) => {
        if (this.#entries.get(key) === entry) this.#entries.delete(key);
        throw error;
      },
    );
  }

  /** The decisions of one user, or of all. */
  forget(user: string | undefined): void {
    if (user === undefined) this.#entries.clear();
    else for (const [key, entry] of this.#entries) if (entry.user === user) this.#entries.delete(key);
  }

  #inTurn({ identity, account }: Question, decide: (signal: AbortSignal) => unknown): MaybePromise<Decision> {
    let turn: Promise<void> | undefined;
    try {
      turn = this.#turns.take(account, identity.user === null);
    } catch (error) {
      throw this.#failure(error);
    }
    if (turn === undefined) return this.#decide(account, decide);
    return turn.then(
      () => this.#decide(account, decide),
      (error: unknown) => {
        throw this.#failure(error);
      },
    );
  }

  #decide(account: string, decide: (signal: AbortSignal) => unknown): MaybePromise<Decision> {
    const late = new AbortController();
    let answer: unknown;
    try {
      answer = decide(late.signal);
    } catch (error) {
      this.#turns.give(account);
      throw this.#failure(error);
    }
    if (isThenable(answer)) return this.#await(answer, late).finally(() => this.#turns.give(account));
    this.#turns.give(account);
    return this.#read(answer);
  }

  /** The deadline counts from the call: the application cannot shorten the wait for a turn. */
  async #await(answer: PromiseLike<unknown>, late: AbortController): Promise<Decision> {
    try {
      return this.#read(await within(answer, this.#limits().timeoutMs, 'the answer'));
    } catch (error) {
      if (error instanceof DeadlineError) late.abort();
      throw this.#failure(error);
    }
  }

  #remember(key: string, { identity }: Question, answer: Entry['answer']): Entry {
    const oldest = this.#entries.size < entriesMax ? undefined : this.#entries.keys().next().value;
    if (oldest !== undefined) this.#entries.delete(oldest);
    const entry = { user: identity.user, answer, until: this.#until() };
    this.#entries.set(key, entry);
    return entry;
  }

  #until(): number {
    return this.#ports.clock.monotonic() + this.#limits().cacheSeconds * 1_000;
  }

  /** Only `true` allows. */
  #read(answer: unknown): Decision {
    const decision = answer === null ? null : answer === true;
    this.#ports.decided(decision === null ? 'undecided' : decision ? 'allowed' : 'forbidden');
    return decision;
  }

  #failure(cause: unknown): RealtimeError {
    this.#ports.decided('failed');
    const now = this.#ports.clock.monotonic();
    if (now - this.#reportedAt < reportEveryMs) this.#unreported++;
    else {
      this.#ports.failed(cause, this.#unreported);
      this.#reportedAt = now;
      this.#unreported = 0;
    }
    return new RealtimeError('unavailable', 'Whether this is allowed could not be decided; retry.', { cause });
  }
}

/** What the token says; empty for an anonymous connection. */
export function claimsOf({ user, claims }: Identity): Readonly<Record<string, unknown>> {
  return claims ?? (user === null ? {} : { sub: user });
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

const identityKeys = new WeakMap<Identity, string>();

/** The same for all connections with the same claims. */
function identityKey(identity: Identity): string {
  const known = identityKeys.get(identity);
  if (known !== undefined) return known;
  const key = createHash('sha256')
    .update(JSON.stringify([identity.user, claimsOf(identity)]))
    .digest('base64');
  identityKeys.set(identity, key);
  return key;
}
